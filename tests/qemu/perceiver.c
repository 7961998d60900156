/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "perceiver.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define BOOT_MS 240000

static void hear(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct perceiver *self = userdata;
    struct perceived *event = &self->events[self->n];
    size_t length = message->frame.header.tail_length;

    (void)bus;
    self->gaps += message->frame.header.kind == VMIBUS_KIND_GAP;
    if (message->frame.header.kind == VMIBUS_KIND_SENSOR && length)
        fprintf(stderr, "# %.31s: %.*s\n", (const char *)message->frame.sensor.name, (int)length, (const char *)message->tail);
    ck_assert_uint_lt(self->n, PERCEIVER_EVENTS);
    *event = (struct perceived){.frame = message->frame, .at = scene_now()};
    if (length)
        memcpy(event->tail, message->tail, length < sizeof(event->tail) ? length : sizeof(event->tail));
    self->n++;
}

void perceiver_load(struct perceiver *self, const char *name, const struct vmibus_sensor_option *option) {
    const char *directory = getenv("VMIBUS_SENSOR_DIR");
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s.so", directory, name);
    ck_assert_int_eq(vmibus_core_load_sensor(self->scene.core, path, option, option ? 1 : 0), 0);
    /* It hears of the guest before anybody asks it for something. */
    perceiver_run(self, 10);
}

void perceiver_begin(struct perceiver *self, const struct bed_options *options) {
    const char *reason;
    struct bed *bed;

    if (!bed_available(false, &reason))
        test_skip("%s", reason);
    ck_assert_msg(bed_start(&bed, options) == 0, "%s", bed_error(NULL));
    ck_assert_msg(bed_wait_serial(bed, "READY", (int)harness_scale(BOOT_MS), NULL) == 0, "%s", bed_error(bed));
    scene_begin(&self->scene, bed);
    scene_wait_ready(&self->scene);
    ck_assert_int_eq(vmibus_core_connect(self->scene.core, &self->bus, "perceiver"), 0);
    vmibus_set_handler(self->bus, hear, self);
}

void perceiver_end(struct perceiver *self) {
    ck_assert_uint_eq(self->gaps, 0);
    vmibus_free(self->bus);
    scene_end(&self->scene);
    bed_stop(self->scene.bed);
}

static void turn(struct perceiver *self) {
    scene_turn(&self->scene, 20);
    ck_assert_int_eq(vmibus_dispatch(self->bus), 0);
}

const struct perceived *perceiver_wait(struct perceiver *self, const char *what, perceiver_match match, const void *data) {
    uint64_t until = scene_now() + harness_scale(SCENE_WAIT_MS) * UINT64_C(1000000);

    for (;;) {
        while (self->next < self->n) {
            const struct perceived *event = &self->events[self->next++];

            if (match(&event->frame, event->tail, data))
                return event;
        }
        ck_assert_msg(scene_now() < until, "%s: it was not told", what);
        turn(self);
    }
}

void perceiver_run(struct perceiver *self, int ms) {
    uint64_t until = scene_now() + (uint64_t)ms * UINT64_C(1000000);

    while (scene_now() < until)
        turn(self);
}
