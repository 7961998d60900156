/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking at memory again and again: see stub_watch.h. */
#include "stub_watch.h"

#include <stdlib.h>
#include <string.h>

#include "stub_vm.h"

#define NS_PER_MS UINT64_C(1000000)
#define RANGE_MAXIMUM 65536u
#define TOLD_MAXIMUM 4096u /* octets of a change that its event shows */

struct stub_watch {
    struct stub_watch *next;
    uint32_t number;
    uint32_t len;
    uint64_t address;
    uint64_t interval; /* nanoseconds */
    uint64_t due;
    uint8_t seen[];
};

static void arm(struct stub_vm *vm) {
    uint64_t now = vm->stub->api->now(), due = UINT64_MAX;

    for (const struct stub_watch *watch = vm->watches; watch; watch = watch->next)
        due = watch->due < due ? watch->due : due;
    vm->stub->api->timer_set(vm->watch_timer, due == UINT64_MAX ? 0 : due > now ? due - now : 1);
}

static void tell(struct stub_vm *vm, struct stub_watch *watch, const uint8_t *seen) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WATCH_CHANGED},
        .watch_changed = {.epoch = vm->epoch, .watch = watch->number, .looks = 1},
    };
    uint8_t tail[2 * TOLD_MAXIMUM];
    uint32_t first = 0, last = watch->len - 1, shown;

    while (watch->seen[first] == seen[first])
        first++;
    while (watch->seen[last] == seen[last])
        last--;
    frame.watch_changed.address = watch->address + first;
    frame.watch_changed.len = shown = last - first + 1;
    if (shown > TOLD_MAXIMUM) {
        shown = TOLD_MAXIMUM;
        frame.watch_changed.flags = VMIBUS_WATCH_CHANGE_CUT;
    }
    memcpy(tail, watch->seen + first, shown);
    memcpy(tail + shown, seen + first, shown);
    memcpy(watch->seen, seen, watch->len);
    (void)vm->stub->api->publish(vm->endpoint, &frame, tail, 2 * (size_t)shown);
}

static void look(void *userdata) {
    struct stub_vm *vm = userdata;
    uint8_t seen[RANGE_MAXIMUM];
    uint64_t now = vm->stub->api->now();

    for (struct stub_watch *watch = vm->watches; watch; watch = watch->next) {
        if (watch->due > now)
            continue;
        watch->due = now + watch->interval;
        if (vm->epoch && stub_ram_read(vm->ram, watch->address, seen, watch->len) == 0 &&
            memcmp(seen, watch->seen, watch->len) != 0)
            tell(vm, watch, seen);
    }
    arm(vm);
}

static void refuse(struct vmibus_ack *ack, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    ack->error = (uint16_t)error;
    ack->reason = (uint16_t)reason;
    ack->value = value;
}

static void execute_add(struct stub_vm *vm, const struct vmibus_watch *command, struct vmibus_ack *ack) {
    uint32_t ms = command->interval_ms > STUB_WATCH_MS ? command->interval_ms : STUB_WATCH_MS;
    struct stub_watch *watch;

    if (!(command->flags & VMIBUS_WATCH_PHYSICAL)) {
        refuse(ack, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_BAD_FLAGS, command->flags);
        return;
    }
    if (!vm->epoch || (command->epoch && command->epoch != vm->epoch)) {
        refuse(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE, vm->epoch);
        return;
    }
    watch = vm->n_watches < STUB_WATCHES_MAXIMUM ? malloc(sizeof(*watch) + command->len) : NULL;
    if (!watch) {
        refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_WATCHES, STUB_WATCHES_MAXIMUM);
        return;
    }
    *watch = (struct stub_watch){.number = command->watch,
                                 .len = command->len,
                                 .address = command->address,
                                 .interval = ms * NS_PER_MS,
                                 .due = vm->stub->api->now() + ms * NS_PER_MS};
    if (stub_ram_read(vm->ram, watch->address, watch->seen, watch->len) < 0) {
        free(watch);
        refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM, command->address);
        return;
    }
    watch->next = vm->watches;
    vm->watches = watch;
    vm->n_watches++;
    ack->epoch = vm->epoch;
    arm(vm);
}

static void execute_remove(struct stub_vm *vm, uint32_t number, struct vmibus_ack *ack) {
    for (struct stub_watch **link = &vm->watches, *watch; (watch = *link); link = &watch->next)
        if (watch->number == number) {
            *link = watch->next;
            free(watch);
            vm->n_watches--;
            arm(vm);
            return;
        }
    refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_WATCH, number);
}

void stub_watch_execute(struct stub_vm *vm, const struct vmibus_frame *command, struct vmibus_ack *ack) {
    if (command->watch.operation == VMIBUS_WATCH_OPERATION_REMOVE)
        execute_remove(vm, command->watch.watch, ack);
    else if (command->watch.operation == VMIBUS_WATCH_OPERATION_ADD)
        execute_add(vm, &command->watch, ack);
}

int stub_watches_init(struct stub_vm *vm) {
    return vm->stub->api->timer_new(vm->stub->host, look, vm, &vm->watch_timer);
}

void stub_watches_drop(struct stub_vm *vm) {
    while (vm->watches) {
        struct stub_watch *watch = vm->watches;

        vm->watches = watch->next;
        free(watch);
    }
    vm->n_watches = 0;
    if (vm->watch_timer)
        vm->stub->api->timer_set(vm->watch_timer, 0);
}

void stub_watches_deinit(struct stub_vm *vm) {
    stub_watches_drop(vm);
    vm->stub->api->timer_free(vm->watch_timer);
}
