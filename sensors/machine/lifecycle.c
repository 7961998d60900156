/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The run state.  Events: QEMU, qapi/run-state.json, migration.json, machine.json, job.json.
 */
#include <string.h>

#include "machine.h"

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

void lifecycle_publish(struct machine *machine, enum vmibus_lifecycle_cause cause, bool by_bus) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_LIFECYCLE,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .timestamp = machine->lifecycle.event_time},
        .lifecycle =
            {
                .state = (uint8_t)state_of(&machine->lifecycle),
                .cause = (uint8_t)cause,
                .flags = by_bus ? VMIBUS_LIFECYCLE_BY_BUS : 0,
            },
    };

    if (machine->endpoint)
        machine->sensor->api->publish(machine->endpoint, &frame, NULL, 0);
}

void lifecycle_expect(struct machine *machine, enum lifecycle_expectation expectation) {
    machine->lifecycle.expected_until[expectation] = machine->sensor->api->now() + MONITOR_DEADLINE_NS;
}

void lifecycle_unexpect(struct machine *machine, enum lifecycle_expectation expectation) {
    machine->lifecycle.expected_until[expectation] = 0;
}

/* Whether the bus has asked for what happened now; it is expected once. */
static bool was_expected(struct machine *machine, enum lifecycle_expectation expectation) {
    uint64_t *until = &machine->lifecycle.expected_until[expectation];
    bool expected = *until && machine->sensor->api->now() < *until;

    *until = 0;

    return expected;
}

bool lifecycle_takes_input(const struct machine *machine) {
    return machine->lifecycle.known && (machine->lifecycle.running || machine->lifecycle.suspended);
}

/* Tells whether memory is being copied, if that changed. The end names the reason of the beginning. */
static void update_busy(struct machine *machine) {
    struct lifecycle *lifecycle = &machine->lifecycle;
    enum vmibus_reason reason = VMIBUS_REASON_NONE;

    if (lifecycle->snapshotting || (lifecycle->stopping && !lifecycle->active))
        reason = VMIBUS_REASON_SNAPSHOT;
    else if (lifecycle->migrating)
        reason = VMIBUS_REASON_MIGRATION;
    if (reason == lifecycle->busy || !machine->endpoint)
        return;
    machine->sensor->api->memory_busy(machine->endpoint, reason != VMIBUS_REASON_NONE,
                               reason ? reason : lifecycle->busy);
    lifecycle->busy = reason;
}

/* --- events ---------------------------------------------------------------------------------- */

/* RAM may hold the octets of another moment now. */
static void doubt_memory(struct machine *machine) {
    machine->lifecycle.reloads++;
    memory_reloaded(machine);
}

/* The monitor answers again, so nothing is being loaded any more; saving may go on behind its back. */
static void on_stop_status(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;
    const char *status = reply->outcome == MONITOR_RETURN ? monitor_string(reply->value, "status") : NULL;

    if (reply->outcome == MONITOR_LOST || (status && strcmp(status, "save-vm") == 0))
        return;
    machine->lifecycle.stopping = false;
    update_busy(machine);
}

/*
 * A stop that the bus did not cause may be the beginning of savevm, loadvm or a dump: what is written
 * from here on might be lost.
 */
static void suspect_stop(struct machine *machine) {
    machine->lifecycle.stopping =
        machine->monitor && monitor_execute(machine->monitor, "query-status", NULL, on_stop_status, machine) == 0;
    update_busy(machine);
}

void lifecycle_stopped(struct machine *machine, enum vmibus_lifecycle_cause cause) {
    struct lifecycle *lifecycle = &machine->lifecycle;
    bool by_bus = was_expected(machine, LIFECYCLE_EXPECT_STOP);

    lifecycle->running = lifecycle->suspended = false;
    lifecycle->stops++;
    /* A panic or a shutdown stops the guest too: that was told already. */
    if (!lifecycle->crashed && !lifecycle->shutdown)
        lifecycle_publish(machine, cause, by_bus);
    if (cause == VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT)
        doubt_memory(machine);
    else if (!by_bus)
        suspect_stop(machine);
    machine_run_state_changed(machine);
}

void lifecycle_resumed(struct machine *machine, enum vmibus_lifecycle_cause cause) {
    struct lifecycle *lifecycle = &machine->lifecycle;
    bool by_bus = was_expected(machine, LIFECYCLE_EXPECT_RESUME);

    lifecycle->running = true;
    lifecycle->suspended = lifecycle->shutdown = lifecycle->crashed = lifecycle->incoming = false;
    lifecycle->stopping = false;
    update_busy(machine);
    power_resumed(machine);
    if (!by_bus)
        doubt_memory(machine);
    lifecycle_publish(machine, cause, by_bus);
    machine_run_state_changed(machine);
    if (by_bus && (!machine->memory.epoch || !machine->root.has_published))
        memory_read(machine, true);
}

void lifecycle_reset(struct machine *machine, bool guest) {
    struct lifecycle *lifecycle = &machine->lifecycle;
    bool by_bus = !guest && was_expected(machine, LIFECYCLE_EXPECT_RESET);

    if (lifecycle->shutdown || lifecycle->crashed)
        lifecycle->running = false;
    else if (lifecycle->suspended)
        lifecycle->running = true;
    lifecycle->suspended = lifecycle->shutdown = lifecycle->crashed = false;

    memory_end(machine, VMIBUS_REASON_RESET);
    if (by_bus || !lifecycle->settling)
        lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_RESET, by_bus);
    lifecycle->settling = true;
    machine->sensor->api->timer_set(lifecycle->settle_timer, LIFECYCLE_SETTLE_NS);
}

static void on_reset(struct machine *machine, json_object *data) {
    bool guest = true;

    monitor_boolean(data, "guest", &guest);
    lifecycle_reset(machine, guest);
}

static void on_settled(void *userdata) {
    struct machine *machine = userdata;

    machine->lifecycle.settling = false;
    memory_read(machine, false);
}

void lifecycle_shut_down(struct machine *machine) {
    machine->lifecycle.shutdown = true;
    machine->lifecycle.running = false;
    memory_end(machine, VMIBUS_REASON_SHUTDOWN);
    lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN,
                      was_expected(machine, LIFECYCLE_EXPECT_SHUTDOWN));
    machine_run_state_changed(machine);
}

void lifecycle_powerdown(struct machine *machine) {
    lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN, was_expected(machine, LIFECYCLE_EXPECT_POWERDOWN));
}

void lifecycle_ended(struct machine *machine, enum vmibus_lifecycle_cause cause) {
    struct lifecycle *lifecycle = &machine->lifecycle;
    bool by_bus = was_expected(machine, LIFECYCLE_EXPECT_SHUTDOWN), told = lifecycle->shutdown;

    lifecycle->running = lifecycle->suspended = false;
    if (cause == VMIBUS_LIFECYCLE_CAUSE_CRASHED)
        lifecycle->crashed = true;
    else
        lifecycle->shutdown = true;
    lifecycle->migrating = false;
    if (!told || cause != VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN)
        lifecycle_publish(machine, cause, by_bus);
}

void lifecycle_panicked(struct machine *machine, bool runs) {
    machine->lifecycle.crashed = !runs;
    lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_PANICKED, false);
    machine_run_state_changed(machine);
}

static void on_panic(struct machine *machine, json_object *data) {
    const char *action = monitor_string(data, "action");

    lifecycle_panicked(machine, action && strcmp(action, "run") == 0);
}

void lifecycle_suspended(struct machine *machine) {
    machine->lifecycle.suspended = true;
    machine->lifecycle.running = false;
    lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_SUSPENDED, false);
}

void lifecycle_woken(struct machine *machine) {
    machine->lifecycle.suspended = false;
    machine->lifecycle.running = true;
    doubt_memory(machine);
    lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_WAKEUP, was_expected(machine, LIFECYCLE_EXPECT_WAKEUP));
    machine_run_state_changed(machine);
}

static void on_stop(struct machine *machine) {
    enum vmibus_lifecycle_cause cause = machine->lifecycle.stop_cause;

    machine->lifecycle.stop_cause = 0;
    lifecycle_stopped(machine, cause ? cause : VMIBUS_LIFECYCLE_CAUSE_PAUSED);
}

/* What has happened may stop the guest, by an action of this name. */
static void expect_stop(struct machine *machine, json_object *data, const char *stops, enum vmibus_lifecycle_cause cause) {
    const char *action = monitor_string(data, "action");

    if (action && strcmp(action, stops) == 0)
        machine->lifecycle.stop_cause = cause;
}

/* A background snapshot copies memory like a migration does, but the guest stays. */
static void on_capabilities(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;
    size_t n;

    if (reply->outcome != MONITOR_RETURN || !json_object_is_type(reply->value, json_type_array) ||
        !machine->lifecycle.migrating)
        return;
    n = json_object_array_length(reply->value);
    for (size_t i = 0; i < n; i++) {
        json_object *entry = json_object_array_get_idx(reply->value, i);
        const char *name = monitor_string(entry, "capability");
        bool state = false;

        if (name && strcmp(name, "background-snapshot") == 0 &&
            monitor_boolean(entry, "state", &state) && state) {
            machine->lifecycle.snapshotting = true;
            update_busy(machine);
            lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
        }
    }
}

static void begin_migration(struct machine *machine) {
    if (machine->lifecycle.migrating)
        return;
    machine->lifecycle.migrating = true;
    machine->lifecycle.snapshotting = machine->lifecycle.active = false;
    update_busy(machine);
    if (machine->monitor && !machine->monitor->managed)
        monitor_execute(machine->monitor, "query-migrate-capabilities", NULL, on_capabilities, machine);
}

static void end_migration(struct machine *machine, bool completed) {
    struct lifecycle *lifecycle = &machine->lifecycle;
    bool arrived = completed && lifecycle->incoming,
         left = completed && lifecycle->active && !lifecycle->snapshotting && !arrived;

    if (!lifecycle->migrating)
        return;
    lifecycle->migrating = lifecycle->snapshotting = lifecycle->active = false;
    if (left) {
        power_left(machine);
        memory_end(machine, VMIBUS_REASON_MIGRATED);
    }
    if (arrived) {
        lifecycle->incoming = false;
        doubt_memory(machine);
    }
    update_busy(machine);
}

/* Returns whether the status is one in which memory is not, or not any more, being copied. */
static bool is_final(const char *status) {
    static const char *const final[] = {"none", "completed", "failed", "cancelled"};

    for (size_t i = 0; i < sizeof(final) / sizeof(*final); i++)
        if (strcmp(status, final[i]) == 0)
            return true;

    return false;
}

static void note_progress(struct machine *machine, const char *status) {
    machine->lifecycle.active |= strcmp(status, "setup") != 0;
}

static void on_migration(struct machine *machine, json_object *data) {
    const char *status = monitor_string(data, "status");
    bool before = machine->lifecycle.migrating;

    if (!status)
        return;
    if (is_final(status)) {
        end_migration(machine, strcmp(status, "completed") == 0);
    } else {
        begin_migration(machine);
        note_progress(machine, status);
    }
    if (before != machine->lifecycle.migrating)
        lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
}

void lifecycle_copying(struct machine *machine, bool copying) {
    bool before = machine->lifecycle.migrating;

    if (copying)
        begin_migration(machine);
    else
        end_migration(machine, false);
    if (before != copying)
        lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
}

static void on_jobs(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;
    size_t n;

    if (reply->outcome != MONITOR_RETURN || !json_object_is_type(reply->value, json_type_array))
        return;
    n = json_object_array_length(reply->value);
    for (size_t i = 0; i < n; i++) {
        const char *type = monitor_string(json_object_array_get_idx(reply->value, i), "type");

        if (type && strcmp(type, "snapshot-load") == 0) {
            if (machine->lifecycle.reloads == machine->lifecycle.job_reloads)
                doubt_memory(machine);
            return;
        }
    }
}

/*
 * A job's kind is not in its event. It is asked for twice: as it begins to run, and when it has
 * ended.  The RESUME of a guest that ran before tells of it too; one of the three ends the epoch.
 */
static void on_job(struct machine *machine, json_object *data) {
    const char *status = monitor_string(data, "status");

    if (status && strcmp(status, "created") == 0)
        machine->lifecycle.job_reloads = machine->lifecycle.reloads;
    if (status && (strcmp(status, "running") == 0 || strcmp(status, "concluded") == 0) && machine->monitor)
        monitor_execute(machine->monitor, "query-jobs", NULL, on_jobs, machine);
}

static void take_event(struct machine *machine, const char *name, json_object *data) {
    if (strcmp(name, "STOP") == 0)
        on_stop(machine);
    else if (strcmp(name, "RESUME") == 0)
        lifecycle_resumed(machine, VMIBUS_LIFECYCLE_CAUSE_RESUMED);
    else if (strcmp(name, "RESET") == 0)
        on_reset(machine, data);
    else if (strcmp(name, "SHUTDOWN") == 0)
        lifecycle_shut_down(machine);
    else if (strcmp(name, "POWERDOWN") == 0)
        lifecycle_powerdown(machine);
    else if (strcmp(name, "GUEST_PANICKED") == 0)
        on_panic(machine, data);
    else if (strcmp(name, "SUSPEND") == 0 || strcmp(name, "SUSPEND_DISK") == 0)
        lifecycle_suspended(machine);
    else if (strcmp(name, "WAKEUP") == 0)
        lifecycle_woken(machine);
    else if (strcmp(name, "BLOCK_IO_ERROR") == 0)
        expect_stop(machine, data, "stop", VMIBUS_LIFECYCLE_CAUSE_IO_ERROR);
    else if (strcmp(name, "WATCHDOG") == 0)
        expect_stop(machine, data, "pause", VMIBUS_LIFECYCLE_CAUSE_WATCHDOG);
    else if (strcmp(name, "MIGRATION") == 0)
        on_migration(machine, data);
    else if (strcmp(name, "JOB_STATUS_CHANGE") == 0)
        on_job(machine, data);
    else if (strcmp(name, "DEVICE_DELETED") == 0 ||
             strcmp(name, "MEMORY_DEVICE_SIZE_CHANGE") == 0 || strcmp(name, "ACPI_DEVICE_OST") == 0)
        memory_suspect(machine);
}

void lifecycle_event(struct machine *machine, const char *name, json_object *data, uint64_t time) {
    if (!machine->lifecycle.known || !machine->endpoint)
        return; /* the state that is being asked for includes it */

    machine->lifecycle.event_time = time;
    take_event(machine, name, data);
    machine->lifecycle.event_time = 0;
}

/* --- observing ------------------------------------------------------------------------------- */

void lifecycle_told(struct machine *machine, const char *status) {
    take_run_state(&machine->lifecycle, status);
    machine->lifecycle.known = true;
}

static void on_status(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;
    const char *status;

    if (reply->outcome == MONITOR_LOST)
        return;
    status = reply->outcome == MONITOR_RETURN ? monitor_string(reply->value, "status") : NULL;
    if (status)
        lifecycle_told(machine, status);
    machine->lifecycle.observed(machine, status != NULL);
}

static void on_migrate(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;
    const char *status = reply->outcome == MONITOR_RETURN ? monitor_string(reply->value, "status") : NULL;

    if (!machine->lifecycle.known || !machine->endpoint)
        return;
    if (status && !is_final(status)) {
        begin_migration(machine);
        note_progress(machine, status);
    } else if (!machine->lifecycle.migrating && !machine->lifecycle.stopping) {
        /* What an earlier connection left behind. */
        machine->sensor->api->memory_busy(machine->endpoint, false, VMIBUS_REASON_MIGRATION);
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

int lifecycle_observe(struct machine *machine, void (*done)(struct machine *machine, bool told)) {
    machine->lifecycle.observed = done;

    return monitor_execute(machine->monitor, "query-status", NULL, on_status, machine);
}

static void follow_migration(struct machine *machine) {
    json_object *arguments = events_on();

    if (arguments)
        monitor_execute(machine->monitor, "migrate-set-capabilities", arguments, NULL, NULL);
    monitor_execute(machine->monitor, "query-migrate", NULL, on_migrate, machine);
}

void lifecycle_begin(struct machine *machine) {
    if (!machine->monitor->managed)
        follow_migration(machine);
    lifecycle_publish(machine, machine->lifecycle.beginning, false);
    machine->lifecycle.beginning = VMIBUS_LIFECYCLE_CAUSE_OBSERVED;
}

void lifecycle_lost(struct machine *machine) {
    struct vmibus_sensor_timer *timer = machine->lifecycle.settle_timer;
    uint64_t stops = machine->lifecycle.stops;

    machine->sensor->api->timer_set(timer, 0);
    machine->lifecycle = (struct lifecycle){.settle_timer = timer, .stops = stops + 1};
}

int lifecycle_init(struct machine *machine) {
    return machine->sensor->api->timer_new(machine->sensor->host, on_settled, machine, &machine->lifecycle.settle_timer);
}

void lifecycle_deinit(struct machine *machine) {
    machine->sensor->api->timer_free(machine->lifecycle.settle_timer);
    machine->lifecycle.settle_timer = NULL;
}
