/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/write.h"

#include <errno.h>
#include <string.h>

#include "memory/answer.h"
#include "memory/plan.h"
#include "memory/reader.h"
#include "memory/writer.h"
#include "util/clock.h"

size_t write_pieces(uint64_t gva, uint32_t len) {
    return (size_t)((gva % MEMCTX_PAGE + len + MEMCTX_PAGE - 1) / MEMCTX_PAGE);
}

bool write_needs_copy(uint64_t gva, uint32_t len, bool expects) {
    /* Within one page the host's kernel writes all or nothing. */
    return expects || write_pieces(gva, len) > 1;
}

uint16_t write_refuse_errno(struct write *write, struct vmibus_ack *ack, int r) {
    if (r == -ESRCH) {
        write->end_epoch = VMIBUS_REASON_EXIT;
        return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_EXIT, 0);
    }
    return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
}

static uint16_t refuse_stale(struct write *write, struct vmibus_ack *ack, uint16_t reason) {
    write->end_epoch = reason;
    return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, reason, 0);
}

/* --- the gates at commit ----------------------------------------------------------------------- */

/* A write past the end of a file makes it longer, so the end is looked at before. */
static uint16_t check_backing(struct write *write, struct vmibus_ack *ack) {
    const struct ram_object *object, *looked_at = NULL;
    int r;

    for (size_t i = 0; i < write->n_pieces; i++) {
        object = &write->memctx->objects[write->memctx->ranges[write->pieces[i].range].object];
        if (object == looked_at)
            continue;
        r = ram_object_is_whole(object);
        if (r < 0)
            return write_refuse_errno(write, ack, r);
        if (r == 0)
            return refuse_stale(write, ack, VMIBUS_REASON_BACKING_CHANGED);
        looked_at = object;
    }
    return 0;
}

static uint16_t check_canary(struct write *write, const struct vmibus_guest_reader *reader,
                             struct vmibus_ack *ack) {
    int r;

    if (!memctx_is_ready(write->memctx))
        return 0;
    r = canary_glance(&write->memctx->canary, reader);
    if (r == CANARY_CHANGED)
        return refuse_stale(write, ack, VMIBUS_REASON_CANARY);
    return r < 0 ? write_refuse_errno(write, ack, r) : 0;
}

static uint16_t check_word(struct write *write, struct vmibus_ack *ack) {
    uint64_t now = clock_now();
    uint16_t reason;

    reason = fence_check(write->fence, now);
    if (reason)
        return answer_refuse(ack, VMIBUS_ERROR_STALE_TOKEN, reason, 0);
    reason = memctx_ended(write->memctx);
    if (reason)
        return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, reason, 0);
    reason = atomic_load_explicit(write->busy, memory_order_acquire);
    if (reason)
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, reason, 0);
    if (now > write->deadline)
        return answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
    return 0;
}

/* --- the octets -------------------------------------------------------------------------------- */

static uint16_t take_copy(struct write *write, struct vmibus_ack *ack) {
    uint8_t *at = write->copy;

    for (size_t i = 0; i < write->n_pieces; i++) {
        const struct write_piece *piece = &write->pieces[i];
        int r = memory_read_range(write->memctx, piece->range, piece->skip, at, piece->len);

        if (r == VMIBUS_GUEST_TRUNCATED)
            return refuse_stale(write, ack, VMIBUS_REASON_BACKING_CHANGED);
        if (r < 0)
            return write_refuse_errno(write, ack, r);
        at += piece->len;
    }
    return 0;
}

static uint16_t compare(const struct write *write, struct vmibus_ack *ack) {
    uint64_t i = 0;

    if (memcmp(write->copy, write->expect, write->len) == 0)
        return 0;
    while (write->copy[i] == write->expect[i])
        i++;
    return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED, i);
}

/* Puts back what was there in the first `written` octets. Returns how many octets could not be put back. */
static uint64_t undo(const struct write *write, uint64_t written) {
    uint64_t at = 0, lost = 0;

    for (size_t i = 0; i < write->n_pieces && at < written; i++) {
        const struct write_piece *piece = &write->pieces[i];
        uint64_t len = piece->len < written - at ? piece->len : written - at;
        size_t done = 0;

        if (!write->copy || writer_write(write->memctx, piece->range, piece->skip, write->copy + at,
                                         (size_t)len, &done) < 0)
            lost += len - done;
        at += len;
    }
    return lost;
}

static uint16_t undo_and_refuse(struct write *write, struct vmibus_ack *ack, int r,
                                uint64_t written) {
    if (r != -ESRCH)
        ack->count = undo(write, written);
    if (ack->count)
        return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_PARTIAL, (uint64_t)-r);
    return write_refuse_errno(write, ack, r);
}

static uint16_t move(struct write *write, struct vmibus_ack *ack) {
    uint64_t written = 0;

    for (size_t i = 0; i < write->n_pieces; i++) {
        const struct write_piece *piece = &write->pieces[i];
        size_t done;
        int r = writer_write(write->memctx, piece->range, piece->skip, write->source + written,
                             piece->len, &done);

        written += done;
        if (r < 0)
            return undo_and_refuse(write, ack, r, written);
    }
    ack->count = written;
    return 0;
}

void write_execute(struct write *write, struct vmibus_ack *ack) {
    struct memory_reader context;
    struct vmibus_guest_reader reader =
        memory_reader_init(&context, write->memctx, write->loads, ack->received);

    if (plan_make(write, &reader, ack))
        return;
    if (write->copy && take_copy(write, ack))
        return;
    if (check_backing(write, ack) || check_canary(write, &reader, ack) || check_word(write, ack))
        return;
    if (write->expect && compare(write, ack))
        return;
    if (!write->dry_run)
        move(write, ack);
}
