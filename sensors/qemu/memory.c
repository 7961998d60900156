/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Epochs.  At most one of three things is in progress: a reading, a verdict on a proposal, or a
 * pause before another reading.  What happens meanwhile is noted, and the reading repeated.
 */
#include "vm.h"

#define RETRY_MIN_NS (100 * NANOSECONDS_PER_MS)
#define RETRY_MAX_NS (2000 * NANOSECONDS_PER_MS)

static void retry(struct vm *vm) {
    struct memory *memory = &vm->memory;
    uint64_t delay;

    if (++memory->attempts > MEMORY_ATTEMPTS_BOUND)
        return;
    delay = RETRY_MIN_NS << memory->attempts;
    vm->qemu->api->timer_set(memory->timer, delay < RETRY_MAX_NS ? delay : RETRY_MAX_NS);
}

/* Tells why there is no layout, and thus no memory context. */
static void refuse(struct vm *vm, enum vmibus_reason reason) {
    const struct vmibus_mem_root none = {.reason = (uint16_t)reason};

    memory_end(vm, reason);
    vm->qemu->api->root(vm->endpoint, &none);
}

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

static void on_layout(void *userdata, enum layout_outcome outcome, const char *message) {
    struct vm *vm = userdata;
    struct memory *memory = &vm->memory;

    (void)message;
    if (!vm_is_usable(vm))
        return;
    if (memory->again) {
        memory->again = false;
        vm->qemu->api->timer_set(memory->timer, RETRY_MIN_NS);
        return;
    }

    switch (outcome) {
    case LAYOUT_READ:
        if (!vm->process.pid) {
            refuse(vm, VMIBUS_REASON_LAYOUT_UNPROVEN);
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
        refuse(vm, VMIBUS_REASON_CONFIDENTIAL);
        break;
    case LAYOUT_UNPROVEN:
        refuse(vm, VMIBUS_REASON_LAYOUT_UNPROVEN);
        retry(vm);
        break;
    case LAYOUT_CHANGED:
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
    vm->memory.again = false;
    vm->memory.outdated = vm->memory.proposing;
    vm->memory.attempts = 0;
}

void memory_verdict(struct vm *vm, uint64_t epoch, enum vmibus_error error,
                    enum vmibus_reason reason) {
    struct memory *memory = &vm->memory;
    bool again = memory->again;

    (void)reason;
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
        retry(vm);
        return;
    }
    memory->attempts = 0;
    memory->epoch = epoch;
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
    return vm->qemu->api->timer_new(vm->qemu->host, on_timer, vm, &vm->memory.timer);
}

void memory_forget(struct vm *vm) {
    struct vmibus_sensor_timer *timer = vm->memory.timer;

    if (timer)
        vm->qemu->api->timer_set(timer, 0);
    layout_deinit(&vm->memory.layout);
    layout_ranges_deinit(&vm->memory.accepted);
    layout_ranges_deinit(&vm->memory.proposed);
    vm->memory = (struct memory){.timer = timer};
}

void memory_deinit(struct vm *vm) {
    memory_forget(vm);
    vm->qemu->api->timer_free(vm->memory.timer);
    vm->memory.timer = NULL;
}
