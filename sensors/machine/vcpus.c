/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vcpus.h"

#include <errno.h>
#include <stdlib.h>

#include "vcpu_registers.h"
#include "machine.h"

#define ALL_VCPUS UINT32_MAX

struct vcpus_command {
    TAILQ_ENTRY(vcpus_command) link;
    struct machine *machine;
    uint64_t id;
    uint32_t vcpu;
};

static void refuse(struct machine *machine, uint64_t id, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    machine_complete(machine, id, VMIBUS_KIND_REGISTERS, error, reason, value, 0);
}

static void fail(struct machine *machine, uint64_t id, int code) {
    refuse(machine, id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)code);
}

static void tell(struct machine *machine, const struct vcpus_command *command, const struct vmibus_vcpu_registers *registers,
                 size_t n) {
    const struct vmibus_ack ack = {.command = VMIBUS_KIND_REGISTERS, .count = n};
    const struct vmibus_sensor_api *api = machine->sensor->api;

    if (api->complete_with(machine->sensor->host, command->id, &ack, registers, n * sizeof(*registers), NULL, 0) < 0)
        refuse(machine, command->id, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_ANSWERS, n * sizeof(*registers));
}

static void answer(const struct vcpus_command *command, const struct monitor_reply *reply) {
    struct vmibus_vcpu_registers *registers;
    struct machine *machine = command->machine;
    size_t len, n;
    const char *text = monitor_text(reply, &len);

    if (!text) {
        fail(machine, command->id, reply->outcome == MONITOR_LOST ? ETIMEDOUT : reply->outcome == MONITOR_ERROR ? EPERM : EBADMSG);
        return;
    }
    registers = calloc(VCPU_REGISTERS_BOUND, sizeof(*registers));
    n = registers ? vcpu_registers_parse(text, len, registers, VCPU_REGISTERS_BOUND) : 0;
    if (n == 0)
        fail(machine, command->id, registers ? EBADMSG : ENOMEM);
    else if (command->vcpu == ALL_VCPUS)
        tell(machine, command, registers, n);
    else if (command->vcpu < n)
        tell(machine, command, &registers[command->vcpu], 1);
    else
        refuse(machine, command->id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, command->vcpu);
    free(registers);
}

static void on_registers(void *userdata, const struct monitor_reply *reply) {
    struct vcpus_command *command = userdata;

    TAILQ_REMOVE(&command->machine->vcpus, command, link);
    answer(command, reply);
    free(command);
}

int vcpus_execute(struct machine *machine, const struct vmibus_sensor_command *command) {
    struct vcpus_command *asked;
    int r;

    if (!machine_is_usable(machine)) {
        fail(machine, command->id, ENOTCONN);
        return 0;
    }
    asked = calloc(1, sizeof(*asked));
    if (!asked)
        return -ENOMEM;
    *asked = (struct vcpus_command){.machine = machine, .id = command->id, .vcpu = command->frame->registers.vcpu};
    TAILQ_INSERT_TAIL(&machine->vcpus, asked, link);
    r = monitor_execute_human(machine->monitor, "info registers -a", on_registers, asked);
    if (r < 0) {
        TAILQ_REMOVE(&machine->vcpus, asked, link);
        free(asked);
    }

    return r;
}

/* --- coming and going ------------------------------------------------------------------------ */

void vcpus_init(struct machine *machine) {
    TAILQ_INIT(&machine->vcpus);
}

void vcpus_deinit(struct machine *machine) {
    struct vcpus_command *command;

    while ((command = TAILQ_FIRST(&machine->vcpus))) {
        TAILQ_REMOVE(&machine->vcpus, command, link);
        free(command);
    }
}

void vcpus_forget(struct machine *machine) {
    vcpus_deinit(machine);
}
