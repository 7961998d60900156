/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting to a VM's monitor, introducing what is behind it, and noticing its end.
 *
 * Three ways to wait: for the path to appear (inotify); a pause after a refusal (timer, with rising
 * pauses and an end); and in the monitor's own queue: a connection that is not greeted stays, since
 * QEMU serves the next one in line when its client leaves.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "vm.h"

#define RETRY_MIN_NS (50 * NANOSECONDS_PER_MS)
#define RETRY_MAX_NS (10000 * NANOSECONDS_PER_MS)
/* Refusals after which only the path's directory is watched: some six seconds. */
#define RETRIES_BOUND 7
/* How long a process that ended may leave its last words unread. */
#define LAST_WORDS_NS (100 * NANOSECONDS_PER_MS)

static void connect_monitor(struct vm *vm);

static void __attribute__((format(printf, 3, 4)))
set_condition(struct vm *vm, enum vm_condition condition, const char *format, ...) {
    va_list arguments;

    vm->condition = condition;
    va_start(arguments, format);
    vsnprintf(vm->message, sizeof(vm->message), format, arguments);
    va_end(arguments);
    qemu_announce(vm->qemu);
}

static void disconnect(struct vm *vm) {
    vm->machine.monitor = NULL;
    vm->qmp = qmp_free(vm->qmp);
}

/* --- the process ----------------------------------------------------------------------------- */

/* The process is gone: nothing of it is left. */
static void forget_process(struct vm *vm, enum vmibus_reason reason) {
    const struct vmibus_sensor_api *api = vm->qemu->api;

    input_forget(vm);
    screen_forget(vm);
    api->unwatch_fd(vm->process_source);
    vm->process_source = NULL;
    machine_forget(&vm->machine);
    vm->process_ended = false;
    if (vm->machine.endpoint)
        api->withdraw(vm->machine.endpoint, reason);
    vm->machine.endpoint = NULL;
}

static void retry_in(struct vm *vm, uint64_t ns) {
    vm->qemu->api->timer_set(vm->retry_timer, ns);
}

static void retry_later(struct vm *vm) {
    uint64_t ns = RETRY_MIN_NS << (vm->retries < RETRIES_BOUND ? vm->retries : RETRIES_BOUND);

    if (vm->retries < RETRIES_BOUND)
        vm->retries++;
    retry_in(vm, ns < RETRY_MAX_NS ? ns : RETRY_MAX_NS);
}

static void on_process(void *userdata, uint32_t events) {
    struct vm *vm = userdata;

    (void)events;
    vm->qemu->api->unwatch_fd(vm->process_source);
    vm->process_source = NULL;
    vm->process_ended = true;
    memory_end(&vm->machine, VMIBUS_REASON_EXIT);
    /*
     * What it said last may still have to be read; its end of the socket closes when all of it is.
     */
    retry_in(vm, vm->qmp ? LAST_WORDS_NS : 1);
}

/* --- introduction ---------------------------------------------------------------------------- */

static bool offer(struct vm *vm) {
    const struct vmibus_sensor_api *api = vm->qemu->api;
    struct vmibus_sensor_offer what = {
        .name = vm->machine.name,
        .pid = vm->candidate.pid,
        .start_time = vm->candidate.start_time,
        .groups = QEMU_GROUPS,
    };
    struct saved_machine saved;
    int r;

    memcpy(what.uuid, vm->machine.uuid, sizeof(what.uuid));
    if (machine_restore(&vm->machine, &vm->candidate, &saved))
        input_restore(vm, &saved);
    r = api->offer(vm->qemu->host, &what, vm, &vm->machine.endpoint);
    if (r < 0) {
        vm->machine.endpoint = NULL;
        set_condition(vm, VM_TROUBLED, "%s: the VM was not accepted: %s", vm->machine.name, strerror(-r));
        return false;
    }
    vm->machine.process = vm->candidate;
    vm->candidate = (struct process)PROCESS_NONE;
    if (vm->machine.process.fd >= 0 && api->watch_fd(vm->qemu->host, vm->machine.process.fd, EPOLLIN, on_process,
                                             vm, &vm->process_source) < 0)
        vm->process_source = NULL;

    return true;
}

static void introduce(struct machine *machine, bool told) {
    struct vm *vm = vm_of(machine);

    if (!told) {
        set_condition(vm, VM_TROUBLED, "%s: the monitor %s does not tell the run state", vm->machine.name,
                      vm->path);
        return;
    }
    if (!vm->machine.endpoint && !offer(vm))
        return;
    process_deinit(&vm->candidate);
    vm->retries = 0;
    vm->lost_told = false;
    set_condition(vm, VM_CONNECTED, "%s: connected", vm->machine.name);
    machine_begin(&vm->machine);
}

static void on_uuid(void *userdata, const struct monitor_reply *reply) {
    struct vm *vm = userdata;
    const char *text = reply->outcome == MONITOR_RETURN ? monitor_string(reply->value, "UUID") : NULL;

    if (reply->outcome == MONITOR_LOST)
        return;
    if (!text || !machine_parse_uuid(text, vm->machine.uuid))
        memset(vm->machine.uuid, 0, sizeof(vm->machine.uuid));
    lifecycle_observe(&vm->machine, introduce);
}

static void on_ready(void *userdata) {
    struct vm *vm = userdata;

    vm->arrival = arrival_free(vm->arrival);
    if (vm->machine.endpoint && !process_equal(&vm->machine.process, &vm->candidate))
        forget_process(vm, VMIBUS_REASON_EXIT);
    qmp_execute(vm->qmp, "query-uuid", NULL, on_uuid, vm);
}

/* --- connection ------------------------------------------------------------------------------ */

static void on_waiting(void *userdata) {
    struct vm *vm = userdata;

    set_condition(vm, VM_TROUBLED,
                  "%s: the monitor %s is in use by another client, or its QEMU hangs; give vmibus "
                  "a monitor of its own",
                  vm->machine.name, vm->path);
}

static void on_event(void *userdata, const char *name, json_object *data) {
    struct vm *vm = userdata;

    lifecycle_event(&vm->machine, name, data, qmp_event_time(vm->qmp));
}

/*
 * The VM is there, but nobody sees what it does: what was known of it is not vouched for any more.
 */
static void lose_sight(struct vm *vm) {
    if (!vm->machine.endpoint || vm->lost_told)
        return;
    vm->lost_told = true;
    memory_end(&vm->machine, VMIBUS_REASON_WITHDRAWN);
    lifecycle_publish(&vm->machine, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
}

static void on_failed(void *userdata, enum qmp_failure failure, const char *message) {
    struct vm *vm = userdata;

    disconnect(vm);
    process_deinit(&vm->candidate);
    memory_lost(&vm->machine);
    lifecycle_lost(&vm->machine);
    input_changed(vm);
    if (vm->machine.endpoint && !vm->machine.process.pid)
        forget_process(vm, VMIBUS_REASON_WITHDRAWN);
    if (vm->process_ended) {
        retry_in(vm, 1);
        return;
    }
    if (failure != QMP_CLOSED) {
        set_condition(vm, VM_TROUBLED, "%s: monitor %s: %s", vm->machine.name, vm->path, message);
        lose_sight(vm);
    }
    /* A monitor that was closed is mostly that of a process about to end: its end is told first. */
    if (vm->retries)
        retry_later(vm);
    else
        retry_in(vm, LAST_WORDS_NS);
}

static const struct qmp_callbacks callbacks = {
    .ready = on_ready,
    .waiting = on_waiting,
    .event = on_event,
    .failed = on_failed,
};

static void on_retry(void *userdata) {
    struct vm *vm = userdata;

    if (vm->process_ended || process_has_ended(&vm->machine.process)) {
        disconnect(vm);
        process_deinit(&vm->candidate);
        forget_process(vm, VMIBUS_REASON_EXIT);
        vm->retries = 0;
    }
    if (!vm->qmp) {
        lose_sight(vm);
        connect_monitor(vm);
    }
}

void vm_try(struct vm *vm) {
    if (vm->qmp)
        return;
    vm->retries = 0;
    retry_in(vm, 1); /* not from here: a connection ends this watch */
}

static void on_arrival(void *userdata) {
    vm_try(userdata);
}

/*
 * Nothing listens. The path's directory tells when that changes; where it cannot be watched, a
 * timer asks.
 */
static void wait_for_path(struct vm *vm) {
    set_condition(vm, VM_ABSENT, "%s: nothing listens at %s", vm->machine.name, vm->path);
    if (vm->file.gone)
        directory_look(vm->file.directory);
    else if (vm->retries < RETRIES_BOUND)
        retry_later(vm);
    else if (!vm->arrival && !vm->file.directory)
        retry_in(vm, RETRY_MAX_NS);
}

static void connect_monitor(struct vm *vm) {
    int r;

    if (!vm->arrival && !vm->file.directory &&
        arrival_new(&vm->arrival, vm->qemu->api, vm->qemu->host, vm->path, 0, on_arrival, vm) < 0)
        vm->arrival = NULL;
    r = qmp_new(&vm->qmp, vm->qemu->api, vm->qemu->host, vm->path, &callbacks, vm);
    if (r == 0) {
        vm->machine.monitor = qmp_monitor(vm->qmp);
        retry_in(vm, 0);
        process_of_socket(qmp_socket(vm->qmp), &vm->candidate);
        return;
    }
    vm->qmp = NULL;
    if (r == QMP_ABSENT) {
        wait_for_path(vm);
        return;
    }
    if (r == QMP_IN_USE)
        set_condition(vm, VM_TROUBLED,
                      "%s: the monitor %s is in use by another client and others wait for it; "
                      "give vmibus a monitor of its own",
                      vm->machine.name, vm->path);
    else
        set_condition(vm, VM_TROUBLED, "%s: cannot connect to the monitor %s: %s", vm->machine.name,
                      vm->path, strerror(-r));
    retry_later(vm);
}

int vm_new(struct qemu *qemu, const char *name, size_t name_len, const char *path, struct directory *directory) {
    struct vm *vm = calloc(1, sizeof(*vm));
    int r;

    if (!vm)
        return -ENOMEM;
    vm->qemu = qemu;
    vm->candidate = (struct process)PROCESS_NONE;
    vm->path = strdup(path);
    input_init(vm);
    screen_init(vm);
    vm->file.directory = directory;
    TAILQ_INSERT_TAIL(&qemu->vms, vm, link);
    qemu->n_vms++;
    r = machine_init(&vm->machine, &qemu->machines, name, name_len);
    if (r >= 0 && !vm->path)
        r = -ENOMEM;
    if (r >= 0)
        r = qemu->api->timer_new(qemu->host, on_retry, vm, &vm->retry_timer);
    if (r < 0) {
        vm_free(vm);
        return r;
    }
    retry_in(vm, 1); /* not from within start() */

    return 0;
}

struct vm *vm_find(const struct qemu *qemu, const char *name) {
    struct vm *vm;

    TAILQ_FOREACH(vm, &qemu->vms, link)
        if (strcmp(vm->machine.name, name) == 0)
            return vm;

    return NULL;
}

bool vm_is_absent(const struct vm *vm) {
    return !vm->qmp && !vm->machine.endpoint;
}

void vm_remove(struct vm *vm) {
    struct qemu *qemu = vm->qemu;

    vm->machine.is_kept = false;
    power_stop(&vm->machine);
    input_stop(vm);
    disconnect(vm);
    forget_process(vm, VMIBUS_REASON_WITHDRAWN);
    vm_free(vm);
    qemu_announce(qemu);
}

struct vm *vm_free(struct vm *vm) {
    if (!vm)
        return NULL;

    power_stop(&vm->machine);
    input_stop(vm);
    TAILQ_REMOVE(&vm->qemu->vms, vm, link);
    vm->qemu->n_vms--;
    disconnect(vm);
    vm->arrival = arrival_free(vm->arrival);
    input_deinit(vm);
    screen_deinit(vm);
    vm->qemu->api->unwatch_fd(vm->process_source);
    machine_deinit(&vm->machine);
    process_deinit(&vm->candidate);
    vm->qemu->api->timer_free(vm->retry_timer);
    free(vm->path);
    free(vm);

    return NULL;
}
