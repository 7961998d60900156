/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/write.h"

#include <errno.h>
#include <string.h>

#include "memory/answer.h"
#include "memory/backing.h"
#include "memory/buffer.h"
#include "memory/copier.h"
#include "memory/plan.h"
#include "memory/reader.h"
#include "memory/writer.h"
#include "util/clock.h"

size_t write_pieces(uint64_t gva, uint32_t len) {
    return (size_t)((gva % MEMCTX_PAGE + len + MEMCTX_PAGE - 1) / MEMCTX_PAGE);
}

bool write_needs_copy(size_t n_pieces, bool expects, bool shared) {
    return expects || shared || n_pieces > 1;
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
        if (object == looked_at || !object->is_file || object->sealed)
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
        return answer_refuse(ack, fence_error(reason), reason, 0);
    reason = memctx_ended(write->memctx);
    if (reason)
        return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, reason, 0);
    reason = atomic_load_explicit(write->busy, memory_order_acquire);
    if (reason)
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, reason, 0);
    if (now > write->deadline)
        return answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
    if (write->still && !atomic_load_explicit(write->still, memory_order_acquire))
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, 0);
    return 0;
}

/* --- what is there ----------------------------------------------------------------------------- */

static uint16_t refuse_read(struct write *write, struct vmibus_ack *ack, int r) {
    if (r == VMIBUS_GUEST_TRUNCATED)
        return refuse_stale(write, ack, VMIBUS_REASON_BACKING_CHANGED);
    return write_refuse_errno(write, ack, r);
}

static uint16_t take_copies(struct write *write, struct vmibus_ack *ack) {
    for (size_t i = 0; i < write->n_pieces; i++) {
        const struct write_piece *piece = &write->pieces[i];
        int r = memory_read_range(write->memctx, piece->range, piece->skip, write->copy + piece->at,
                                  piece->len);

        if (r)
            return refuse_read(write, ack, r);
    }
    return 0;
}

/* Some octets to expect, in @a portion: what is compared is what is told, though the client may be changing it. */
static int get_expected(const struct write *write, uint32_t at, uint8_t *portion, uint32_t len) {
    if (write->buffer)
        return buffer_copy(write->buffer, write->expect_offset + at, portion, len);
    memcpy(portion, write->expect + at, len);
    return 0;
}

/* Offset of the first octet of an extent that differs, or its length. */
static int find_difference(const struct write *write, uint32_t at, uint32_t len, uint32_t *skip) {
    uint8_t portion[1024];
    int r;

    for (*skip = 0; *skip < len;) {
        uint32_t n = len - *skip < sizeof(portion) ? len - *skip : (uint32_t)sizeof(portion);

        r = get_expected(write, at + *skip, portion, n);
        if (r < 0)
            return r;
        if (memcmp(write->copy + at + *skip, portion, n) != 0) {
            for (uint32_t i = 0; i < n && write->copy[at + *skip] == portion[i]; i++)
                ++*skip;
            return 0;
        }
        *skip += n;
    }
    return 0;
}

static uint16_t compare(struct write *write, struct vmibus_ack *ack) {
    uint32_t at = 0, skip;

    for (uint32_t i = 0; i < write->n_extents; at += write->extents[i].len, i++) {
        int r = find_difference(write, at, write->extents[i].len, &skip);

        if (r < 0)
            return write_refuse_errno(write, ack, r);
        if (skip == write->extents[i].len)
            continue;
        write->results[i].error = VMIBUS_ERROR_VALIDATION;
        write->results[i].reason = VMIBUS_REASON_TARGET_CHANGED;
        write->results[i].value = skip;
        if (!ack->error)
            answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED, skip);
    }
    return ack->error;
}

/* --- what policy protects ------------------------------------------------------------------------ */

static bool is_same_memory(const struct memctx *memctx, const struct vmibus_ram_range *a, const struct vmibus_ram_range *b) {
    const struct ram_object *left = &memctx->objects[a->object], *right = &memctx->objects[b->object];

    return left == right || (left->is_file && right->is_file && left->file.inode == right->file.inode &&
                             left->file.device_major == right->file.device_major &&
                             left->file.device_minor == right->file.device_minor);
}

/* RAM that the guest has at a second address too is refused: the tables may name it by either. */
static bool has_alias(const struct memctx *memctx, const struct write_piece *piece) {
    const struct vmibus_ram_range *range = &memctx->ranges[piece->range];
    uint64_t first = range->offset + piece->skip, end = first + piece->len;

    for (size_t i = 0; i < memctx->n_ranges; i++) {
        const struct vmibus_ram_range *other = &memctx->ranges[i];

        if (other != range && is_same_memory(memctx, other, range) && other->offset < end && first < other->offset + other->len)
            return true;
    }
    return false;
}

static int find_protected(const struct write *write, const struct vmibus_guest_reader *reader, uint64_t *gpa) {
    const struct memctx *memctx = write->memctx;
    const struct vmibus_guest_root *kernel = &memctx->root.root;

    for (size_t i = 0; i < write->n_pieces; i++) {
        const struct write_piece *piece = &write->pieces[i];

        write->spans[i] = (struct protect_span){memctx->ranges[piece->range].gpa + piece->skip, piece->len};
        if (has_alias(memctx, piece)) {
            *gpa = write->spans[i].gpa;
            return PROTECT_HIT;
        }
    }
    return protect_check(reader, kernel, write->root.levels ? &write->root : kernel, write->protect, write->spans,
                         write->n_pieces, gpa);
}

/* Without a root nobody can tell where the kernel's text and tables are. */
static uint16_t check_protected(struct write *write, const struct vmibus_guest_reader *reader, struct vmibus_ack *ack) {
    uint64_t gpa;
    int r;

    if (!write->protect)
        return 0;
    if (!memctx_is_ready(write->memctx))
        return answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_PROTECTED, write->extents[0].gva);
    r = find_protected(write, reader, &gpa);
    if (r == PROTECT_HIT)
        return answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_PROTECTED, gpa);
    return r ? refuse_read(write, ack, r) : 0;
}

/* --- moving ------------------------------------------------------------------------------------ */

static const struct ram_object *object_of(const struct write *write, const struct write_piece *piece) {
    return &write->memctx->objects[write->memctx->ranges[piece->range].object];
}

/* A file that was cut off meanwhile would grow again; what was there went with its end. */
static bool can_undo(const struct write *write, const struct write_piece *piece) {
    uint64_t end = write->memctx->ranges[piece->range].offset + piece->skip + piece->len;

    return write->copy && ram_object_reaches(object_of(write, piece), end) == 1;
}

/* Puts back what was there before n_pieces pieces, the last of which was written up to @a done. */
static void undo(struct write *write, size_t n_pieces, size_t done, struct vmibus_ack *ack) {
    for (size_t i = n_pieces; i-- > 0;) {
        const struct write_piece *piece = &write->pieces[i];
        size_t len = i + 1 == n_pieces ? done : piece->len, back = 0;

        if (len && can_undo(write, piece))
            (void)writer_write(write->memctx, piece->range, piece->skip, write->copy + piece->at, len, &back);
        write->results[piece->extent].written += (uint32_t)(len - back);
        ack->count += len - back;
    }
}

static uint16_t refuse_write(struct write *write, struct vmibus_ack *ack, int r) {
    uint16_t error = refuse_read(write, ack, r);

    return ack->count ? answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_PARTIAL, r < 0 ? (uint64_t)-r : EIO) : error;
}

/* The results tell who failed, and what stays written. */
static void undo_and_refuse(struct write *write, struct vmibus_ack *ack, int r, size_t n_pieces, size_t done) {
    const struct write_piece *failed = &write->pieces[n_pieces - 1];

    if (r != -ESRCH) /* there is no memory any more */
        undo(write, n_pieces, done, ack);
    refuse_write(write, ack, r);
    for (uint32_t i = 0; i < write->n_extents; i++) {
        struct vmibus_extent_result *result = &write->results[i];

        if (i != failed->extent && !result->written)
            continue;
        result->error = ack->error;
        result->reason = ack->reason == VMIBUS_REASON_PARTIAL && !result->written ? VMIBUS_REASON_NONE : ack->reason;
        result->value = ack->value;
    }
}

/*
 * Pieces to be written at once, from one on, and how many octets they have: where nothing is copied, and the object cannot
 * be cut off in the middle, those that lie one after the other.
 */
static size_t gather(const struct write *write, size_t index, size_t *len) {
    const struct write_piece *first = &write->pieces[index];
    const struct ram_object *object = object_of(write, first);
    size_t n = 1;

    *len = first->len;
    if (write->copy || (object->is_file && !object->sealed))
        return n;
    for (const struct write_piece *piece = first + 1; index + n < write->n_pieces; piece++, n++) {
        if (piece->range != first->range || piece->skip != first->skip + *len)
            break;
        *len += piece->len;
    }
    return n;
}

/* A file that is cut off while a long write is under way would be made longer by the rest of it. */
static int move_pieces(struct write *write, size_t index, size_t len, size_t *done) {
    const struct write_piece *piece = &write->pieces[index];
    int r = index > 0 ? ram_object_is_whole(object_of(write, piece)) : 1;

    *done = 0;
    if (r <= 0)
        return r < 0 ? r : VMIBUS_GUEST_TRUNCATED;
    r = write->copier ? copier_wait(write->copier, index) : 0;
    return r ? r : writer_write(write->memctx, piece->range, piece->skip, write->source + piece->at, len, done);
}

/* The piece that moving n of them ended in; of what was done remains what was done of that one. */
static size_t find_end(const struct write *write, size_t index, size_t n, size_t *done) {
    for (; n > 1 && *done >= write->pieces[index].len; n--, index++)
        *done -= write->pieces[index].len;
    return index;
}

static void move(struct write *write, struct vmibus_ack *ack) {
    size_t len, done;

    for (size_t i = 0, n; i < write->n_pieces; i += n) {
        int r;

        n = gather(write, i, &len);
        r = move_pieces(write, i, len, &done);
        if (r) {
            i = find_end(write, i, n, &done);
            undo_and_refuse(write, ack, r, i + 1, done);
            return;
        }
    }
    for (uint32_t i = 0; i < write->n_extents; i++)
        write->results[i].written = write->extents[i].len;
    ack->count = write->len;
}

/*
 * A long write takes its time: what began meanwhile may have copied, or replaced, some of the memory
 * before and some after.  And a file that was cut off before the first octet moved has grown again by
 * it.  The octets stay, as ack->count tells, but nobody can promise them.
 */
static void check_overtaken(struct write *write, struct vmibus_ack *ack) {
    uint16_t busy = atomic_load_explicit(write->busy, memory_order_acquire);
    uint16_t ended = memctx_ended(write->memctx);
    bool went_on = write->still && !atomic_load_explicit(write->still, memory_order_acquire);

    if (check_backing(write, ack))
        return;
    if (ended)
        answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, ended, 0);
    else if (busy)
        answer_refuse(ack, VMIBUS_ERROR_BUSY, busy, 0);
    else if (went_on)
        answer_refuse(ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, 0);
}

/* What to expect is compared whole before anything moves; else what can fail is copied, a long write while it moves. */
static void choose_copy(struct write *write) {
    if (write->expects || write->dry_run || write->digest) {
        write->copier = NULL;
    } else if (write->copy && backing_cannot_fail(write)) {
        write->copier = NULL;
        write->copy = NULL;
    }
}

/* What is digested must be what is written: from here on nobody else can change it. */
static uint16_t take_source(struct write *write, struct vmibus_ack *ack) {
    int r;

    if (!write->buffer || !write->digest)
        return 0;
    r = buffer_copy(write->buffer, write->expect_offset + (write->expects ? write->len : 0), write->own_source, write->len);
    if (r < 0)
        return write_refuse_errno(write, ack, r);
    write->source = write->own_source;
    return 0;
}

static void commit(struct write *write, struct vmibus_ack *ack) {
    choose_copy(write);
    if (!write->dry_run && take_source(write, ack))
        return;
    if (write->copy && !write->copier && take_copies(write, ack))
        return;
    if (check_word(write, ack) || (write->expects && (compare(write, ack) || check_word(write, ack))))
        return;
    if (write->dry_run)
        return;
    if (write->copier)
        copier_begin(write->copier, write);
    move(write, ack);
    if (write->copier)
        copier_end(write->copier);
    if (!ack->error)
        check_overtaken(write, ack);
}

/* What was revoked while it waited in line is found out first: it must not keep those behind it waiting. */
static uint16_t check(struct write *write, const struct vmibus_guest_reader *reader, struct vmibus_ack *ack) {
    if (!write->loads && check_word(write, ack))
        return ack->error;
    if (plan_make(write, reader, ack) || check_protected(write, reader, ack) || check_backing(write, ack) ||
        check_canary(write, reader, ack))
        return ack->error;
    return 0;
}

void write_execute(struct write *write, struct vmibus_ack *ack) {
    struct memory_reader context;
    struct vmibus_guest_reader reader =
        memory_reader_init(&context, write->memctx, write->loads, ack->received);

    if (check(write, &reader, ack) == 0)
        commit(write, ack);
    if (ack->error)
        write_refuse_results(write, ack);
}

void write_refuse_results(struct write *write, const struct vmibus_ack *ack) {
    bool told = false;

    for (uint32_t i = 0; i < write->n_extents; i++)
        told = told || write->results[i].error;
    for (uint32_t i = 0; i < write->n_extents; i++) {
        struct vmibus_extent_result *result = &write->results[i];

        if (result->error)
            continue;
        result->error = told ? 0 : ack->error;
        result->reason = told ? VMIBUS_REASON_OTHER_EXTENT : ack->reason;
        result->value = told ? 0 : ack->value;
    }
}
