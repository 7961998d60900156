/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool machine_is_usable(const struct machine *machine) {
    return machine->endpoint && monitor_is_ready(machine->monitor) && machine->lifecycle.known;
}

void machine_complete(struct machine *machine, uint64_t id, uint16_t kind, enum vmibus_error error, enum vmibus_reason reason,
                      uint64_t value, uint64_t count) {
    const struct vmibus_ack ack = {
        .error = (uint16_t)error,
        .reason = (uint16_t)reason,
        .command = kind,
        .value = value,
        .count = count,
    };

    machine->sensor->api->complete(machine->sensor->host, id, &ack);
}

bool machine_parse_uuid(const char *text, uint8_t *uuid) {
    size_t n = 0;

    for (; *text && n < 32; text++) {
        int digit;

        if (*text == '-')
            continue;
        if (*text >= '0' && *text <= '9')
            digit = *text - '0';
        else if (*text >= 'a' && *text <= 'f')
            digit = *text - 'a' + 10;
        else
            return false;
        uuid[n / 2] = (uint8_t)(uuid[n / 2] << 4 | digit);
        n++;
    }

    return n == 32 && !*text;
}

void machine_run_state_changed(struct machine *machine) {
    if (machine->sensor->run_state_changed)
        machine->sensor->run_state_changed(machine);
}

void machine_begin(struct machine *machine) {
    lifecycle_begin(machine);
    power_recover(machine);
    machine_run_state_changed(machine);
    memory_read(machine, true);
}

bool machine_restore(struct machine *machine, const struct process *process, struct saved_machine *saved) {
    if (!saved_find(machine->sensor, process->pid, process->start_time, saved))
        return false;
    power_restore(machine, saved);

    return true;
}

void machine_forget(struct machine *machine) {
    lifecycle_lost(machine);
    root_forget(machine);
    memory_forget(machine);
    power_forget(machine);
    vcpus_forget(machine);
    process_deinit(&machine->process);
}

int machine_init(struct machine *machine, struct machine_sensor *sensor, const char *name, size_t name_len) {
    int r;

    machine->sensor = sensor;
    machine->process = (struct process)PROCESS_NONE;
    power_init(machine);
    vcpus_init(machine);
    machine->name = strndup(name, name_len);
    if (!machine->name)
        return -ENOMEM;
    r = lifecycle_init(machine);
    if (r >= 0)
        r = memory_init(machine);
    if (r >= 0)
        r = root_init(machine);

    return r;
}

void machine_deinit(struct machine *machine) {
    root_deinit(machine);
    memory_deinit(machine);
    lifecycle_deinit(machine);
    power_deinit(machine);
    vcpus_deinit(machine);
    process_deinit(&machine->process);
    free(machine->name);
    machine->name = NULL;
}

void machine_sensor_init(struct machine_sensor *sensor, struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api) {
    *sensor = (struct machine_sensor){.host = host, .api = api};
    TAILQ_INIT(&sensor->jobs);
}

void machine_sensor_deinit(struct machine_sensor *sensor) {
    root_jobs_deinit(&sensor->jobs);
    saved_deinit(&sensor->saved);
    free(sensor->state_directory);
    sensor->state_directory = NULL;
}
