/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/monitor.h"

#include <unistd.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "core/core.h"
#include "core/local_sensor.h"
#include "util/clock.h"

#define PERIOD_NS NS_PER_S

/*
 * How much may be unaccounted before it is told: what an allocator keeps and sensors hold, for the process and for each VM.
 */
#define RESIDENT_BOUND (INT64_C(16) << 20)
#define RESIDENT_BOUND_PER_VM (INT64_C(1) << 20)
#define FDS_BOUND 16
#define FDS_BOUND_PER_VM 8

/* --- looking ----------------------------------------------------------------------------------- */

static int64_t sensors_fds(const struct vmibus_core *core) {
    const struct local_sensor *local;
    int64_t n = 0;

    list_for_each(local, &core->sensors, link) {
        const struct list *sources = &local->host.sources;

        n += local->host.worker.started;
        for (const struct list *source = sources->next; source != sources; source = source->next)
            n++;
    }
    return n;
}

static bool look(const struct vmibus_core *core, struct monitor_sample *sample) {
    const struct ledger *ledger = &core->ledger;

    if (process_usage_read(&sample->usage, 0, 0) < 0)
        return false;
    sample->explained_resident = (int64_t)arena_resident(&core->arena);
    sample->explained_fds = (int64_t)(ledger->used[RESOURCE_CONNECTIONS] + core->n_links) +
                            (int64_t)(ledger->used[RESOURCE_FDS] - ledger->fds_away) + sensors_fds(core);
    return true;
}

static int64_t unaccounted_resident(const struct monitor *monitor, const struct monitor_sample *sample) {
    return (int64_t)(sample->usage.anonymous - monitor->start.usage.anonymous) -
           (sample->explained_resident - monitor->start.explained_resident);
}

static int64_t unaccounted_fds(const struct monitor *monitor, const struct monitor_sample *sample) {
    return (int64_t)sample->usage.fds - (int64_t)monitor->start.usage.fds -
           (sample->explained_fds - monitor->start.explained_fds);
}

static void judge(struct monitor *monitor, enum monitor_subject subject, uint64_t value, int64_t unaccounted, int64_t bound) {
    struct monitor_drift drift = {
        .subject = subject,
        .beyond = unaccounted > bound,
        .value = value,
        .unaccounted = unaccounted,
        .bound = bound,
    };

    if (drift.beyond == monitor->beyond[subject])
        return;
    monitor->beyond[subject] = drift.beyond;
    if (monitor->drift)
        monitor->drift(monitor->drift_context, &drift);
}

static bool look_and_judge(struct monitor *monitor, struct monitor_sample *sample) {
    int64_t n_vms = monitor->core->bus->n_present;

    if (!monitor->started || !look(monitor->core, sample))
        return false;
    judge(monitor, MONITOR_RESIDENT, sample->usage.resident, unaccounted_resident(monitor, sample),
          RESIDENT_BOUND + n_vms * RESIDENT_BOUND_PER_VM);
    judge(monitor, MONITOR_FDS, sample->usage.fds, unaccounted_fds(monitor, sample), FDS_BOUND + n_vms * FDS_BOUND_PER_VM);
    return true;
}

bool monitor_count(struct monitor *monitor, struct bus_process_counters *counters) {
    struct monitor_sample sample;
    int64_t resident, fds;

    if (!look_and_judge(monitor, &sample))
        return false;
    resident = unaccounted_resident(monitor, &sample);
    fds = unaccounted_fds(monitor, &sample);
    *counters = (struct bus_process_counters){
        .resident = sample.usage.resident,
        .resident_unaccounted = resident > 0 ? (uint64_t)resident : 0,
        .fds_open = sample.usage.fds,
        .fds_unaccounted = fds > 0 ? (uint64_t)fds : 0,
    };
    return true;
}

/* --- telling ----------------------------------------------------------------------------------- */

static void publish(struct endpoint *endpoint, const struct vmibus_resources *resources) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_RESOURCES, .priority = VMIBUS_PRIORITY_BULK},
        .resources = *resources,
    };

    endpoint_publish(endpoint, &frame, NULL);
}

static struct vmibus_resources resources_of(const struct process_usage *usage, uint32_t pid) {
    return (struct vmibus_resources){.resident = usage->resident, .cpu = usage->cpu, .fds = usage->fds, .pid = pid};
}

static void tell_own(struct monitor *monitor, struct endpoint *endpoint) {
    struct vmibus_resources resources;
    struct monitor_sample sample;

    if (!look_and_judge(monitor, &sample))
        return;
    resources = resources_of(&sample.usage, (uint32_t)getpid());
    resources.resident_unaccounted = unaccounted_resident(monitor, &sample);
    resources.fds_unaccounted = (int32_t)unaccounted_fds(monitor, &sample);
    publish(endpoint, &resources);
}

static void tell_vm(struct endpoint *endpoint) {
    struct vmibus_resources resources;
    struct process_usage usage;

    if (!endpoint->pid || process_usage_read(&usage, endpoint->pid, endpoint->start_time) < 0)
        return;
    resources = resources_of(&usage, endpoint->pid);
    publish(endpoint, &resources);
}

static void tell(struct loop_timer *timer) {
    struct monitor *monitor = container_of(timer, struct monitor, timer);
    struct bus *bus = monitor->core->bus;

    /* First, because whoever is told may end its subscription, and the timer with it. */
    (void)loop_timer_set(&monitor->timer, clock_now() + PERIOD_NS);
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        if (!endpoint || !(endpoint->demand & VMIBUS_KIND_BIT(VMIBUS_KIND_RESOURCES)))
            continue;
        if (slot == 0)
            tell_own(monitor, endpoint);
        else
            tell_vm(endpoint);
    }
}

void monitor_want(struct monitor *monitor, bool wanted) {
    if (wanted)
        (void)loop_timer_set(&monitor->timer, clock_now());
    else
        loop_timer_cancel(&monitor->timer);
}

/* --- coming and going -------------------------------------------------------------------------- */

void monitor_init(struct monitor *monitor, struct vmibus_core *core) {
    *monitor = (struct monitor){.core = core};
    loop_timer_init(&monitor->timer, core->loop, tell);
}

void monitor_deinit(struct monitor *monitor) {
    if (monitor->core)
        loop_timer_cancel(&monitor->timer);
}

void monitor_start(struct monitor *monitor) {
    monitor->started = look(monitor->core, &monitor->start);
}
