/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "range.h"

#include <stdlib.h>
#include <string.h>

struct range *range_new(const struct vmibus_watch *watch, uint64_t interval) {
    struct range *range = calloc(1, sizeof(*range) + 2 * (size_t)watch->len);

    if (!range)
        return NULL;
    range->number = watch->watch;
    range->len = watch->len;
    range->address = watch->address;
    range->physical = watch->flags & VMIBUS_WATCH_PHYSICAL;
    range->cr3 = watch->cr3;
    range->interval = interval;
    range->told = range->octets;
    range->seen = range->octets + watch->len;
    return range;
}

struct range *range_free(struct range *range) {
    free(range);
    return NULL;
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static int read_virtual(struct range *range, struct vmibus_guest_ram *ram, uint8_t *scratch) {
    const struct vmibus_guest_reader reader = vmibus_guest_ram_reader(ram);
    struct vmibus_guest_translation fault = {};
    size_t done = 0;
    int r = vmibus_guest_read(&reader, &range->root, range->address, scratch, range->len, &done, &fault);

    range->fault = range->address + done;
    range->level = fault.level;
    return r;
}

void range_look(struct range *range, struct vmibus_guest_ram *ram, uint8_t *scratch) {
    range->fault = range->address;
    range->level = 0;
    range->result = range->physical ? vmibus_guest_ram_read(ram, range->address, scratch, range->len)
                                    : read_virtual(range, ram, scratch);
    if (range->result || memcmp(range->seen, scratch, range->len) == 0)
        return;
    memcpy(range->seen, scratch, range->len);
    if (range->looks < UINT32_MAX)
        range->looks++;
}

void range_refuse(const struct range *range, struct vmibus_ack *ack) {
    enum vmibus_reason reason = VMIBUS_REASON_NONE;

    switch (range->result) {
    case VMIBUS_GUEST_NOT_PRESENT:
        reason = VMIBUS_REASON_NOT_PRESENT;
        break;
    case VMIBUS_GUEST_RESERVED_BITS:
        reason = VMIBUS_REASON_RESERVED_BITS;
        break;
    case VMIBUS_GUEST_OUTSIDE_RAM:
        reason = VMIBUS_REASON_OUTSIDE_RAM;
        break;
    case VMIBUS_GUEST_TRUNCATED:
        reason = VMIBUS_REASON_BACKING_CHANGED;
        break;
    case VMIBUS_GUEST_NON_CANONICAL:
        ack->error = VMIBUS_ERROR_VALIDATION;
        ack->reason = VMIBUS_REASON_BAD_ADDRESS;
        ack->value = range->fault;
        return;
    default:
        ack->error = VMIBUS_ERROR_IO;
        ack->reason = VMIBUS_REASON_SENSOR_FAILED;
        ack->value = range->result < 0 ? (uint64_t)-range->result : 0;
        return;
    }
    ack->error = VMIBUS_ERROR_TRANSLATION;
    ack->reason = (uint16_t)reason;
    ack->value = range->fault;
    ack->level = range->level;
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

void range_begin(struct range *range) {
    memcpy(range->told, range->seen, range->len);
    range->looks = 0;
}

static uint32_t at_most(uint32_t len, uint32_t shown, struct vmibus_watch_changed *changed) {
    if (len <= shown)
        return len;
    changed->flags |= VMIBUS_WATCH_CHANGE_CUT;
    return shown;
}

/* What was there is all that can be shown. */
static bool compose_unreadable(const struct range *range, uint32_t shown, struct vmibus_watch_changed *changed, uint8_t *tail,
                               size_t *tail_length) {
    if (range->told_unreadable)
        return false;
    changed->flags = VMIBUS_WATCH_CHANGE_UNREADABLE;
    changed->address = range->address;
    changed->len = range->len;
    *tail_length = at_most(range->len, 2 * shown, changed);
    memcpy(tail, range->told, *tail_length);
    return true;
}

bool range_compose(const struct range *range, uint32_t shown, struct vmibus_frame *frame, uint8_t *tail, size_t *tail_length) {
    struct vmibus_watch_changed *changed = &frame->watch_changed;
    uint32_t first = 0, last = range->len;

    *frame = (struct vmibus_frame){.header = {.kind = VMIBUS_KIND_WATCH_CHANGED},
                                   .watch_changed = {.watch = range->number, .looks = range->looks ? range->looks : 1}};
    *tail_length = 0;
    if (range->result)
        return compose_unreadable(range, shown, changed, tail, tail_length);
    if (range->told_unreadable)
        changed->flags = VMIBUS_WATCH_CHANGE_READABLE;
    while (first < last && range->told[first] == range->seen[first])
        first++;
    while (last > first && range->told[last - 1] == range->seen[last - 1])
        last--;
    changed->address = range->address + (first < last ? first : 0);
    changed->len = last - first;
    shown = at_most(changed->len, shown, changed);
    memcpy(tail, range->told + first, shown);
    memcpy(tail + shown, range->seen + first, shown);
    *tail_length = 2 * (size_t)shown;
    return changed->len || changed->flags;
}

void range_told(struct range *range) {
    range->told_unreadable = range->result != 0;
    if (!range->told_unreadable)
        memcpy(range->told, range->seen, range->len);
    range->looks = 0;
}
