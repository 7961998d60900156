/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/read.h"

#include <errno.h>

#include "memory/answer.h"
#include "memory/reader.h"
#include "util/clock.h"

/* Octets that lie one after the other in one range, not copied yet. */
struct run {
    size_t range;
    uint64_t skip;  /* octets of the range before them */
    size_t len;
};

static uint16_t refuse_stale(struct read *read, struct vmibus_ack *ack, uint16_t reason) {
    read->end_epoch = reason;
    return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, reason, 0);
}

/* What the host says: VMIBUS_GUEST_TRUNCATED or a negative errno. */
static uint16_t refuse_host(struct read *read, struct vmibus_ack *ack, int r) {
    if (r == VMIBUS_GUEST_TRUNCATED)
        return refuse_stale(read, ack, VMIBUS_REASON_BACKING_CHANGED);
    if (r == -ESRCH)
        return refuse_stale(read, ack, VMIBUS_REASON_EXIT);
    return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
}

static uint16_t check_epoch(struct read *read, const struct vmibus_guest_reader *reader,
                            struct vmibus_ack *ack) {
    uint16_t reason = memctx_ended(read->memctx);
    int r;

    if (reason)
        return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, reason, 0);
    if (!memctx_is_ready(read->memctx))
        return 0;
    r = canary_glance(&read->memctx->canary, reader);
    if (r == CANARY_CHANGED)
        return refuse_stale(read, ack, VMIBUS_REASON_CANARY);
    return r < 0 ? refuse_host(read, ack, r) : 0;
}

/* --- one page after the other ------------------------------------------------------------------ */

static uint16_t refuse_walk(struct read *read, int r, uint64_t gva, uint8_t level,
                            struct vmibus_ack *ack) {
    return answer_refuse_walk(ack, r, gva, level) ? ack->error : refuse_host(read, ack, r);
}

/* Where the octets at an address are, up to the end of its page or of its range. */
static uint16_t find(struct read *read, const struct vmibus_guest_reader *reader, uint64_t gva,
                     uint64_t left, struct run *found, struct vmibus_ack *ack) {
    struct vmibus_guest_translation translation = {.gpa = gva};
    const struct vmibus_ram_range *range;
    ptrdiff_t index;
    int r;

    if (read->root.levels) {
        r = vmibus_guest_translate(reader, &read->root, gva, &translation);
        if (r)
            return refuse_walk(read, r, gva, translation.level, ack);
        if (left > MEMCTX_PAGE - gva % MEMCTX_PAGE)
            left = MEMCTX_PAGE - gva % MEMCTX_PAGE;
    }
    index = memctx_locate(read->memctx, translation.gpa);
    if (index < 0)
        return refuse_walk(read, VMIBUS_GUEST_OUTSIDE_RAM, gva, translation.level, ack);
    range = &read->memctx->ranges[index];
    *found = (struct run){.range = (size_t)index, .skip = translation.gpa - range->gpa};
    found->len = (size_t)(left < range->len - found->skip ? left : range->len - found->skip);
    return 0;
}

static uint16_t copy(struct read *read, struct run *run, uint64_t *done, struct vmibus_ack *ack) {
    int r = 0;

    if (run->len)
        r = memory_read_range(read->memctx, run->range, run->skip, read->target + *done, run->len);
    if (r)
        return refuse_host(read, ack, r);
    *done += run->len;
    run->len = 0;
    return 0;
}

/* Pages that lie one after the other in the host too are copied in one go. Returns how many octets are good. */
static uint64_t copy_all(struct read *read, const struct vmibus_guest_reader *reader,
                         struct vmibus_ack *ack) {
    struct vmibus_ack fault = {};
    struct run run = {}, found;
    uint64_t done = 0;

    while (done + run.len < read->len) {
        uint64_t at = done + run.len;

        if (find(read, reader, read->gva + at, read->len - at, &found, &fault))
            break;
        if (run.len && run.range == found.range && run.skip + run.len == found.skip) {
            run.len += found.len;
            continue;
        }
        if (copy(read, &run, &done, ack))
            return done;
        run = found;
    }
    if (!copy(read, &run, &done, ack) && fault.error) {
        ack->level = fault.level;
        answer_refuse(ack, fault.error, fault.reason, fault.value);
    }
    return done;
}

void read_execute(struct read *read, struct vmibus_ack *ack) {
    struct memory_reader context;
    struct vmibus_guest_reader reader =
        memory_reader_init(&context, read->memctx, read->loads, ack->received);
    uint64_t done;

    if (check_epoch(read, &reader, ack))
        return;
    if (clock_now() > read->deadline) {
        answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
        return;
    }
    done = copy_all(read, &reader, ack);
    if (ack->error == VMIBUS_ERROR_STALE_EPOCH || check_epoch(read, &reader, ack)) {
        ack->level = 0;
        return;
    }
    ack->count = done;
}
