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
#include <sys/un.h>

#include <vmibus/visibility.h>

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
    if (strcmp(vm->machine.name, name) == 0)
        return refuse(qemu, "monitor.%s is given twice; give each VM a name of its own", name);

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

/* --- over a restart -------------------------------------------------------------------------- */

static int qemu_save(void *instance, struct vmibus_sensor_saved *state) {
    struct qemu *qemu = instance;
    struct saved_machine *saved;
    struct vm *vm;

    if (saved_begin(&qemu->machines, qemu->n_vms) < 0)
        return -ENOMEM;
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

/* --- VMs by command -------------------------------------------------------------------------- */

static struct vm *find_vm(const struct qemu *qemu, const char *name) {
    struct vm *vm;

    TAILQ_FOREACH(vm, &qemu->vms, link)
        if (strcmp(vm->machine.name, name) == 0)
            return vm;

    return NULL;
}

static struct vmibus_ack verdict(enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    return (struct vmibus_ack){
        .command = VMIBUS_KIND_CMD_MONITOR, .error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};
}

/* NAME=PATH. The same again is no error. */
static struct vmibus_ack add_vm(struct qemu *qemu, char *text) {
    size_t limit = qemu->directory_rules.limit ? qemu->directory_rules.limit : DIRECTORY_LIMIT_DEFAULT;
    char *path = strchr(text, '=');
    struct vm *vm;
    int r;

    if (!path)
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    *path++ = '\0';
    if (!directory_name_is_valid(text, strlen(text)) || *path != '/')
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
    vm = find_vm(qemu, text);
    if (vm && strcmp(vm->path, path) != 0)
        return verdict(VMIBUS_ERROR_BUSY, VMIBUS_REASON_NONE, 0);
    if (vm)
        return verdict(VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    if (qemu->n_vms >= limit)
        return verdict(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_ENDPOINTS, limit);
    r = vm_new(qemu, text, strlen(text), path, NULL);

    return r < 0 ? verdict(VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)-(int64_t)r)
                 : verdict(VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

static struct vmibus_ack remove_vm(struct qemu *qemu, const char *name) {
    struct vm *vm = find_vm(qemu, name);

    if (!vm)
        return verdict(VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, 0);
    if (vm->file.directory && !vm->file.gone && directory_dismiss(vm->file.directory, vm) < 0)
        return verdict(VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOMEM);
    vm_remove(vm);

    return verdict(VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

static int monitor_command(struct qemu *qemu, const struct vmibus_sensor_command *command) {
    size_t length = command->frame->header.tail_length;
    char *text = malloc(length + 1);
    struct vmibus_ack ack;

    if (!text)
        return -ENOMEM;
    memcpy(text, command->tail, length);
    text[length] = '\0';
    if (command->frame->cmd_monitor.operation == VMIBUS_MONITOR_OPERATION_ADD)
        ack = add_vm(qemu, text);
    else
        ack = remove_vm(qemu, text);
    free(text);
    qemu->api->complete(qemu->host, command->id, &ack);

    return 0;
}

static int qemu_execute(void *instance, void *userdata,
                        const struct vmibus_sensor_command *command) {
    struct vm *vm = userdata;

    if (command->frame->header.kind == VMIBUS_KIND_CMD_MONITOR)
        return monitor_command(instance, command);
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
