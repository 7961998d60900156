/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A control that listens to what sensors push out of a real Linux guest: the scene with one more sensor, and a control of its own
 * that keeps all events, and prints what sensors say of
 * themselves if it subscribes to that.
 */
#ifndef TESTS_QEMU_PERCEIVER_H
#define TESTS_QEMU_PERCEIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "scene.h"

#define PERCEIVER_EVENTS 4096

/** An event, with the beginning of its tail. */
struct perceived {
    struct vmibus_frame frame;
    uint64_t at;                /**< when it was heard, CLOCK_MONOTONIC nanoseconds */
    uint8_t tail[64];
};

struct perceiver {
    struct scene scene;
    struct vmibus *bus;
    struct perceived events[PERCEIVER_EVENTS];
    size_t n;
    size_t next;                /**< the first that perceiver_wait() has not looked at */
    size_t gaps;
};

/** Boots a guest, waits for its agent and for its kernel's root. Skips the test where there is none. */
void perceiver_begin(struct perceiver *self, const struct bed_options *options);

/** Loads a sensor by its name. @param option may be NULL */
void perceiver_load(struct perceiver *self, const char *name, const struct vmibus_sensor_option *option);

/** Ends everything. */
void perceiver_end(struct perceiver *self);

/** Which event is waited for. */
typedef bool (*perceiver_match)(const struct vmibus_frame *frame, const uint8_t *tail, const void *data);

/** Waits for the next event that matches; those before are passed over. A test fails where none comes. */
const struct perceived *perceiver_wait(struct perceiver *self, const char *what, perceiver_match match, const void *data);

/** Lets everything run for a while. */
void perceiver_run(struct perceiver *self, int ms);

#endif
