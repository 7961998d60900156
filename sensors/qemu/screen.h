/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pictures of a VM's display, by screendump into memory that the sensor gives to QEMU by descriptor (add-fd).
 *
 * QEMU writes a pixmap, whatever was asked for: its PNG library ends the process where it cannot write, and a
 * guest must not end because somebody looked.  What it wrote is sealed, measured and checked before anybody
 * believes it, and turned into PNG on the worker.  One picture is taken at a time; some may wait.
 */
#ifndef SENSORS_QEMU_SCREEN_H
#define SENSORS_QEMU_SCREEN_H

#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

struct qemu;
struct vm;
struct screenshot;

/** Pictures that may be asked for and not taken yet. */
#define SCREEN_WAITING_BOUND 16
/** Octets of a pixmap at most. */
#define SCREEN_OCTETS_BOUND ((uint64_t)256 << 20)

TAILQ_HEAD(screenshots, screenshot);

/** A VM's pictures. */
struct screen {
    struct screenshots waiting;
    unsigned int n_waiting;
    struct screenshot *current; /* being taken */
};

void screen_init(struct vm *vm);

/** Frees what is waiting and under way; the connection is closed. A picture on the worker frees itself. */
void screen_deinit(struct vm *vm);

/** The endpoint is gone: nobody is answered any more. */
void screen_forget(struct vm *vm);

/** Executes SCREENSHOT. Returns as the module's execute(). */
int screen_execute(struct vm *vm, const struct vmibus_sensor_command *command);

/** Frees the pictures that the worker had not finished. It has ended. */
void screen_jobs_deinit(struct qemu *qemu);

#endif
