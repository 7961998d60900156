/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vcpus.h"

#include <errno.h>
#include <stdlib.h>

#include "vcpu_registers.h"
#include "vm.h"

#define ALL_VCPUS UINT32_MAX

struct vcpus_command {
    TAILQ_ENTRY(vcpus_command) link;
    struct vm *vm;
    uint64_t id;
    uint32_t vcpu;
};

static void refuse(struct vm *vm, uint64_t id, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    vm_complete(vm, id, VMIBUS_KIND_REGISTERS, error, reason, value, 0);
}

static void fail(struct vm *vm, uint64_t id, int code) {
    refuse(vm, id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)code);
}

static void tell(struct vm *vm, const struct vcpus_command *command, const struct vmibus_vcpu_registers *registers, size_t n) {
    const struct vmibus_ack ack = {.command = VMIBUS_KIND_REGISTERS, .count = n};
    const struct vmibus_sensor_api *api = vm->qemu->api;

    if (api->complete_with(vm->qemu->host, command->id, &ack, registers, n * sizeof(*registers), NULL, 0) < 0)
        refuse(vm, command->id, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_ANSWERS, n * sizeof(*registers));
}

static void answer(const struct vcpus_command *command, const struct qmp_reply *reply) {
    struct vmibus_vcpu_registers *registers;
    struct vm *vm = command->vm;
    size_t len, n;
    const char *text = qmp_text(reply, &len);

    if (!text) {
        fail(vm, command->id, reply->outcome == QMP_LOST ? ETIMEDOUT : reply->outcome == QMP_ERROR ? EPERM : EBADMSG);
        return;
    }
    registers = calloc(VCPU_REGISTERS_BOUND, sizeof(*registers));
    n = registers ? vcpu_registers_parse(text, len, registers, VCPU_REGISTERS_BOUND) : 0;
    if (n == 0)
        fail(vm, command->id, registers ? EBADMSG : ENOMEM);
    else if (command->vcpu == ALL_VCPUS)
        tell(vm, command, registers, n);
    else if (command->vcpu < n)
        tell(vm, command, &registers[command->vcpu], 1);
    else
        refuse(vm, command->id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, command->vcpu);
    free(registers);
}

static void on_registers(void *userdata, const struct qmp_reply *reply) {
    struct vcpus_command *command = userdata;

    TAILQ_REMOVE(&command->vm->vcpus, command, link);
    answer(command, reply);
    free(command);
}

int vcpus_execute(struct vm *vm, const struct vmibus_sensor_command *command) {
    struct vcpus_command *asked;
    int r;

    if (!vm_is_usable(vm)) {
        fail(vm, command->id, ENOTCONN);
        return 0;
    }
    asked = calloc(1, sizeof(*asked));
    if (!asked)
        return -ENOMEM;
    *asked = (struct vcpus_command){.vm = vm, .id = command->id, .vcpu = command->frame->registers.vcpu};
    TAILQ_INSERT_TAIL(&vm->vcpus, asked, link);
    r = qmp_execute_human(vm->qmp, "info registers -a", on_registers, asked);
    if (r < 0) {
        TAILQ_REMOVE(&vm->vcpus, asked, link);
        free(asked);
    }

    return r;
}

/* --- coming and going ------------------------------------------------------------------------ */

void vcpus_init(struct vm *vm) {
    TAILQ_INIT(&vm->vcpus);
}

void vcpus_deinit(struct vm *vm) {
    struct vcpus_command *command;

    while ((command = TAILQ_FIRST(&vm->vcpus))) {
        TAILQ_REMOVE(&vm->vcpus, command, link);
        free(command);
    }
}

void vcpus_forget(struct vm *vm) {
    vcpus_deinit(vm);
}
