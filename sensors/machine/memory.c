/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Epochs.  At most one of three things is in progress: a reading, a verdict on a proposal, or a
 * pause before another reading.  What happens meanwhile is noted, and the reading repeated.
 */
#include <stdio.h>

#include "machine.h"

#define RETRY_MIN_NS (100 * NANOSECONDS_PER_MS)
#define RETRY_MAX_NS (2000 * NANOSECONDS_PER_MS)

/* Says to people why there is no layout, and what would help; NULL: there is one, or nobody can help. */
static void tell(struct machine *machine, const char *why) {
    char *refusal = machine->memory.refusal;

    *refusal = '\0';
    if (why)
        snprintf(refusal, sizeof(machine->memory.refusal), "%s: no RAM layout: %s", machine->name, why);
    machine->sensor->announce(machine->sensor);
}

/* Returns whether there is another attempt. */
static bool retry(struct machine *machine) {
    struct memory *memory = &machine->memory;
    uint64_t delay;

    if (++memory->attempts > MEMORY_ATTEMPTS_BOUND)
        return false;
    delay = RETRY_MIN_NS << memory->attempts;
    machine->sensor->api->timer_set(memory->timer, delay < RETRY_MAX_NS ? delay : RETRY_MAX_NS);

    return true;
}

/* There is no layout, and thus no memory context. */
static void refuse(struct machine *machine, enum vmibus_reason reason, const char *why) {
    const struct vmibus_mem_root none = {.reason = (uint16_t)reason};
    unsigned int attempts = machine->memory.attempts;

    memory_end(machine, reason);
    machine->memory.attempts = attempts;
    machine->sensor->api->root(machine->endpoint, &none);
    tell(machine, why);
}

/* --- what changes without an event ------------------------------------------------------------- */

static void watch(struct machine *machine) {
    if (machine->memory.demanded && machine->memory.epoch)
        machine->sensor->api->timer_set(machine->memory.watch_timer, MEMORY_WATCH_NS);
}

/* Ends the epoch if its RAM is not what it was, and returns what the flat view shows. */
static enum layout_sight look(struct machine *machine, const struct monitor_reply *reply) {
    enum layout_sight sight = LAYOUT_SIGHT_OTHER;
    size_t len;
    const char *text = monitor_text(reply, &len);

    if (text)
        sight = layout_compare(&machine->memory.layout, text, len);
    if (sight == LAYOUT_SIGHT_OTHER_RAM)
        memory_end(machine, VMIBUS_REASON_HOTPLUG);

    return sight;
}

/* Where a reading has begun meanwhile, it tells. */
static bool is_compared(const struct memory *memory) {
    return memory->epoch && !memory->layout.reading && !memory->proposing;
}

static void on_view(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;

    if (reply->outcome == MONITOR_LOST)
        return;
    machine->memory.watching = false;
    if (is_compared(&machine->memory) && look(machine, reply) != LAYOUT_SIGHT_SAME)
        memory_read(machine, false);
    watch(machine);
}

static void on_suspicion(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;

    if (reply->outcome == MONITOR_LOST)
        return;
    if (is_compared(&machine->memory))
        look(machine, reply);
    memory_read(machine, false);
}

void memory_suspect(struct machine *machine) {
    if (!machine_is_usable(machine) || !is_compared(&machine->memory) ||
        monitor_execute_human(machine->monitor, "info mtree -f", on_suspicion, machine) < 0)
        memory_read(machine, false);
}

static void on_watch(void *userdata) {
    struct machine *machine = userdata;
    struct memory *memory = &machine->memory;

    if (!memory->epoch || !memory->demanded || memory->watching || !machine_is_usable(machine))
        return;
    memory->watching = monitor_execute_human(machine->monitor, "info mtree -f", on_view, machine) == 0;
    if (!memory->watching)
        watch(machine);
}

void memory_demand(struct machine *machine, uint64_t kinds) {
    machine->memory.demanded = (kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)) != 0;
    if (machine->memory.demanded)
        watch(machine);
    else
        machine->sensor->api->timer_set(machine->memory.watch_timer, 0);
}

/* --- layouts ----------------------------------------------------------------------------------- */

/* The epoch's layout is what the monitor shows. */
static void confirm(struct machine *machine) {
    struct memory *memory = &machine->memory;

    if (root_confirmed(machine))
        return;
    if (memory->recheck || !machine->root.has_published) {
        memory->recheck = false;
        root_search(machine);
    }
}

static void propose(struct machine *machine) {
    struct memory *memory = &machine->memory;
    struct vmibus_sensor_layout layout = {.pid = machine->process.pid,
                                          .start_time = machine->process.start_time};

    memory_end(machine, VMIBUS_REASON_HOTPLUG);
    layout_ranges_move(&memory->proposed, &memory->layout.result);
    layout.ranges = memory->proposed.ranges;
    layout.n_ranges = memory->proposed.n_ranges;
    memory->recheck = false;
    if (machine->sensor->api->layout(machine->endpoint, &layout) < 0)
        retry(machine);
    else
        memory->proposing = true;
}

/* Whether the process is not known to be QEMU's: its memory is nobody's business then. */
static bool is_strange(const struct process *process) {
    return !process->pid || !process_is_own(process);
}

static void on_layout(void *userdata, enum layout_outcome outcome, const char *message) {
    struct machine *machine = userdata;
    struct memory *memory = &machine->memory;

    if (!machine_is_usable(machine))
        return;
    if (memory->again) {
        memory->again = false;
        machine->sensor->api->timer_set(memory->timer, RETRY_MIN_NS);
        return;
    }

    switch (outcome) {
    case LAYOUT_READ:
        if (is_strange(&machine->process)) {
            refuse(machine, VMIBUS_REASON_LAYOUT_UNPROVEN, machine->sensor->strange_process);
            break;
        }
        if (memory->epoch && layout_ranges_equal(&memory->accepted, &memory->layout.result)) {
            memory->attempts = 0;
            confirm(machine);
        } else {
            propose(machine);
        }
        break;
    case LAYOUT_CONFIDENTIAL:
        refuse(machine, VMIBUS_REASON_CONFIDENTIAL, NULL);
        break;
    case LAYOUT_UNPROVEN:
        refuse(machine, VMIBUS_REASON_LAYOUT_UNPROVEN, message);
        retry(machine);
        break;
    case LAYOUT_CHANGED:
        if (!retry(machine))
            refuse(machine, VMIBUS_REASON_LAYOUT_UNPROVEN, message);
        break;
    case LAYOUT_LOST:
        retry(machine);
        break;
    }
}

void memory_read(struct machine *machine, bool recheck) {
    struct memory *memory = &machine->memory;

    memory->recheck |= recheck;
    if (memory->standby || !machine_is_usable(machine) || machine->lifecycle.settling || machine->monitor->closed)
        return;
    if (memory->layout.reading || memory->proposing) {
        memory->again = true;
        return;
    }
    machine->sensor->api->timer_set(memory->timer, 0);
    if (layout_read(&memory->layout, machine->monitor, on_layout, machine) < 0)
        retry(machine);
}

static void on_timer(void *userdata) {
    memory_read(userdata, false);
}

void memory_end(struct machine *machine, enum vmibus_reason reason) {
    struct memory *memory = &machine->memory;

    root_stop(machine);
    machine->sensor->api->timer_set(memory->timer, 0);
    memory->attempts = 0;
    if (memory->layout.reading)
        memory->again = true;
    if (!memory->epoch && (!memory->proposing || memory->outdated))
        return;
    /* Of a proposal under way too: it ends as soon as it has become an epoch. */
    memory->outdated = memory->proposing;
    memory->epoch = 0;
    layout_ranges_deinit(&memory->accepted);
    machine->sensor->api->end_epoch(machine->endpoint, reason);
}

void memory_reloaded(struct machine *machine) {
    memory_end(machine, VMIBUS_REASON_RELOADED);
    memory_read(machine, true);
}

void memory_set_active(struct machine *machine, bool active) {
    struct memory *memory = &machine->memory;

    root_stop(machine);
    machine->sensor->api->timer_set(memory->timer, 0);
    machine->sensor->api->timer_set(memory->watch_timer, 0);
    memory->standby = !active;
    memory->epoch = 0;
    memory->attempts = 0;
    layout_ranges_deinit(&memory->accepted);
    if (!active)
        return;
    /* What goes on from the last provider's time somebody must look after. */
    if (machine_is_usable(machine))
        memory_read(machine, true);
    else
        machine->sensor->api->end_epoch(machine->endpoint, VMIBUS_REASON_WITHDRAWN);
}

void memory_lost(struct machine *machine) {
    root_stop(machine);
    machine->sensor->api->timer_set(machine->memory.timer, 0);
    machine->memory.again = machine->memory.watching = false;
    machine->memory.outdated = machine->memory.proposing;
    machine->memory.attempts = 0;
}

/* What the authority's refusal means to people. */
static const char *explain(enum vmibus_error error, enum vmibus_reason reason) {
    switch (error) {
    case VMIBUS_ERROR_UNSUPPORTED:
        return "QEMU's mappings do not agree with its monitor, or RAM lies in a file that is not "
               "memory; use memory-backend-memfd, or a file in /dev/shm or on hugetlbfs";
    case VMIBUS_ERROR_IO:
        return "QEMU's memory cannot be opened; run vmibusd as root, or as vmibusd(8) says";
    case VMIBUS_ERROR_VALIDATION:
        return reason == VMIBUS_REASON_BAD_LENGTH
                   ? "it has more RAM ranges or files than the bus takes; use fewer, larger DIMMs"
                   : "a RAM range does not begin or end with a page; give each backend whole pages";
    case VMIBUS_ERROR_QUOTA:
    case VMIBUS_ERROR_PRESSURE:
        return "the bus has no descriptors left for its memory; raise the limits, see "
               "vmibusd.conf(5)";
    default:
        return NULL;
    }
}

void memory_verdict(struct machine *machine, uint64_t epoch, enum vmibus_error error,
                    enum vmibus_reason reason) {
    struct memory *memory = &machine->memory;
    bool again = memory->again;

    if (!memory->proposing)
        return;
    memory->proposing = memory->again = false;
    if (memory->outdated) {
        /* It was proven, but of a machine that has been reset, or out of sight, since. */
        memory->outdated = false;
        if (!error)
            machine->sensor->api->end_epoch(machine->endpoint, VMIBUS_REASON_WITHDRAWN);
        memory_read(machine, false);
        return;
    }
    if (error) {
        tell(machine, explain(error, reason));
        retry(machine);
        return;
    }
    /* What it was when its memory was opened, it must still be. */
    if (is_strange(&machine->process)) {
        machine->sensor->api->end_epoch(machine->endpoint, VMIBUS_REASON_WITHDRAWN);
        refuse(machine, VMIBUS_REASON_LAYOUT_UNPROVEN, machine->sensor->strange_process);
        return;
    }
    memory->attempts = 0;
    memory->epoch = epoch;
    tell(machine, NULL);
    watch(machine);
    layout_ranges_move(&memory->accepted, &memory->proposed);
    if (again)
        memory_read(machine, true);
    else
        root_search(machine);
}

void memory_ended(struct machine *machine, uint64_t epoch) {
    struct memory *memory = &machine->memory;

    if (!epoch || epoch != memory->epoch)
        return;
    memory->epoch = 0;
    layout_ranges_deinit(&memory->accepted);
    root_stop(machine);
    retry(machine);
}

int memory_init(struct machine *machine) {
    int r = machine->sensor->api->timer_new(machine->sensor->host, on_timer, machine, &machine->memory.timer);

    return r < 0 ? r
                 : machine->sensor->api->timer_new(machine->sensor->host, on_watch, machine, &machine->memory.watch_timer);
}

void memory_forget(struct machine *machine) {
    struct vmibus_sensor_timer *timer = machine->memory.timer, *watch_timer = machine->memory.watch_timer;

    if (timer)
        machine->sensor->api->timer_set(timer, 0);
    if (watch_timer)
        machine->sensor->api->timer_set(watch_timer, 0);
    layout_deinit(&machine->memory.layout);
    layout_ranges_deinit(&machine->memory.accepted);
    layout_ranges_deinit(&machine->memory.proposed);
    machine->memory = (struct memory){.timer = timer, .watch_timer = watch_timer};
}

void memory_deinit(struct machine *machine) {
    memory_forget(machine);
    machine->sensor->api->timer_free(machine->memory.timer);
    machine->sensor->api->timer_free(machine->memory.watch_timer);
    machine->memory.timer = machine->memory.watch_timer = NULL;
}
