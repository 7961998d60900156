/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole bus with the QEMU sensor and one control, in the test's process, on a real QEMU: what the
 * control hears of the guest is written down as it arrives.
 *
 * What the test does to QEMU by its own monitor is done by another thread, so that the bus goes on
 * meanwhile.  All else is the test's thread.
 */
#ifndef TESTS_QEMU_SCENE_H
#define TESTS_QEMU_SCENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "bed.h"

#define SCENE_WAIT_MS 60000
#define SCENE_ENDS 64

/** An end of an epoch, as the control heard of it. */
struct scene_end {
    uint64_t epoch;
    uint64_t at;            /**< CLOCK_MONOTONIC nanoseconds */
    uint16_t reason;
    bool was_ready;         /**< a kernel root had been published for it */
};

struct scene {
    struct bed *bed;
    struct vmibus_core *core;
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    uint64_t epoch;         /**< of the last MEMCTX, 0 if it has ended */
    uint8_t state;          /**< of the last MEMCTX */
    struct vmibus_memctx memctx;        /**< the last */
    struct scene_end ends[SCENE_ENDS];
    size_t n_ends;
    struct vmibus_lifecycle lifecycle;  /**< the last */
    size_t by_bus;          /**< LIFECYCLE that said so */
    size_t left;            /**< LIFECYCLE that said MIGRATING */
    uint64_t migrating_at;  /**< timestamp of the last of those */
    uint64_t token;         /**< of the MEMWRITE lease */
    uint64_t power;         /**< of the POWER lease */
};

/** Starts bus, sensor and control on a guest whose QEMU runs. Skips the test where there is no sensor built. */
void scene_begin(struct scene *scene, struct bed *bed);

/**
 * Boots code of at most 510 octets as the boot sector of a guest of its own, begins the scene on it, takes the leases
 * and waits for an epoch. Skips the test where no guest can be had.
 *
 * @param smp    its processors; NULL: one
 * @param accel  NULL: TCG
 */
void scene_boot(struct scene *scene, const uint8_t *code, size_t size, const char *smp, const char *accel);

/** Ends bus, sensor and control; the guest stays. */
void scene_end(struct scene *scene);

/** Lets everything run until a condition holds. Returns whether it came to that within SCENE_WAIT_MS. */
bool scene_wait(struct scene *scene, bool (*condition)(struct scene *scene, void *data), void *data);

/** Lets everything run once, for so long at most. */
void scene_turn(struct scene *scene, int timeout_ms);

/** Waits for a memory context with a kernel root. */
void scene_wait_ready(struct scene *scene);

/** Runs something in another thread, and the bus meanwhile; returns when it has ended. */
void scene_meanwhile(struct scene *scene, void (*action)(struct scene *scene));

/** Takes the MEMWRITE and POWER leases. */
void scene_take_leases(struct scene *scene);

/** CLOCK_MONOTONIC nanoseconds. */
uint64_t scene_now(void);

/** Executes a QMP command by the test's monitor; a test fails that cannot. */
void scene_qmp(struct scene *scene, const char *command, const char *arguments);

/** Executes a human monitor command that has nothing to say. */
void scene_hmp(struct scene *scene, const char *command);

/** Gives the guest a disk that takes snapshots. */
void scene_add_snapshots(struct bed *bed);

#endif
