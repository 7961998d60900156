/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The run state.  Events: QEMU, qapi/run-state.json, migration.json, machine.json, job.json.
 */
#include <string.h>

#include "vm.h"

/* QEMU's run states that are not simply a stopped guest (qapi/run-state.json: RunState). */
static void take_run_state(struct lifecycle *lifecycle, const char *status) {
    lifecycle->running = strcmp(status, "running") == 0;
    lifecycle->suspended = strcmp(status, "suspended") == 0;
    lifecycle->shutdown = strcmp(status, "shutdown") == 0;
    lifecycle->crashed =
        strcmp(status, "guest-panicked") == 0 || strcmp(status, "internal-error") == 0;
    lifecycle->incoming = strcmp(status, "inmigrate") == 0;
}

static enum vmibus_vm_state state_of(const struct lifecycle *lifecycle) {
    if (!lifecycle->known)
        return VMIBUS_VM_STATE_UNKNOWN;
    if (lifecycle->crashed)
        return VMIBUS_VM_STATE_CRASHED;
    if (lifecycle->shutdown)
        return VMIBUS_VM_STATE_SHUTDOWN;
    if (lifecycle->suspended)
        return VMIBUS_VM_STATE_SUSPENDED;
    if (!lifecycle->running)
        return VMIBUS_VM_STATE_PAUSED;

    return lifecycle->migrating && !lifecycle->snapshotting ? VMIBUS_VM_STATE_MIGRATING
                                                            : VMIBUS_VM_STATE_RUNNING;
}

void lifecycle_publish(struct vm *vm, enum vmibus_lifecycle_cause cause, bool by_bus) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_LIFECYCLE,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .timestamp = vm->lifecycle.event_time},
        .lifecycle =
            {
                .state = (uint8_t)state_of(&vm->lifecycle),
                .cause = (uint8_t)cause,
                .flags = by_bus ? VMIBUS_LIFECYCLE_BY_BUS : 0,
            },
    };

    if (vm->endpoint)
        vm->qemu->api->publish(vm->endpoint, &frame, NULL, 0);
}

void lifecycle_expect(struct vm *vm, enum lifecycle_expectation expectation) {
    vm->lifecycle.expected_until[expectation] = vm->qemu->api->now() + QMP_DEADLINE_NS;
}

void lifecycle_unexpect(struct vm *vm, enum lifecycle_expectation expectation) {
    vm->lifecycle.expected_until[expectation] = 0;
}

/* Whether the bus has asked for what happened now; it is expected once. */
static bool was_expected(struct vm *vm, enum lifecycle_expectation expectation) {
    uint64_t *until = &vm->lifecycle.expected_until[expectation];
    bool expected = *until && vm->qemu->api->now() < *until;

    *until = 0;

    return expected;
}

bool lifecycle_takes_input(const struct vm *vm) {
    return vm->lifecycle.known && (vm->lifecycle.running || vm->lifecycle.suspended);
}

/* Tells whether memory is being copied, if that changed. The end names the reason of the beginning. */
static void update_busy(struct vm *vm) {
    struct lifecycle *lifecycle = &vm->lifecycle;
    enum vmibus_reason reason = VMIBUS_REASON_NONE;

    if (lifecycle->snapshotting || (lifecycle->stopping && !lifecycle->active))
        reason = VMIBUS_REASON_SNAPSHOT;
    else if (lifecycle->migrating)
        reason = VMIBUS_REASON_MIGRATION;
    if (reason == lifecycle->busy || !vm->endpoint)
        return;
    vm->qemu->api->memory_busy(vm->endpoint, reason != VMIBUS_REASON_NONE,
                               reason ? reason : lifecycle->busy);
    lifecycle->busy = reason;
}

/* --- events ---------------------------------------------------------------------------------- */

/* RAM may hold the octets of another moment now. */
static void doubt_memory(struct vm *vm) {
    vm->lifecycle.reloads++;
    memory_reloaded(vm);
}

/* The monitor answers again, so nothing is being loaded any more; saving may go on behind its back. */
static void on_stop_status(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;
    const char *status = reply->outcome == QMP_RETURN ? qmp_string(reply->value, "status") : NULL;

    if (reply->outcome == QMP_LOST || (status && strcmp(status, "save-vm") == 0))
        return;
    vm->lifecycle.stopping = false;
    update_busy(vm);
}

/*
 * A stop that the bus did not cause may be the beginning of savevm, loadvm or a dump: what is written
 * from here on might be lost.
 */
static void suspect_stop(struct vm *vm) {
    vm->lifecycle.stopping =
        vm->qmp && qmp_execute(vm->qmp, "query-status", NULL, on_stop_status, vm) == 0;
    update_busy(vm);
}

static void on_stop(struct vm *vm) {
    struct lifecycle *lifecycle = &vm->lifecycle;
    bool by_bus = was_expected(vm, LIFECYCLE_EXPECT_STOP), io_error = lifecycle->io_error;

    lifecycle->running = false;
    lifecycle->io_error = false;
    lifecycle->stops++;
    /* A panic or a shutdown stops the guest too: that was told already. */
    if (!lifecycle->crashed && !lifecycle->shutdown)
        lifecycle_publish(
            vm, io_error ? VMIBUS_LIFECYCLE_CAUSE_IO_ERROR : VMIBUS_LIFECYCLE_CAUSE_PAUSED, by_bus);
    if (!by_bus)
        suspect_stop(vm);
    input_changed(vm);
}

static void on_resume(struct vm *vm) {
    struct lifecycle *lifecycle = &vm->lifecycle;
    bool by_bus = was_expected(vm, LIFECYCLE_EXPECT_RESUME);

    lifecycle->running = true;
    lifecycle->suspended = lifecycle->shutdown = lifecycle->crashed = lifecycle->incoming = false;
    lifecycle->stopping = false;
    update_busy(vm);
    power_resumed(vm);
    if (!by_bus)
        doubt_memory(vm);
    lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_RESUMED, by_bus);
    input_changed(vm);
    if (by_bus && (!vm->memory.epoch || !vm->root.has_published))
        memory_read(vm, true);
}

static void on_reset(struct vm *vm, json_object *data) {
    struct lifecycle *lifecycle = &vm->lifecycle;
    bool guest = true, by_bus = false;

    qmp_boolean(data, "guest", &guest);
    if (!guest)
        by_bus = was_expected(vm, LIFECYCLE_EXPECT_RESET);
    if (lifecycle->shutdown || lifecycle->crashed)
        lifecycle->running = false;
    else if (lifecycle->suspended)
        lifecycle->running = true;
    lifecycle->suspended = lifecycle->shutdown = lifecycle->crashed = false;

    memory_end(vm, VMIBUS_REASON_RESET);
    if (by_bus || !lifecycle->settling)
        lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_RESET, by_bus);
    lifecycle->settling = true;
    vm->qemu->api->timer_set(lifecycle->settle_timer, LIFECYCLE_SETTLE_NS);
}

static void on_settled(void *userdata) {
    struct vm *vm = userdata;

    vm->lifecycle.settling = false;
    memory_read(vm, false);
}

static void on_shutdown(struct vm *vm) {
    vm->lifecycle.shutdown = true;
    vm->lifecycle.running = false;
    memory_end(vm, VMIBUS_REASON_SHUTDOWN);
    lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN,
                      was_expected(vm, LIFECYCLE_EXPECT_SHUTDOWN));
    input_changed(vm);
}

static void on_panic(struct vm *vm, json_object *data) {
    const char *action = qmp_string(data, "action");

    vm->lifecycle.crashed = !action || strcmp(action, "run") != 0;
    lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_PANICKED, false);
    input_changed(vm);
}

static void on_suspend(struct vm *vm) {
    vm->lifecycle.suspended = true;
    vm->lifecycle.running = false;
    lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_SUSPENDED, false);
}

static void on_wakeup(struct vm *vm) {
    vm->lifecycle.suspended = false;
    vm->lifecycle.running = true;
    doubt_memory(vm);
    lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_WAKEUP, was_expected(vm, LIFECYCLE_EXPECT_WAKEUP));
    input_changed(vm);
}

static void on_block_error(struct vm *vm, json_object *data) {
    const char *action = qmp_string(data, "action");

    if (action && strcmp(action, "stop") == 0)
        vm->lifecycle.io_error = true;
}

/* A background snapshot copies memory like a migration does, but the guest stays. */
static void on_capabilities(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;
    size_t n;

    if (reply->outcome != QMP_RETURN || !json_object_is_type(reply->value, json_type_array) ||
        !vm->lifecycle.migrating)
        return;
    n = json_object_array_length(reply->value);
    for (size_t i = 0; i < n; i++) {
        json_object *entry = json_object_array_get_idx(reply->value, i);
        const char *name = qmp_string(entry, "capability");
        bool state = false;

        if (name && strcmp(name, "background-snapshot") == 0 &&
            qmp_boolean(entry, "state", &state) && state) {
            vm->lifecycle.snapshotting = true;
            update_busy(vm);
            lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
        }
    }
}

static void begin_migration(struct vm *vm) {
    if (vm->lifecycle.migrating)
        return;
    vm->lifecycle.migrating = true;
    vm->lifecycle.snapshotting = vm->lifecycle.active = false;
    update_busy(vm);
    if (vm->qmp)
        qmp_execute(vm->qmp, "query-migrate-capabilities", NULL, on_capabilities, vm);
}

static void end_migration(struct vm *vm, bool completed) {
    struct lifecycle *lifecycle = &vm->lifecycle;
    bool arrived = completed && lifecycle->incoming,
         left = completed && lifecycle->active && !lifecycle->snapshotting && !arrived;

    if (!lifecycle->migrating)
        return;
    lifecycle->migrating = lifecycle->snapshotting = lifecycle->active = false;
    if (left) {
        power_left(vm);
        memory_end(vm, VMIBUS_REASON_MIGRATED);
    }
    if (arrived) {
        lifecycle->incoming = false;
        doubt_memory(vm);
    }
    update_busy(vm);
}

/* Returns whether the status is one in which memory is not, or not any more, being copied. */
static bool is_final(const char *status) {
    static const char *const final[] = {"none", "completed", "failed", "cancelled"};

    for (size_t i = 0; i < sizeof(final) / sizeof(*final); i++)
        if (strcmp(status, final[i]) == 0)
            return true;

    return false;
}

static void note_progress(struct vm *vm, const char *status) {
    vm->lifecycle.active |= strcmp(status, "setup") != 0;
}

static void on_migration(struct vm *vm, json_object *data) {
    const char *status = qmp_string(data, "status");
    bool before = vm->lifecycle.migrating;

    if (!status)
        return;
    if (is_final(status)) {
        end_migration(vm, strcmp(status, "completed") == 0);
    } else {
        begin_migration(vm);
        note_progress(vm, status);
    }
    if (before != vm->lifecycle.migrating)
        lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
}

static void on_jobs(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;
    size_t n;

    if (reply->outcome != QMP_RETURN || !json_object_is_type(reply->value, json_type_array))
        return;
    n = json_object_array_length(reply->value);
    for (size_t i = 0; i < n; i++) {
        const char *type = qmp_string(json_object_array_get_idx(reply->value, i), "type");

        if (type && strcmp(type, "snapshot-load") == 0) {
            if (vm->lifecycle.reloads == vm->lifecycle.job_reloads)
                doubt_memory(vm);
            return;
        }
    }
}

/*
 * A job's kind is not in its event. It is asked for twice: as it begins to run, and when it has
 * ended.  The RESUME of a guest that ran before tells of it too; one of the three ends the epoch.
 */
static void on_job(struct vm *vm, json_object *data) {
    const char *status = qmp_string(data, "status");

    if (status && strcmp(status, "created") == 0)
        vm->lifecycle.job_reloads = vm->lifecycle.reloads;
    if (status && (strcmp(status, "running") == 0 || strcmp(status, "concluded") == 0) && vm->qmp)
        qmp_execute(vm->qmp, "query-jobs", NULL, on_jobs, vm);
}

static void take_event(struct vm *vm, const char *name, json_object *data) {
    if (strcmp(name, "STOP") == 0)
        on_stop(vm);
    else if (strcmp(name, "RESUME") == 0)
        on_resume(vm);
    else if (strcmp(name, "RESET") == 0)
        on_reset(vm, data);
    else if (strcmp(name, "SHUTDOWN") == 0)
        on_shutdown(vm);
    else if (strcmp(name, "POWERDOWN") == 0)
        lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN,
                          was_expected(vm, LIFECYCLE_EXPECT_POWERDOWN));
    else if (strcmp(name, "GUEST_PANICKED") == 0)
        on_panic(vm, data);
    else if (strcmp(name, "SUSPEND") == 0 || strcmp(name, "SUSPEND_DISK") == 0)
        on_suspend(vm);
    else if (strcmp(name, "WAKEUP") == 0)
        on_wakeup(vm);
    else if (strcmp(name, "BLOCK_IO_ERROR") == 0)
        on_block_error(vm, data);
    else if (strcmp(name, "MIGRATION") == 0)
        on_migration(vm, data);
    else if (strcmp(name, "JOB_STATUS_CHANGE") == 0)
        on_job(vm, data);
    else if (strcmp(name, "DEVICE_DELETED") == 0 ||
             strcmp(name, "MEMORY_DEVICE_SIZE_CHANGE") == 0 || strcmp(name, "ACPI_DEVICE_OST") == 0)
        memory_suspect(vm);
}

void lifecycle_event(struct vm *vm, const char *name, json_object *data) {
    if (!vm->lifecycle.known || !vm->endpoint)
        return; /* the state that is being asked for includes it */

    vm->lifecycle.event_time = qmp_event_time(vm->qmp);
    take_event(vm, name, data);
    vm->lifecycle.event_time = 0;
}

/* --- observing ------------------------------------------------------------------------------- */

static void on_status(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;
    const char *status;

    if (reply->outcome == QMP_LOST)
        return;
    status = reply->outcome == QMP_RETURN ? qmp_string(reply->value, "status") : NULL;
    if (status) {
        take_run_state(&vm->lifecycle, status);
        vm->lifecycle.known = true;
    }
    vm->lifecycle.observed(vm, status != NULL);
}

static void on_migrate(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;
    const char *status = reply->outcome == QMP_RETURN ? qmp_string(reply->value, "status") : NULL;

    if (!vm->lifecycle.known || !vm->endpoint)
        return;
    if (status && !is_final(status)) {
        begin_migration(vm);
        note_progress(vm, status);
    } else if (!vm->lifecycle.migrating && !vm->lifecycle.stopping) {
        /* What an earlier connection left behind. */
        vm->qemu->api->memory_busy(vm->endpoint, false, VMIBUS_REASON_MIGRATION);
    }
}

/* Without this capability QEMU does not tell that its memory is being copied. */
static json_object *events_on(void) {
    json_object *arguments = json_object_new_object(), *list = json_object_new_array(),
                *entry = json_object_new_object();

    if (!arguments || !list || !entry)
        goto fail;
    if (json_object_object_add(entry, "capability", json_object_new_string("events")) < 0 ||
        json_object_object_add(entry, "state", json_object_new_boolean(true)) < 0)
        goto fail;
    if (json_object_array_add(list, entry) < 0)
        goto fail;
    entry = NULL;
    if (json_object_object_add(arguments, "capabilities", list) < 0)
        goto fail;

    return arguments;
fail:
    json_object_put(entry);
    json_object_put(list);
    json_object_put(arguments);

    return NULL;
}

int lifecycle_observe(struct vm *vm, void (*done)(struct vm *vm, bool told)) {
    vm->lifecycle.observed = done;

    return qmp_execute(vm->qmp, "query-status", NULL, on_status, vm);
}

void lifecycle_begin(struct vm *vm) {
    json_object *arguments = events_on();

    if (arguments)
        qmp_execute(vm->qmp, "migrate-set-capabilities", arguments, NULL, NULL);
    qmp_execute(vm->qmp, "query-migrate", NULL, on_migrate, vm);
    lifecycle_publish(vm, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
}

void lifecycle_lost(struct vm *vm) {
    struct vmibus_sensor_timer *timer = vm->lifecycle.settle_timer;
    uint64_t stops = vm->lifecycle.stops;

    vm->qemu->api->timer_set(timer, 0);
    vm->lifecycle = (struct lifecycle){.settle_timer = timer, .stops = stops + 1};
}

int lifecycle_init(struct vm *vm) {
    return vm->qemu->api->timer_new(vm->qemu->host, on_settled, vm, &vm->lifecycle.settle_timer);
}

void lifecycle_deinit(struct vm *vm) {
    vm->qemu->api->timer_free(vm->lifecycle.settle_timer);
    vm->lifecycle.settle_timer = NULL;
}
