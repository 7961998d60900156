/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The run state of a VM, told from its monitor's events, and what those mean for its memory.
 *
 *   STOP                       PAUSED; if the bus did not cause it memory is busy until the monitor
 *                              answers again and says that nothing is being saved
 *   RESUME                     RESUMED; one that the bus did not cause ends the epoch (see below)
 *   RESET                      ends the epoch; RESETs within LIFECYCLE_SETTLE_NS are one (firmware
 *                              resets the machine once more when it meets a warm one)
 *   SHUTDOWN                   ends the epoch
 *   GUEST_PANICKED             CRASHED; ends nothing: such memory is worth reading
 *   SUSPEND, SUSPEND_DISK      SUSPENDED
 *   WAKEUP                     RUNNING; ends the epoch as RESUME does
 *   BLOCK_IO_ERROR             names the cause of the STOP that follows
 *   MIGRATION                  memory is busy while it is copied; completed ends the epoch, unless it
 *                              never was active: that is savevm, after which the guest is still here
 *   JOB_STATUS_CHANGE          snapshot-load ends the epoch
 *   DEVICE_DELETED, MEMORY_DEVICE_SIZE_CHANGE, ACPI_DEVICE_OST
 *                              the layout is read anew and compared
 *
 * loadvm of a running guest is a STOP and a RESUME, loadvm of a paused one is nothing at all (measured,
 * QEMU 7.2): neither event, nor run state, nor anything that can be asked for tells it from a pause.
 * So whatever lay in RAM before a stop of somebody else's is not vouched for after it, same kernel
 * or not.
 */
#ifndef SENSORS_QEMU_LIFECYCLE_H
#define SENSORS_QEMU_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>
#include <vmibus/protocol.h>

struct vm;

/**
 * RESETs that come this soon after another are the same one (measured: SeaBIOS under TCG 19 ms).
 */
#define LIFECYCLE_SETTLE_NS (UINT64_C(250) * 1000 * 1000)

/** Things that the bus asks for and then sees happen. */
enum lifecycle_expectation {
    LIFECYCLE_EXPECT_STOP,
    LIFECYCLE_EXPECT_RESUME,
    LIFECYCLE_EXPECT_RESET,
    LIFECYCLE_EXPECT_POWERDOWN,
    LIFECYCLE_EXPECT_SHUTDOWN,
    LIFECYCLE_EXPECT_WAKEUP,
    LIFECYCLE_EXPECTATIONS,
};

/** Run state. */
struct lifecycle {
    bool known;   /**< told by the monitor since it was connected to */
    bool running; /**< vCPUs run */
    bool suspended;
    bool shutdown;
    bool crashed;
    bool incoming; /**< waits for its memory to arrive from another host */
    bool migrating;
    bool snapshotting; /**< the migration is a background snapshot */
    bool active;       /**< the migration got beyond its setup: no savevm */
    bool stopping;     /**< somebody else stopped the guest, perhaps to save or load it */
    enum vmibus_reason busy; /**< why writes are refused; VMIBUS_REASON_NONE: they are not */
    bool io_error;     /**< a STOP for a block I/O error is to follow */
    bool settling;     /**< a RESET was told, and its like may follow */
    uint64_t expected_until[LIFECYCLE_EXPECTATIONS]; /* 0: not expected */
    uint64_t stops;                                  /**< STOP events seen */
    uint64_t event_time;    /**< when the event happened that is being told; 0: none is */
    uint64_t reloads;       /**< times that RAM may have become another's */
    uint64_t job_reloads;   /* ... when the job began to run that is asked about */
    void (*observed)(struct vm *vm, bool told);
    struct vmibus_sensor_timer *settle_timer;
};

/** Prepares. Returns 0 or a negative errno. */
int lifecycle_init(struct vm *vm);

/** Frees. */
void lifecycle_deinit(struct vm *vm);

/**
 * Reads the run state of a VM just connected to; then calls @a done with whether it was told.
 * Returns as qmp_execute().
 */
int lifecycle_observe(struct vm *vm, void (*done)(struct vm *vm, bool told));

/**
 * The endpoint exists: publishes what was observed, and asks for whether its memory is being
 * copied.
 */
void lifecycle_begin(struct vm *vm);

/** Publishes the state; what an event tells bears the time at which QEMU says that it happened. */
void lifecycle_publish(struct vm *vm, enum vmibus_lifecycle_cause cause, bool by_bus);

/** The connection is gone: nothing is known any more. */
void lifecycle_lost(struct vm *vm);

/** Takes an event. */
void lifecycle_event(struct vm *vm, const char *name, json_object *data);

/** The bus has asked for it: events that follow within the deadline of a command carry BY_BUS. */
void lifecycle_expect(struct vm *vm, enum lifecycle_expectation expectation);

/** It did not happen, or no more can come of it. */
void lifecycle_unexpect(struct vm *vm, enum lifecycle_expectation expectation);

/** Whether the guest takes input: it runs, or sleeps and could be woken. */
bool lifecycle_takes_input(const struct vm *vm);

#endif
