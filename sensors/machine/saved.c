/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "saved.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"

/* --- written --------------------------------------------------------------------------------- */

int saved_begin(struct machine_sensor *sensor, size_t n_machines, const void *rest, size_t n_rest) {
    struct saved_machines *saved = &sensor->saved;
    size_t n_room = n_machines * sizeof(struct saved_machine);
    struct saved_header *header = calloc(1, sizeof(*header) + n_room + n_rest);

    free(saved->filled);
    saved->filled = header;
    saved->room = 0;
    if (!header)
        return -ENOMEM;
    if (n_rest)
        memcpy((uint8_t *)(header + 1) + n_room, rest, n_rest);
    saved->n_rest = n_rest;
    saved->room = (uint32_t)n_machines;
    *header = (struct saved_header){.magic = SAVED_MAGIC, .record_size = sizeof(struct saved_machine)};

    return 0;
}

struct saved_machine *saved_add(struct machine *machine) {
    struct saved_machines *saved = &machine->sensor->saved;
    struct saved_header *header = saved->filled;
    const struct power *power = &machine->power;
    struct saved_machine *record;

    if (!machine->process.pid || header->n_machines == saved->room)
        return NULL;
    record = (struct saved_machine *)(void *)(header + 1) + header->n_machines++;
    *record = (struct saved_machine){
        .pid = machine->process.pid,
        .start_time = machine->process.start_time,
        .stopped = power->stopped,
        .paused = power->paused,
        .held = power->held,
        .resume = power->resume,
        .fingerprint = power->fingerprint,
    };
    machine->is_kept = true;

    return record;
}

void saved_end(const struct machine_sensor *sensor, struct vmibus_sensor_saved *state) {
    const struct saved_machines *saved = &sensor->saved;
    struct saved_header *header = saved->filled;
    size_t n_used = header->n_machines * sizeof(struct saved_machine);
    uint8_t *records = (uint8_t *)(header + 1);

    memmove(records + n_used, records + saved->room * sizeof(struct saved_machine), saved->n_rest);
    *state = (struct vmibus_sensor_saved){.octets = header, .n_octets = sizeof(*header) + n_used + saved->n_rest};
}

/* --- read ------------------------------------------------------------------------------------ */

static bool makes_sense(const uint8_t *octets, size_t n, struct saved_header *header) {
    if (n < sizeof(*header))
        return false;
    memcpy(header, octets, sizeof(*header));

    return header->magic == SAVED_MAGIC && header->record_size >= offsetof(struct saved_machine, stopped) &&
           header->n_machines <= (n - sizeof(*header)) / header->record_size;
}

void saved_take(struct machine_sensor *sensor) {
    struct vmibus_sensor_saved state;
    struct saved_header header;

    if (!VMIBUS_SENSOR_API_HAS(sensor->api, saved) || sensor->api->saved(sensor->host, &state) < 0 ||
        !makes_sense(state.octets, state.n_octets, &header))
        return;
    sensor->saved.given = malloc(state.n_octets);
    if (!sensor->saved.given)
        return;
    memcpy(sensor->saved.given, state.octets, state.n_octets);
    sensor->saved.n_given = state.n_octets;
}

bool saved_find(struct machine_sensor *sensor, uint32_t pid, uint64_t start_time, struct saved_machine *saved) {
    uint8_t *octets = sensor->saved.given;
    struct saved_header header;
    size_t size;

    if (!pid || !octets || !makes_sense(octets, sensor->saved.n_given, &header))
        return false;
    size = header.record_size < sizeof(*saved) ? header.record_size : sizeof(*saved);
    for (uint32_t i = 0; i < header.n_machines; i++) {
        uint8_t *record = octets + sizeof(header) + (size_t)i * header.record_size;

        *saved = (struct saved_machine){};
        memcpy(saved, record, size);
        if (saved->pid != pid || saved->start_time != start_time)
            continue;
        memset(record, 0, size);
        return true;
    }

    return false;
}

const uint8_t *saved_rest(const struct machine_sensor *sensor, size_t *np) {
    const uint8_t *octets = sensor->saved.given;
    struct saved_header header;
    size_t n_machines;

    *np = 0;
    if (!octets || !makes_sense(octets, sensor->saved.n_given, &header))
        return NULL;
    n_machines = (size_t)header.n_machines * header.record_size;
    *np = sensor->saved.n_given - sizeof(header) - n_machines;

    return *np ? octets + sizeof(header) + n_machines : NULL;
}

void saved_deinit(struct saved_machines *saved) {
    free(saved->given);
    free(saved->filled);
    *saved = (struct saved_machines){};
}
