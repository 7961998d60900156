/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/plan.h"

#include <errno.h>

#include "memory/answer.h"

/* Adds octets that lie one after the other in the guest's physical memory. */
static uint16_t add_physical(struct write *write, uint64_t gpa, uint64_t gva, uint64_t len,
                             struct vmibus_ack *ack) {
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
        write->pieces[write->n_pieces++] = (struct write_piece){
            .range = (uint32_t)index,
            .len = (uint32_t)step,
            .skip = skip,
        };
        gpa += step;
        gva += step;
        len -= step;
    }
    return 0;
}

/* Pieces that lie one after the other in the host too become one. */
static void join_pieces(struct write *write) {
    struct write_piece *pieces = write->pieces;
    size_t n = 0;

    for (size_t i = 1; i < write->n_pieces; i++) {
        if (pieces[n].range == pieces[i].range && pieces[n].skip + pieces[n].len == pieces[i].skip)
            pieces[n].len += pieces[i].len;
        else
            pieces[++n] = pieces[i];
    }
    write->n_pieces = n + 1;
}

static uint16_t refuse_walk(struct write *write, int r, uint64_t gva,
                            const struct vmibus_guest_translation *translation,
                            struct vmibus_ack *ack) {
    ack->level = translation->level;
    switch (r) {
    case VMIBUS_GUEST_NOT_PRESENT:
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, gva);
    case VMIBUS_GUEST_RESERVED_BITS:
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_RESERVED_BITS, gva);
    case VMIBUS_GUEST_OUTSIDE_RAM:
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM, gva);
    case VMIBUS_GUEST_NON_CANONICAL:
        ack->level = 0;
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS, gva);
    case VMIBUS_GUEST_TRUNCATED:
        write->end_epoch = VMIBUS_REASON_BACKING_CHANGED;
        return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_BACKING_CHANGED, gva);
    default:
        return write_refuse_errno(write, ack, r);
    }
}

static uint16_t add_virtual(struct write *write, const struct vmibus_guest_reader *reader,
                            uint64_t gva, uint64_t left, uint64_t *taken, struct vmibus_ack *ack) {
    struct vmibus_guest_translation translation;
    int r = vmibus_guest_translate(reader, &write->root, gva, &translation);

    if (r)
        return refuse_walk(write, r, gva, &translation, ack);
    if (!(translation.rights & VMIBUS_GUEST_WRITABLE) && !write->allow_read_only) {
        ack->level = translation.level;
        return answer_refuse(ack, VMIBUS_ERROR_READ_ONLY_PAGE, VMIBUS_REASON_NONE, gva);
    }
    /* In steps of the smallest page, so that a large one cannot make more pieces than there is room for. */
    *taken = MEMCTX_PAGE - gva % MEMCTX_PAGE;
    if (left < *taken)
        *taken = left;
    ack->level = translation.level;
    return add_physical(write, translation.gpa, gva, *taken, ack);
}

uint16_t plan_make(struct write *write, const struct vmibus_guest_reader *reader,
                   struct vmibus_ack *ack) {
    uint64_t taken = write->len;
    uint16_t error = 0;

    write->n_pieces = 0;
    for (uint64_t done = 0; !error && done < write->len; done += taken) {
        if (write->root.levels) {
            error = add_virtual(write, reader, write->gva + done, write->len - done, &taken, ack);
        } else {
            error = add_physical(write, write->gva, write->gva, write->len, ack);
        }
    }
    if (error)
        return error;
    ack->level = 0;
    join_pieces(write);
    return 0;
}
