/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is known of machines while the sensor, or the bus, is started anew: which of them a stop of ours holds still, how it came to
 * stand so, and what the sensor adds (keys that are down).  A machine is found again by its process, so one whose process is not
 * known is not kept: its stop ends with the sensor.
 *
 * Octets: a header, then a record of the size that the header says for each machine.  An older or newer sensor takes of a record
 * what it knows; members are only ever appended, and never change their meaning.  What follows the records is the sensor's, in a
 * format of its own: an older one does not look there.
 */
#ifndef SENSORS_MACHINE_SAVED_H
#define SENSORS_MACHINE_SAVED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#define SAVED_MAGIC UINT64_C(0x656e696863616d73)

/** Octets of what a sensor adds, in its own format, zeros at first. */
#define SAVED_OWN 128

struct machine;
struct machine_sensor;

struct saved_header {
    uint64_t magic;
    uint32_t n_machines;
    uint32_t record_size;
};

/** A machine. Its power is that of power.h. */
struct saved_machine {
    uint64_t start_time;
    uint32_t pid;
    uint8_t stopped, paused, held, resume;
    uint64_t fingerprint;
    uint8_t own[SAVED_OWN];
};

/** Both directions' octets; embedded in what the machines of a sensor share, all zeros at first. */
struct saved_machines {
    void *given;        /**< what the instance before gave; NULL: nothing */
    size_t n_given;
    void *filled;       /**< for the instance that follows */
    uint32_t room;
    size_t n_rest;      /**< octets of the sensor's own, after the room for machines */
};

/** Copies what the instance before gave, from within start(). Without memory there is nothing. */
void saved_take(struct machine_sensor *sensor);

/**
 * Begins to fill what the next instance is to know, in memory of the sensor's, of so many machines.
 * @param rest what is to follow them, copied; NULL with @a n_rest 0: nothing
 * @return 0 or -ENOMEM
 */
int saved_begin(struct machine_sensor *sensor, size_t n_machines, const void *rest, size_t n_rest);

/** Adds a machine, whose stop the end of this instance leaves as it is. Returns its record; NULL: it cannot be found again. */
struct saved_machine *saved_add(struct machine *machine);

/** What was filled. Once for each saved_begin(). */
void saved_end(const struct machine_sensor *sensor, struct vmibus_sensor_saved *state);

/** What was said of the machine in this process, which is said once. False: nothing that makes sense. */
bool saved_find(struct machine_sensor *sensor, uint32_t pid, uint64_t start_time, struct saved_machine *saved);

/** What followed the machines, borrowed until the sensor ends; NULL, of 0 octets: nothing. It is not checked. */
const uint8_t *saved_rest(const struct machine_sensor *sensor, size_t *np);

/** Frees both. */
void saved_deinit(struct saved_machines *saved);

#endif
