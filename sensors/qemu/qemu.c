/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensor's module: options, instances, and the way from the host's calls to the VM they
 * concern.
 *
 * Options: monitor.NAME=PATH (a VM), state-directory=PATH (where intents of pauses are kept).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/visibility.h>

#include "qemu.h"
#include "vm.h"

#define MONITOR_PREFIX "monitor."

void qemu_announce(struct qemu *qemu) {
    enum vmibus_sensor_state state = VMIBUS_SENSOR_STATE_READY;
    const char *message = "";
    struct vm *vm;

    TAILQ_FOREACH(vm, &qemu->vms, link) {
        message = vm->condition == VM_TROUBLED ? vm->message : vm->memory.refusal;
        if (*message) {
            state = VMIBUS_SENSOR_STATE_DEGRADED;
            break;
        }
    }
    if (qemu->announced && qemu->announced_state == state &&
        strcmp(qemu->announced_message, message) == 0)
        return;
    qemu->announced = true;
    qemu->announced_state = state;
    snprintf(qemu->announced_message, sizeof(qemu->announced_message), "%s", message);
    qemu->api->announce(qemu->host, state, *message ? message : NULL);
}

static void qemu_stop(void *instance) {
    struct qemu *qemu = instance;
    struct vm *vm;

    while ((vm = TAILQ_FIRST(&qemu->vms)))
        vm_free(vm);
    root_jobs_deinit(&qemu->jobs);
    screen_jobs_deinit(qemu);
    free(qemu->state_directory);
    free(qemu);
}

/* Says why the options cannot be used. */
static int __attribute__((format(printf, 2, 3)))
refuse(struct qemu *qemu, const char *format, ...) {
    char message[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    qemu->api->announce(qemu->host, VMIBUS_SENSOR_STATE_FAILED, message);

    return -EINVAL;
}

static int take_monitor(struct qemu *qemu, const char *name, const char *path) {
    size_t len = strlen(name);
    struct vm *vm;

    if (!len || len > VMIBUS_NAME_BOUND)
        return refuse(qemu, "monitor.%s: the VM's name must have 1 to %d octets", name,
                      VMIBUS_NAME_BOUND);
    if (*path != '/')
        return refuse(qemu, "monitor.%s=%s: the path of the monitor's socket must be absolute",
                      name, path);
    TAILQ_FOREACH(vm, &qemu->vms, link)
    if (strcmp(vm->name, name) == 0)
        return refuse(qemu, "monitor.%s is given twice; give each VM a name of its own", name);

    return vm_new(qemu, name, len, path);
}

static int take_option(struct qemu *qemu, const struct vmibus_sensor_option *option) {
    if (strncmp(option->key, MONITOR_PREFIX, strlen(MONITOR_PREFIX)) == 0)
        return take_monitor(qemu, option->key + strlen(MONITOR_PREFIX), option->value);
    if (strcmp(option->key, "state-directory") == 0) {
        if (*option->value != '/')
            return refuse(qemu, "state-directory=%s: the path must be absolute", option->value);
        free(qemu->state_directory);
        qemu->state_directory = strdup(option->value);
        return qemu->state_directory ? 0 : -ENOMEM;
    }

    return refuse(qemu, "unknown option %s; known are monitor.NAME and state-directory",
                  option->key);
}

static int qemu_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                      const struct vmibus_sensor_option *options, size_t n_options,
                      void **instancep) {
    struct qemu *qemu = calloc(1, sizeof(*qemu));
    int r;

    if (!qemu)
        return -ENOMEM;
    qemu->host = host;
    qemu->api = api;
    TAILQ_INIT(&qemu->vms);
    TAILQ_INIT(&qemu->jobs);
    TAILQ_INIT(&qemu->pictures);
    for (size_t i = 0; i < n_options; i++) {
        r = take_option(qemu, &options[i]);
        if (r < 0) {
            qemu_stop(qemu);
            return r;
        }
    }
    qemu_announce(qemu);
    *instancep = qemu;

    return 0;
}

static int qemu_execute(void *instance, void *userdata,
                        const struct vmibus_sensor_command *command) {
    struct vm *vm = userdata;

    (void)instance;
    switch (command->frame->header.kind) {
    case VMIBUS_KIND_CMD_INPUT:
    case VMIBUS_KIND_INPUT_RELEASE:
        return input_execute(vm, command);
    case VMIBUS_KIND_CMD_POWER:
    case VMIBUS_KIND_CMD_VM:
        return power_execute(vm, command);
    case VMIBUS_KIND_SCREENSHOT:
        return screen_execute(vm, command);
    case VMIBUS_KIND_REGISTERS:
        return vcpus_execute(vm, command);
    default:
        vm_complete(vm, command->id, command->frame->header.kind, VMIBUS_ERROR_UNSUPPORTED,
                    VMIBUS_REASON_BAD_KIND, 0, 0);
        return 0;
    }
}

static void qemu_cancel(void *instance, void *userdata, uint64_t id) {
    (void)instance;
    input_cancel(userdata, id);
}

static void qemu_demand(void *instance, void *userdata, uint64_t kinds) {
    (void)instance;
    root_demand(userdata, kinds);
    memory_demand(userdata, kinds);
}

static void qemu_layout_result(void *instance, void *userdata, uint64_t epoch,
                               enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    memory_verdict(userdata, epoch, error, reason);
}

static void qemu_root_result(void *instance, void *userdata, uint64_t epoch,
                             enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    root_verdict(userdata, epoch, error, reason);
}

static void qemu_attached(void *instance, void *userdata, const struct vmibus_sensor_ram *ram,
                          enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    root_attached(userdata, ram, error, reason);
}

static void qemu_memctx_changed(void *instance, void *userdata,
                                const struct vmibus_memctx *memctx) {
    (void)instance;
    if (userdata && memctx->state == VMIBUS_MEMCTX_STATE_NONE)
        memory_ended(userdata, memctx->epoch);
}

const struct vmibus_sensor_module vmibus_qemu_sensor = {
    .struct_size = sizeof(vmibus_qemu_sensor),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "qemu",
    .groups = QEMU_GROUPS,
    .start = qemu_start,
    .stop = qemu_stop,
    .execute = qemu_execute,
    .cancel = qemu_cancel,
    .demand = qemu_demand,
    .layout_result = qemu_layout_result,
    .root_result = qemu_root_result,
    .attached = qemu_attached,
    .memctx_changed = qemu_memctx_changed,
};

VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module
    __attribute__((weak, alias("vmibus_qemu_sensor")));
