/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/plan.h"

#include <errno.h>

#include "memory/answer.h"
#include "memory/tables.h"
#include "util/fault.h"

/* So many pages are worth remembering tables for. */
#define MANY_PAGES 8u

/* An extent being planned. */
struct planning {
    struct write *write;
    const struct vmibus_guest_reader *reader;
    uint32_t extent;
    uint32_t at;            /* octets of the write before the next piece */
    size_t first;           /* piece */
    struct vmibus_ack ack;  /* what is wrong with the extent, in an ACK's words */
};

/* Octets that lie one after the other in the host too become one piece. */
static void add_piece(struct planning *planning, size_t range, uint64_t skip, uint32_t len) {
    struct write *write = planning->write;
    struct write_piece *last = write->n_pieces > planning->first ? &write->pieces[write->n_pieces - 1] : NULL;

    if (last && last->range == range && last->skip + last->len == skip && last->len + len <= WRITE_PIECE) {
        last->len += len;
    } else {
        write->pieces[write->n_pieces++] = (struct write_piece){
            .skip = skip,
            .len = len,
            .at = planning->at,
            .range = (uint16_t)range,
            .extent = (uint16_t)planning->extent,
        };
    }
    planning->at += len;
}

/* Whoever chooses the tables chooses what a virtual address means: to policy only the kernel's own mean something. */
static bool is_of_kernel(const struct write *write) {
    return write->root.levels && write->root.cr3 == write->memctx->root.root.cr3;
}

/* What policy lets be written where; what it protects is looked for once all is planned. */
static uint16_t check_place(const struct planning *planning, uint64_t gpa, uint64_t gva, uint64_t len, struct vmibus_ack *ack) {
    struct write *write = planning->write;
    const struct write_stretch stretch = {.is_virtual = is_of_kernel(write), .gva = gva, .gpa = gpa, .len = len};

    if (write_allowance_permits(write->allowance, &stretch, &write->protect))
        return answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE, gva);
    return 0;
}

/* Adds octets that lie one after the other in the guest's physical memory. */
static uint16_t add_physical(struct planning *planning, uint64_t gpa, uint64_t gva, uint64_t len) {
    struct write *write = planning->write;
    struct vmibus_ack *ack = &planning->ack;

    while (len > 0) {
        ptrdiff_t index = memctx_locate(write->memctx, gpa);
        const struct vmibus_ram_range *range;
        uint64_t skip, step;

        if (index < 0)
            return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM, gva);
        range = &write->memctx->ranges[index];
        if (range->flags & VMIBUS_RANGE_READ_ONLY)
            return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_ROM, gva);
        skip = gpa - range->gpa;
        step = range->len - skip < len ? range->len - skip : len;
        if (step > WRITE_PIECE)
            step = WRITE_PIECE;
        if (check_place(planning, gpa, gva, step, ack))
            return ack->error;
        add_piece(planning, (size_t)index, skip, (uint32_t)step);
        gpa += step;
        gva += step;
        len -= step;
    }
    return 0;
}

static uint16_t refuse_walk(struct planning *planning, int r, uint64_t gva, uint8_t level) {
    struct vmibus_ack *ack = &planning->ack;

    if (answer_refuse_walk(ack, r, gva, level))
        return ack->error;
    if (r != VMIBUS_GUEST_TRUNCATED)
        return write_refuse_errno(planning->write, ack, r);
    planning->write->end_epoch = VMIBUS_REASON_BACKING_CHANGED;
    return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_BACKING_CHANGED, gva);
}

/* Where an extent begins, and whether it may begin there. */
static uint16_t begin_at(struct planning *planning, uint64_t gpa) {
    const struct write *write = planning->write;

    write->results[planning->extent].gpa = gpa;
    if (write->expect_gpa && write->extents[planning->extent].gpa != gpa)
        return answer_refuse(&planning->ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_MOVED, gpa);
    return 0;
}

/* Adds what lies in one page, in steps of the smallest: a large one must not make more pieces than there is room for. */
static uint16_t add_page(struct planning *planning, uint64_t gva, uint64_t left, uint64_t *taken) {
    const struct write *write = planning->write;
    struct vmibus_guest_translation translation = {};
    int r = fault_hit(FAULT_TRANSLATE);

    if (r == 0)
        r = vmibus_guest_translate(planning->reader, &write->root, gva, &translation);
    if (r)
        return refuse_walk(planning, r, gva, translation.level);
    planning->ack.level = translation.level;
    if (gva == write->extents[planning->extent].gva && begin_at(planning, translation.gpa))
        return planning->ack.error;
    if (!(translation.rights & VMIBUS_GUEST_WRITABLE) && !write->allow_read_only)
        return answer_refuse(&planning->ack, VMIBUS_ERROR_READ_ONLY_PAGE, VMIBUS_REASON_NONE, gva);
    *taken = MEMCTX_PAGE - gva % MEMCTX_PAGE;
    if (left < *taken)
        *taken = left;
    return add_physical(planning, translation.gpa, gva, *taken);
}

static uint16_t plan_extent(struct planning *planning) {
    const struct vmibus_write_extent *extent = &planning->write->extents[planning->extent];
    uint64_t taken = 0;

    if (!planning->write->root.levels) {
        if (begin_at(planning, extent->gva))
            return planning->ack.error;
        return add_physical(planning, extent->gva, extent->gva, extent->len);
    }
    for (uint64_t done = 0; done < extent->len; done += taken)
        if (add_page(planning, extent->gva + done, extent->len - done, &taken))
            return planning->ack.error;
    return 0;
}

/* The first extent that is wrong is the command's answer. */
static void note_refusal(const struct planning *planning, struct vmibus_ack *ack) {
    struct vmibus_extent_result *result = &planning->write->results[planning->extent];

    result->error = planning->ack.error;
    result->reason = planning->ack.reason;
    result->value = planning->ack.value;
    result->level = planning->ack.level;
    if (ack->error)
        return;
    ack->level = planning->ack.level;
    answer_refuse(ack, (enum vmibus_error)result->error, (enum vmibus_reason)result->reason,
                  result->value);
}

static uint16_t plan_extents(struct write *write, const struct vmibus_guest_reader *reader,
                             struct vmibus_ack *ack) {
    struct planning planning = {.write = write, .reader = reader};

    write->n_pieces = 0;
    write->protect = 0;
    for (uint32_t i = 0, at = 0; i < write->n_extents; at += write->extents[i].len, i++) {
        planning.extent = i;
        planning.at = at;
        planning.first = write->n_pieces;
        planning.ack = (struct vmibus_ack){};
        write->results[i] = (struct vmibus_extent_result){};
        if (plan_extent(&planning)) {
            note_refusal(&planning, ack);
            write->n_pieces = planning.first;
        }
    }
    return ack->error;
}

/* On a worker an entry is a system call; on the loop's thread most are plain loads. */
static uint16_t plan_with_tables(struct write *write, const struct vmibus_guest_reader *guest,
                                 struct vmibus_ack *ack) {
    struct tables_reader tables;
    struct vmibus_guest_reader reader = tables_reader_init(&tables, guest);

    return plan_extents(write, &reader, ack);
}

uint16_t plan_make(struct write *write, const struct vmibus_guest_reader *reader,
                   struct vmibus_ack *ack) {
    if (!write->loads && write->len / MEMCTX_PAGE + write->n_extents >= MANY_PAGES)
        return plan_with_tables(write, reader, ack);
    return plan_extents(write, reader, ack);
}
