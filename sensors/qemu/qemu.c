/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensor's module: options, instances, and the way from the host's calls to the VM they
 * concern.
 *
 * Options: monitor.NAME=PATH (a VM), directory=PATH and directory.LABEL=PATH (VMs as their monitors appear there),
 * directory-pattern, directory-owners, directory-limit, state-directory=PATH (where intents of pauses are kept).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/visibility.h>

#include "by_command.h"
#include "qemu.h"
#include "vm.h"

#define MONITOR_PREFIX "monitor."
#define DIRECTORY_PREFIX "directory."

void qemu_announce(struct qemu *qemu) {
    enum vmibus_sensor_state state = VMIBUS_SENSOR_STATE_READY;
    const char *message = "";
    const struct directory *directory;
    const struct vm *vm;

    TAILQ_FOREACH(directory, &qemu->directories, link)
        if (*directory->message) {
            message = directory->message;
            state = VMIBUS_SENSOR_STATE_DEGRADED;
        }
    TAILQ_FOREACH(vm, &qemu->vms, link) {
        if (state == VMIBUS_SENSOR_STATE_DEGRADED)
            break;
        message = vm->condition == VM_TROUBLED ? vm->message : vm->machine.memory.refusal;
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

static const char strange_process[] =
    "its monitor was opened by another program, or another user than its process runs as, so its process is not known; let QEMU "
    "open the socket: -qmp unix:PATH,server=on,wait=off";

static void announce(struct machine_sensor *machines) {
    qemu_announce((struct qemu *)((char *)machines - offsetof(struct qemu, machines)));
}

static void run_state_changed(struct machine *machine) {
    input_changed(vm_of(machine));
}

static void qemu_stop(void *instance) {
    struct qemu *qemu = instance;
    struct vm *vm;

    while (!TAILQ_EMPTY(&qemu->directories))
        directory_free(TAILQ_FIRST(&qemu->directories));
    while ((vm = TAILQ_FIRST(&qemu->vms)))
        vm_free(vm);
    screen_jobs_deinit(qemu);
    machine_sensor_deinit(&qemu->machines);
    directory_rules_deinit(&qemu->directory_rules);
    by_command_deinit(qemu);
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
    int r;

    if (!len || len > VMIBUS_NAME_BOUND)
        return refuse(qemu, "monitor.%s: the VM's name must have 1 to %d octets", name,
                      VMIBUS_NAME_BOUND);
    if (*path != '/')
        return refuse(qemu, "monitor.%s=%s: the path of the monitor's socket must be absolute",
                      name, path);
    if (vm_find(qemu, name))
        return refuse(qemu, "monitor.%s is given twice; give each VM a name of its own", name);
    r = by_command_is_removed(qemu, name, path);
    if (r != 0)
        return r < 0 ? r : 0;

    return vm_new(qemu, name, len, path, NULL);
}

static int take_directory(struct qemu *qemu, const struct vmibus_sensor_option *option) {
    if (*option->value != '/')
        return refuse(qemu, "%s=%s: the path must be absolute", option->key, option->value);

    return directory_new(qemu, option->value);
}

/* What concerns all directories. 1: it is no such option. */
static int take_directory_rule(struct qemu *qemu, const struct vmibus_sensor_option *option) {
    struct directory_rules *rules = &qemu->directory_rules;
    unsigned long limit;
    char *end;
    int r;

    if (strcmp(option->key, "directory-pattern") == 0) {
        free(rules->patterns);
        rules->patterns = strdup(option->value);
        return rules->patterns ? 0 : -ENOMEM;
    }
    if (strcmp(option->key, "directory-owners") == 0) {
        r = directory_rules_set_owners(rules, option->value);
        return r == -EINVAL ? refuse(qemu, "directory-owners=%s: users by name or number are wanted, separated by spaces",
                                     option->value)
                            : r;
    }
    if (strcmp(option->key, "directory-limit") != 0)
        return 1;
    limit = strtoul(option->value, &end, 10);
    if (!limit || limit > 65536 || *end)
        return refuse(qemu, "directory-limit=%s: a number from 1 to 65536 is wanted", option->value);
    rules->limit = limit;
    return 0;
}

static int take_option(struct qemu *qemu, const struct vmibus_sensor_option *option) {
    int r = take_directory_rule(qemu, option);

    if (r <= 0)
        return r;
    if (strcmp(option->key, "directory") == 0 || strncmp(option->key, DIRECTORY_PREFIX, strlen(DIRECTORY_PREFIX)) == 0)
        return take_directory(qemu, option);
    if (strncmp(option->key, MONITOR_PREFIX, strlen(MONITOR_PREFIX)) == 0)
        return take_monitor(qemu, option->key + strlen(MONITOR_PREFIX), option->value);
    if (strcmp(option->key, "state-directory") == 0) {
        if (*option->value != '/')
            return refuse(qemu, "state-directory=%s: the path must be absolute", option->value);
        free(qemu->machines.state_directory);
        qemu->machines.state_directory = strdup(option->value);
        return qemu->machines.state_directory ? 0 : -ENOMEM;
    }

    return refuse(qemu, "unknown option %s; known are monitor.NAME, directory, directory.LABEL, directory-pattern, "
                        "directory-owners, directory-limit and state-directory",
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
    machine_sensor_init(&qemu->machines, host, api);
    qemu->machines.announce = announce;
    qemu->machines.run_state_changed = run_state_changed;
    qemu->machines.strange_process = strange_process;
    saved_take(&qemu->machines);
    TAILQ_INIT(&qemu->vms);
    TAILQ_INIT(&qemu->pictures);
    TAILQ_INIT(&qemu->directories);
    SLIST_INIT(&qemu->removed);
    for (size_t i = 0; i < n_options; i++) {
        r = take_option(qemu, &options[i]);
        if (r < 0) {
            qemu_stop(qemu);
            return r;
        }
    }
    by_command_restore(qemu);
    qemu_announce(qemu);
    *instancep = qemu;

    return 0;
}

/* --- over a restart -------------------------------------------------------------------------- */

static int qemu_save(void *instance, struct vmibus_sensor_saved *state) {
    struct qemu *qemu = instance;
    struct saved_machine *saved;
    void *by_command;
    size_t n = 0;
    struct vm *vm;
    int r = by_command_save(qemu, &by_command, &n);

    if (r == 0)
        r = saved_begin(&qemu->machines, qemu->n_vms, by_command, n);
    free(by_command);
    if (r < 0)
        return r;
    TAILQ_FOREACH(vm, &qemu->vms, link) {
        saved = vm->machine.endpoint ? saved_add(&vm->machine) : NULL;
        if (saved)
            input_save(vm, saved);
    }
    saved_end(&qemu->machines, state);

    return 0;
}

static void qemu_offered(void *instance, void *userdata, bool kept) {
    struct vm *vm = userdata;

    (void)instance;
    if (kept)
        return;
    power_abandon(&vm->machine);
    input_abandon(vm);
}

static struct machine *machine_of(void *userdata) {
    struct vm *vm = userdata;

    return &vm->machine;
}

/* --- what the host asks ----------------------------------------------------------------------- */

static int qemu_execute(void *instance, void *userdata,
                        const struct vmibus_sensor_command *command) {
    struct vm *vm = userdata;

    if (command->frame->header.kind == VMIBUS_KIND_CMD_MONITOR)
        return by_command_execute(instance, command);
    switch (command->frame->header.kind) {
    case VMIBUS_KIND_CMD_INPUT:
    case VMIBUS_KIND_INPUT_RELEASE:
        return input_execute(vm, command);
    case VMIBUS_KIND_CMD_POWER:
    case VMIBUS_KIND_CMD_VM:
        return power_execute(&vm->machine, command);
    case VMIBUS_KIND_SCREENSHOT:
        return screen_execute(vm, command);
    case VMIBUS_KIND_REGISTERS:
        return vcpus_execute(&vm->machine, command);
    default:
        machine_complete(&vm->machine, command->id, command->frame->header.kind, VMIBUS_ERROR_UNSUPPORTED,
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
    root_demand(machine_of(userdata), kinds);
    memory_demand(machine_of(userdata), kinds);
}

static void qemu_layout_result(void *instance, void *userdata, uint64_t epoch,
                               enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    memory_verdict(machine_of(userdata), epoch, error, reason);
}

static void qemu_root_result(void *instance, void *userdata, uint64_t epoch,
                             enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    root_verdict(machine_of(userdata), epoch, error, reason);
}

static void qemu_attached(void *instance, void *userdata, const struct vmibus_sensor_ram *ram,
                          enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    root_attached(machine_of(userdata), ram, error, reason);
}

static void qemu_memctx_changed(void *instance, void *userdata,
                                const struct vmibus_memctx *memctx) {
    (void)instance;
    if (userdata && memctx->state == VMIBUS_MEMCTX_STATE_NONE)
        memory_ended(machine_of(userdata), memctx->epoch);
}

static void qemu_active(void *instance, void *userdata, uint32_t groups) {
    (void)instance;
    memory_set_active(machine_of(userdata), groups & VMIBUS_GROUP_MEMORY);
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
    .active = qemu_active,
    .takes_monitors = true,
    .save = qemu_save,
    .offered = qemu_offered,
};

VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module
    __attribute__((weak, alias("vmibus_qemu_sensor")));
