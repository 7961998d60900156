/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting to a VM's monitor, introducing what is behind it, and noticing its end.
 *
 * Three ways to wait: for the path to appear (inotify); a pause after a refusal (timer, with rising
 * pauses and an end); and in the monitor's own queue: a connection that is not greeted stays, since
 * QEMU serves the next one in line when its client leaves.
 */
#include <errno.h>
#include <poll.h>
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

bool vm_is_usable(const struct vm *vm) {
    return vm->endpoint && vm->qmp && qmp_is_ready(vm->qmp) && vm->lifecycle.known;
}

void vm_complete(struct vm *vm, uint64_t id, uint16_t kind, enum vmibus_error error,
                 enum vmibus_reason reason, uint64_t value, uint64_t count) {
    const struct vmibus_ack ack = {
        .error = (uint16_t)error,
        .reason = (uint16_t)reason,
        .command = kind,
        .value = value,
        .count = count,
    };

    vm->qemu->api->complete(vm->qemu->host, id, &ack);
}

static void __attribute__((format(printf, 3, 4)))
set_condition(struct vm *vm, enum vm_condition condition, const char *format, ...) {
    va_list arguments;

    vm->condition = condition;
    va_start(arguments, format);
    vsnprintf(vm->message, sizeof(vm->message), format, arguments);
    va_end(arguments);
    qemu_announce(vm->qemu);
}

/* --- the process ----------------------------------------------------------------------------- */

/* The process is gone: nothing of it is left. */
static void forget_process(struct vm *vm, enum vmibus_reason reason) {
    const struct vmibus_sensor_api *api = vm->qemu->api;

    lifecycle_lost(vm);
    root_forget(vm);
    memory_forget(vm);
    input_forget(vm);
    power_forget(vm);
    screen_forget(vm);
    vcpus_forget(vm);
    api->unwatch_fd(vm->process_source);
    vm->process_source = NULL;
    process_deinit(&vm->process);
    vm->process_ended = false;
    if (vm->endpoint)
        api->withdraw(vm->endpoint, reason);
    vm->endpoint = NULL;
}

static bool process_has_ended(const struct process *process) {
    struct pollfd poll_fd = {.fd = process->fd, .events = POLLIN};

    return process->fd >= 0 && poll(&poll_fd, 1, 0) != 0;
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
    memory_end(vm, VMIBUS_REASON_EXIT);
    /*
     * What it said last may still have to be read; its end of the socket closes when all of it is.
     */
    retry_in(vm, vm->qmp ? LAST_WORDS_NS : 1);
}

/* --- introduction ---------------------------------------------------------------------------- */

static bool parse_uuid(const char *text, uint8_t *uuid) {
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

static bool offer(struct vm *vm) {
    const struct vmibus_sensor_api *api = vm->qemu->api;
    struct vmibus_sensor_offer what = {
        .name = vm->name,
        .pid = vm->candidate.pid,
        .start_time = vm->candidate.start_time,
        .groups = QEMU_GROUPS,
    };
    int r;

    memcpy(what.uuid, vm->uuid, sizeof(what.uuid));
    r = api->offer(vm->qemu->host, &what, vm, &vm->endpoint);
    if (r < 0) {
        vm->endpoint = NULL;
        set_condition(vm, VM_TROUBLED, "%s: the VM was not accepted: %s", vm->name, strerror(-r));
        return false;
    }
    vm->process = vm->candidate;
    vm->candidate = (struct process)PROCESS_NONE;
    if (vm->process.fd >= 0 && api->watch_fd(vm->qemu->host, vm->process.fd, EPOLLIN, on_process,
                                             vm, &vm->process_source) < 0)
        vm->process_source = NULL;

    return true;
}

static void introduce(struct vm *vm, bool told) {
    if (!told) {
        set_condition(vm, VM_TROUBLED, "%s: the monitor %s does not tell the run state", vm->name,
                      vm->path);
        return;
    }
    if (!vm->endpoint && !offer(vm))
        return;
    process_deinit(&vm->candidate);
    vm->retries = 0;
    vm->lost_told = false;
    set_condition(vm, VM_CONNECTED, "%s: connected", vm->name);
    lifecycle_begin(vm);
    power_recover(vm);
    input_changed(vm);
    memory_read(vm, true);
}

static void on_uuid(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;
    const char *text = reply->outcome == QMP_RETURN ? qmp_string(reply->value, "UUID") : NULL;

    if (reply->outcome == QMP_LOST)
        return;
    if (!text || !parse_uuid(text, vm->uuid))
        memset(vm->uuid, 0, sizeof(vm->uuid));
    lifecycle_observe(vm, introduce);
}

static void on_ready(void *userdata) {
    struct vm *vm = userdata;

    vm->arrival = arrival_free(vm->arrival);
    if (vm->endpoint && !process_equal(&vm->process, &vm->candidate))
        forget_process(vm, VMIBUS_REASON_EXIT);
    qmp_execute(vm->qmp, "query-uuid", NULL, on_uuid, vm);
}

/* --- connection ------------------------------------------------------------------------------ */

static void on_waiting(void *userdata) {
    struct vm *vm = userdata;

    set_condition(vm, VM_TROUBLED,
                  "%s: the monitor %s is in use by another client, or its QEMU hangs; give vmibus "
                  "a monitor of its own",
                  vm->name, vm->path);
}

static void on_event(void *userdata, const char *name, json_object *data) {
    lifecycle_event(userdata, name, data);
}

/*
 * The VM is there, but nobody sees what it does: what was known of it is not vouched for any more.
 */
static void lose_sight(struct vm *vm) {
    if (!vm->endpoint || vm->lost_told)
        return;
    vm->lost_told = true;
    memory_end(vm, VMIBUS_REASON_WITHDRAWN);
    lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
}

static void on_failed(void *userdata, enum qmp_failure failure, const char *message) {
    struct vm *vm = userdata;

    vm->qmp = qmp_free(vm->qmp);
    process_deinit(&vm->candidate);
    memory_lost(vm);
    lifecycle_lost(vm);
    input_changed(vm);
    if (vm->endpoint && !vm->process.pid)
        forget_process(vm, VMIBUS_REASON_WITHDRAWN);
    if (vm->process_ended) {
        retry_in(vm, 1);
        return;
    }
    if (failure != QMP_CLOSED) {
        set_condition(vm, VM_TROUBLED, "%s: monitor %s: %s", vm->name, vm->path, message);
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

    if (vm->process_ended || process_has_ended(&vm->process)) {
        vm->qmp = qmp_free(vm->qmp);
        process_deinit(&vm->candidate);
        forget_process(vm, VMIBUS_REASON_EXIT);
        vm->retries = 0;
    }
    if (!vm->qmp) {
        lose_sight(vm);
        connect_monitor(vm);
    }
}

static void on_arrival(void *userdata) {
    struct vm *vm = userdata;

    if (vm->qmp)
        return;
    vm->retries = 0;
    retry_in(vm, 1); /* not from here: a connection ends this watch */
}

/*
 * Nothing listens. The path's directory tells when that changes; where it cannot be watched, a
 * timer asks.
 */
static void wait_for_path(struct vm *vm) {
    set_condition(vm, VM_ABSENT, "%s: nothing listens at %s", vm->name, vm->path);
    if (vm->retries < RETRIES_BOUND)
        retry_later(vm);
    else if (!vm->arrival)
        retry_in(vm, RETRY_MAX_NS);
}

static void connect_monitor(struct vm *vm) {
    int r;

    if (!vm->arrival &&
        arrival_new(&vm->arrival, vm->qemu->api, vm->qemu->host, vm->path, on_arrival, vm) < 0)
        vm->arrival = NULL;
    r = qmp_new(&vm->qmp, vm->qemu->api, vm->qemu->host, vm->path, &callbacks, vm);
    if (r == 0) {
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
                      vm->name, vm->path);
    else
        set_condition(vm, VM_TROUBLED, "%s: cannot connect to the monitor %s: %s", vm->name,
                      vm->path, strerror(-r));
    retry_later(vm);
}

int vm_new(struct qemu *qemu, const char *name, size_t name_len, const char *path) {
    struct vm *vm = calloc(1, sizeof(*vm));
    int r;

    if (!vm)
        return -ENOMEM;
    vm->qemu = qemu;
    vm->process = vm->candidate = (struct process)PROCESS_NONE;
    vm->name = strndup(name, name_len);
    vm->path = strdup(path);
    input_init(vm);
    power_init(vm);
    screen_init(vm);
    vcpus_init(vm);
    TAILQ_INSERT_TAIL(&qemu->vms, vm, link);
    r = vm->name && vm->path ? 0 : -ENOMEM;
    if (r >= 0)
        r = qemu->api->timer_new(qemu->host, on_retry, vm, &vm->retry_timer);
    if (r >= 0)
        r = lifecycle_init(vm);
    if (r >= 0)
        r = memory_init(vm);
    if (r >= 0)
        r = root_init(vm);
    if (r < 0) {
        vm_free(vm);
        return r;
    }
    retry_in(vm, 1); /* not from within start() */

    return 0;
}

struct vm *vm_free(struct vm *vm) {
    if (!vm)
        return NULL;

    power_stop(vm);
    TAILQ_REMOVE(&vm->qemu->vms, vm, link);
    vm->qmp = qmp_free(vm->qmp);
    vm->arrival = arrival_free(vm->arrival);
    root_deinit(vm);
    memory_deinit(vm);
    lifecycle_deinit(vm);
    input_deinit(vm);
    power_deinit(vm);
    screen_deinit(vm);
    vcpus_deinit(vm);
    vm->qemu->api->unwatch_fd(vm->process_source);
    process_deinit(&vm->process);
    process_deinit(&vm->candidate);
    vm->qemu->api->timer_free(vm->retry_timer);
    free(vm->name);
    free(vm->path);
    free(vm);

    return NULL;
}
