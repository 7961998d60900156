/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Epochs.  At most one of three things is in progress: a reading, a verdict on a proposal, or a
 * pause before another reading.  What happens meanwhile is noted, and the reading repeated.
 */
#include <stdio.h>

#include "vm.h"

#define RETRY_MIN_NS (100 * NANOSECONDS_PER_MS)
#define RETRY_MAX_NS (2000 * NANOSECONDS_PER_MS)

/* Says to people why there is no layout, and what would help; NULL: there is one, or nobody can help. */
static void tell(struct vm *vm, const char *why) {
    char *refusal = vm->memory.refusal;

    *refusal = '\0';
    if (why)
        snprintf(refusal, sizeof(vm->memory.refusal), "%s: no RAM layout: %s", vm->name, why);
    qemu_announce(vm->qemu);
}

/* Returns whether there is another attempt. */
static bool retry(struct vm *vm) {
    struct memory *memory = &vm->memory;
    uint64_t delay;

    if (++memory->attempts > MEMORY_ATTEMPTS_BOUND)
        return false;
    delay = RETRY_MIN_NS << memory->attempts;
    vm->qemu->api->timer_set(memory->timer, delay < RETRY_MAX_NS ? delay : RETRY_MAX_NS);

    return true;
}

/* There is no layout, and thus no memory context. */
static void refuse(struct vm *vm, enum vmibus_reason reason, const char *why) {
    const struct vmibus_mem_root none = {.reason = (uint16_t)reason};
    unsigned int attempts = vm->memory.attempts;

    memory_end(vm, reason);
    vm->memory.attempts = attempts;
    vm->qemu->api->root(vm->endpoint, &none);
    tell(vm, why);
}

/* --- what changes without an event ------------------------------------------------------------- */

static void watch(struct vm *vm) {
    if (vm->memory.demanded && vm->memory.epoch)
        vm->qemu->api->timer_set(vm->memory.watch_timer, MEMORY_WATCH_NS);
}

/* Ends the epoch if its RAM is not what it was, and returns what the flat view shows. */
static enum layout_sight look(struct vm *vm, const struct qmp_reply *reply) {
    enum layout_sight sight = LAYOUT_SIGHT_OTHER;
    size_t len;
    const char *text = qmp_text(reply, &len);

    if (text)
        sight = layout_compare(&vm->memory.layout, text, len);
    if (sight == LAYOUT_SIGHT_OTHER_RAM)
        memory_end(vm, VMIBUS_REASON_HOTPLUG);

    return sight;
}

/* Where a reading has begun meanwhile, it tells. */
static bool is_compared(const struct memory *memory) {
    return memory->epoch && !memory->layout.reading && !memory->proposing;
}

static void on_view(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;

    if (reply->outcome == QMP_LOST)
        return;
    vm->memory.watching = false;
    if (is_compared(&vm->memory) && look(vm, reply) != LAYOUT_SIGHT_SAME)
        memory_read(vm, false);
    watch(vm);
}

static void on_suspicion(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;

    if (reply->outcome == QMP_LOST)
        return;
    if (is_compared(&vm->memory))
        look(vm, reply);
    memory_read(vm, false);
}

void memory_suspect(struct vm *vm) {
    if (!vm_is_usable(vm) || !is_compared(&vm->memory) ||
        qmp_execute_human(vm->qmp, "info mtree -f", on_suspicion, vm) < 0)
        memory_read(vm, false);
}

static void on_watch(void *userdata) {
    struct vm *vm = userdata;
    struct memory *memory = &vm->memory;

    if (!memory->epoch || !memory->demanded || memory->watching || !vm_is_usable(vm))
        return;
    memory->watching = qmp_execute_human(vm->qmp, "info mtree -f", on_view, vm) == 0;
    if (!memory->watching)
        watch(vm);
}

void memory_demand(struct vm *vm, uint64_t kinds) {
    vm->memory.demanded = (kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)) != 0;
    if (vm->memory.demanded)
        watch(vm);
    else
        vm->qemu->api->timer_set(vm->memory.watch_timer, 0);
}

/* --- layouts ----------------------------------------------------------------------------------- */

/* The epoch's layout is what the monitor shows. */
static void confirm(struct vm *vm) {
    struct memory *memory = &vm->memory;

    if (root_confirmed(vm))
        return;
    if (memory->recheck || !vm->root.has_published) {
        memory->recheck = false;
        root_search(vm);
    }
}

static void propose(struct vm *vm) {
    struct memory *memory = &vm->memory;
    struct vmibus_sensor_layout layout = {.pid = vm->process.pid,
                                          .start_time = vm->process.start_time};

    memory_end(vm, VMIBUS_REASON_HOTPLUG);
    layout_ranges_move(&memory->proposed, &memory->layout.result);
    layout.ranges = memory->proposed.ranges;
    layout.n_ranges = memory->proposed.n_ranges;
    memory->recheck = false;
    if (vm->qemu->api->layout(vm->endpoint, &layout) < 0)
        retry(vm);
    else
        memory->proposing = true;
}

static const char strange_process[] =
    "its monitor was opened by another program, or another user than its process runs as, so its process is not known; let QEMU "
    "open the socket: -qmp unix:PATH,server=on,wait=off";

/* Whether the process is not known to be QEMU's: its memory is nobody's business then. */
static bool is_strange(const struct process *process) {
    return !process->pid || !process_is_own(process);
}

static void on_layout(void *userdata, enum layout_outcome outcome, const char *message) {
    struct vm *vm = userdata;
    struct memory *memory = &vm->memory;

    if (!vm_is_usable(vm))
        return;
    if (memory->again) {
        memory->again = false;
        vm->qemu->api->timer_set(memory->timer, RETRY_MIN_NS);
        return;
    }

    switch (outcome) {
    case LAYOUT_READ:
        if (is_strange(&vm->process)) {
            refuse(vm, VMIBUS_REASON_LAYOUT_UNPROVEN, strange_process);
            break;
        }
        if (memory->epoch && layout_ranges_equal(&memory->accepted, &memory->layout.result)) {
            memory->attempts = 0;
            confirm(vm);
        } else {
            propose(vm);
        }
        break;
    case LAYOUT_CONFIDENTIAL:
        refuse(vm, VMIBUS_REASON_CONFIDENTIAL, NULL);
        break;
    case LAYOUT_UNPROVEN:
        refuse(vm, VMIBUS_REASON_LAYOUT_UNPROVEN, message);
        retry(vm);
        break;
    case LAYOUT_CHANGED:
        if (!retry(vm))
            refuse(vm, VMIBUS_REASON_LAYOUT_UNPROVEN, message);
        break;
    case LAYOUT_LOST:
        retry(vm);
        break;
    }
}

void memory_read(struct vm *vm, bool recheck) {
    struct memory *memory = &vm->memory;

    memory->recheck |= recheck;
    if (!vm_is_usable(vm) || vm->lifecycle.settling)
        return;
    if (memory->layout.reading || memory->proposing) {
        memory->again = true;
        return;
    }
    vm->qemu->api->timer_set(memory->timer, 0);
    if (layout_read(&memory->layout, vm->qmp, on_layout, vm) < 0)
        retry(vm);
}

static void on_timer(void *userdata) {
    memory_read(userdata, false);
}

void memory_end(struct vm *vm, enum vmibus_reason reason) {
    struct memory *memory = &vm->memory;

    root_stop(vm);
    vm->qemu->api->timer_set(memory->timer, 0);
    memory->attempts = 0;
    if (memory->layout.reading)
        memory->again = true;
    if (!memory->epoch && (!memory->proposing || memory->outdated))
        return;
    /* Of a proposal under way too: it ends as soon as it has become an epoch. */
    memory->outdated = memory->proposing;
    memory->epoch = 0;
    layout_ranges_deinit(&memory->accepted);
    vm->qemu->api->end_epoch(vm->endpoint, reason);
}

void memory_reloaded(struct vm *vm) {
    memory_end(vm, VMIBUS_REASON_RELOADED);
    memory_read(vm, true);
}

void memory_lost(struct vm *vm) {
    root_stop(vm);
    vm->qemu->api->timer_set(vm->memory.timer, 0);
    vm->memory.again = vm->memory.watching = false;
    vm->memory.outdated = vm->memory.proposing;
    vm->memory.attempts = 0;
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

void memory_verdict(struct vm *vm, uint64_t epoch, enum vmibus_error error,
                    enum vmibus_reason reason) {
    struct memory *memory = &vm->memory;
    bool again = memory->again;

    if (!memory->proposing)
        return;
    memory->proposing = memory->again = false;
    if (memory->outdated) {
        /* It was proven, but of a machine that has been reset, or out of sight, since. */
        memory->outdated = false;
        if (!error)
            vm->qemu->api->end_epoch(vm->endpoint, VMIBUS_REASON_WITHDRAWN);
        memory_read(vm, false);
        return;
    }
    if (error) {
        tell(vm, explain(error, reason));
        retry(vm);
        return;
    }
    /* What it was when its memory was opened, it must still be. */
    if (is_strange(&vm->process)) {
        vm->qemu->api->end_epoch(vm->endpoint, VMIBUS_REASON_WITHDRAWN);
        refuse(vm, VMIBUS_REASON_LAYOUT_UNPROVEN, strange_process);
        return;
    }
    memory->attempts = 0;
    memory->epoch = epoch;
    tell(vm, NULL);
    watch(vm);
    layout_ranges_move(&memory->accepted, &memory->proposed);
    if (again)
        memory_read(vm, true);
    else
        root_search(vm);
}

void memory_ended(struct vm *vm, uint64_t epoch) {
    struct memory *memory = &vm->memory;

    if (!epoch || epoch != memory->epoch)
        return;
    memory->epoch = 0;
    layout_ranges_deinit(&memory->accepted);
    root_stop(vm);
    retry(vm);
}

int memory_init(struct vm *vm) {
    int r = vm->qemu->api->timer_new(vm->qemu->host, on_timer, vm, &vm->memory.timer);

    return r < 0 ? r
                 : vm->qemu->api->timer_new(vm->qemu->host, on_watch, vm, &vm->memory.watch_timer);
}

void memory_forget(struct vm *vm) {
    struct vmibus_sensor_timer *timer = vm->memory.timer, *watch_timer = vm->memory.watch_timer;

    if (timer)
        vm->qemu->api->timer_set(timer, 0);
    if (watch_timer)
        vm->qemu->api->timer_set(watch_timer, 0);
    layout_deinit(&vm->memory.layout);
    layout_ranges_deinit(&vm->memory.accepted);
    layout_ranges_deinit(&vm->memory.proposed);
    vm->memory = (struct memory){.timer = timer, .watch_timer = watch_timer};
}

void memory_deinit(struct vm *vm) {
    memory_forget(vm);
    vm->qemu->api->timer_free(vm->memory.timer);
    vm->qemu->api->timer_free(vm->memory.watch_timer);
    vm->memory.timer = vm->memory.watch_timer = NULL;
}
