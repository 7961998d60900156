/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/handover_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/memctx.h"
#include "memory/state.h"
#include "util/fds.h"

/* Of each record its own numbers, never reused. */
enum {
    MEMCTX_PLACE = 1, /* one that was written before: counted from 1 */
    MEMCTX_PROCESS_FD = 30,
    MEMCTX_MEMORY_FD = 31,
    MEMCTX_PAGEMAP_FD = 32,
    MEMCTX_MAPS_FD = 33,
    MEMCTX_ZEROS_FD = 34,
    MEMCTX_RANGES = 35,
    MEMCTX_ADDRESSES = 36,
    MEMCTX_PROCESS_RANGES = 37,
    MEMCTX_OBJECT = 38,
    MEMCTX_PAYER = 39, /* uid */
    MEMCTX_DEADLINE = 40,
};

enum {
    OBJECT_FD = 20,
};

static const struct handover_member memctx_members[] = {
    HANDOVER_MEMBER(2, struct memctx, epoch),
    HANDOVER_MEMBER(3, struct memctx, slot),
    HANDOVER_MEMBER(4, struct memctx, generation),
    HANDOVER_MEMBER(5, struct memctx, process.pid),
    HANDOVER_MEMBER(6, struct memctx, process.start_time),
    HANDOVER_MEMBER(7, struct memctx, ram_size),
    HANDOVER_MEMBER(8, struct memctx, access),
    HANDOVER_MEMBER(9, struct memctx, pending_reason),
    HANDOVER_MEMBER(10, struct memctx, root.root.cr3),
    HANDOVER_MEMBER(11, struct memctx, root.root.levels),
    HANDOVER_MEMBER(12, struct memctx, root.probe_gva),
    HANDOVER_MEMBER(13, struct memctx, root.note),
    HANDOVER_MEMBER(14, struct memctx, root.vcpu_cr3),
    HANDOVER_MEMBER(15, struct memctx, root.note_len),
    HANDOVER_MEMBER(16, struct memctx, root.evidence),
    HANDOVER_MEMBER(17, struct memctx, root.confidence),
    HANDOVER_MEMBER(18, struct memctx, canary.table),
    HANDOVER_MEMBER(19, struct memctx, canary.note),
    HANDOVER_MEMBER(20, struct memctx, canary.note_len),
    HANDOVER_MEMBER(21, struct memctx, canary.glance),
    HANDOVER_MEMBER(22, struct memctx, canary.glance_entry),
    HANDOVER_MEMBER(23, struct memctx, canary.octets),
    HANDOVER_MEMBER(24, struct memctx, canary.entries),
    HANDOVER_MEMBER(25, struct memctx, ready),
    HANDOVER_MEMBER(26, struct memctx, ended),
};

static const struct handover_member object_members[] = {
    HANDOVER_MEMBER(1, struct ram_object, is_file),
    HANDOVER_MEMBER(2, struct ram_object, file.device_major),
    HANDOVER_MEMBER(3, struct ram_object, file.device_minor),
    HANDOVER_MEMBER(4, struct ram_object, file.inode),
    HANDOVER_MEMBER(5, struct ram_object, writable),
    HANDOVER_MEMBER(6, struct ram_object, extent),
    HANDOVER_MEMBER(7, struct ram_object, base),
};

/* --- written ------------------------------------------------------------------------------------- */

static void put_object(struct handover_writer *writer, const struct ram_object *object) {
    handover_begin(writer, MEMCTX_OBJECT);
    PUT(writer, object_members, object);
    handover_put_fd(writer, OBJECT_FD, object->fd);
    handover_end(writer);
}

static void put_whole_memctx(struct handover_writer *writer, const struct memctx *memctx) {
    PUT(writer, memctx_members, memctx);
    handover_put_fd(writer, MEMCTX_PROCESS_FD, memctx->process_fd);
    handover_put_fd(writer, MEMCTX_MEMORY_FD, memctx->memory_fd);
    handover_put_fd(writer, MEMCTX_PAGEMAP_FD, memctx->pagemap_fd);
    handover_put_fd(writer, MEMCTX_MAPS_FD, memctx->maps_fd);
    handover_put_fd(writer, MEMCTX_ZEROS_FD, memctx->zeros_fd);
    handover_put(writer, MEMCTX_RANGES, memctx->ranges, memctx->n_ranges * sizeof(*memctx->ranges));
    handover_put(writer, MEMCTX_ADDRESSES, memctx->addresses, memctx->n_ranges * sizeof(*memctx->addresses));
    if (memctx->process_ranges)
        handover_put(writer, MEMCTX_PROCESS_RANGES, memctx->process_ranges, memctx->n_ranges * sizeof(*memctx->ranges));
    for (size_t i = 0; i < memctx->n_objects; i++)
        put_object(writer, &memctx->objects[i]);
    if (memctx->account)
        handover_put_number(writer, MEMCTX_PAYER, memctx->account->uid);
    if (memctx->retiring.authority)
        handover_put_number(writer, MEMCTX_DEADLINE, memctx->retiring.deadline);
}

/* Its place among those written, from 1; 0: it is not among them. */
static size_t find_place(const struct authority_handover *handover, const struct memctx *memctx) {
    for (size_t i = 0; i < handover->n_memctxs; i++)
        if (handover->memctxs[i] == memctx)
            return i + 1;
    return 0;
}

static bool remember(struct authority_handover *handover, struct memctx *memctx) {
    if (handover->n_memctxs == handover->capacity) {
        size_t capacity = 2 * handover->capacity + 16;
        struct memctx **memctxs = reallocarray(handover->memctxs, capacity, sizeof(*memctxs));

        if (!memctxs)
            return false;
        handover->memctxs = memctxs;
        handover->capacity = capacity;
    }
    handover->memctxs[handover->n_memctxs++] = memctx;
    return true;
}

void memctx_put(struct authority_handover *handover, struct handover_writer *writer, uint16_t tag, struct memctx *memctx) {
    size_t place = find_place(handover, memctx);

    handover_begin(writer, tag);
    if (place)
        handover_put_number(writer, MEMCTX_PLACE, place);
    else if (remember(handover, memctx_ref(memctx)))
        put_whole_memctx(writer, memctx);
    else
        writer->error = -ENOMEM;
    handover_end(writer);
}

/* --- read ---------------------------------------------------------------------------------------- */

/* An array of whole elements, as many as in the others of the context. */
static void *take_array(const struct handover_record *record, size_t size, size_t *n, bool is_first) {
    size_t count = record->length / size;
    void *array;

    if (record->length % size || count > MEMCTX_RANGES_MAX || count == 0 || (!is_first && count != *n)) {
        handover_wrong(record->handover, -EBADMSG);
        return NULL;
    }
    array = malloc(record->length);
    if (!array) {
        handover_wrong(record->handover, -ENOMEM);
        return NULL;
    }
    *n = count;
    return memcpy(array, record->octets, record->length);
}

static void take_object(struct memctx *memctx, const struct handover_record *record) {
    struct ram_object *object = &memctx->objects[memctx->n_objects], told = {.fd = -1};
    struct handover_records records = handover_in(record);
    struct handover_record member;
    int fd = -1, r;

    if (memctx->n_objects == MEMCTX_OBJECTS_MAX) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    while (handover_next(&records, &member))
        if (member.tag == OBJECT_FD && fd < 0)
            fd = handover_take_fd(&member);
        else
            (void)TAKE(&member, object_members, &told);
    ram_object_init(object);
    memctx->n_objects++;
    if (told.is_file && fd < 0)
        handover_wrong(record->handover, -EBADMSG);
    if (fd < 0 || record->handover->error) {
        fd_close(fd);
        *object = told;
        object->fd = -1;
        return;
    }
    r = told.is_file ? ram_object_consume_fd(object, fd, &told.file) : 0;
    if (r < 0) {
        handover_wrong(record->handover, r == -ESTALE || r == -EMEDIUMTYPE ? -EBADMSG : r);
        return;
    }
    if (!told.is_file) {
        *object = told;
        object->fd = fd;
    }
    object->base = told.base;
    object->extent = told.extent;
    if (told.is_file && (object->writable != told.writable || ram_object_is_whole(object) <= 0))
        handover_wrong(record->handover, -EBADMSG);
}

static void take_descriptor(const struct handover_record *record, int *fd) {
    if (*fd >= 0)
        handover_wrong(record->handover, -EBADMSG);
    else
        *fd = handover_take_fd(record);
}

/* What is read of a context besides its members. */
struct memctx_rest {
    size_t n_addresses, n_process_ranges;
    uint64_t payer, deadline;
};

static void take_part(struct memctx *memctx, struct memctx_rest *rest, const struct handover_record *record) {
    switch (record->tag) {
    case MEMCTX_PROCESS_FD:
        take_descriptor(record, &memctx->process_fd);
        break;
    case MEMCTX_MEMORY_FD:
        take_descriptor(record, &memctx->memory_fd);
        break;
    case MEMCTX_PAGEMAP_FD:
        take_descriptor(record, &memctx->pagemap_fd);
        break;
    case MEMCTX_MAPS_FD:
        take_descriptor(record, &memctx->maps_fd);
        break;
    case MEMCTX_ZEROS_FD:
        take_descriptor(record, &memctx->zeros_fd);
        break;
    case MEMCTX_RANGES:
        free(memctx->ranges);
        memctx->ranges = take_array(record, sizeof(*memctx->ranges), &memctx->n_ranges, true);
        break;
    case MEMCTX_ADDRESSES:
        free(memctx->addresses);
        memctx->addresses = take_array(record, sizeof(*memctx->addresses), &rest->n_addresses, true);
        break;
    case MEMCTX_PROCESS_RANGES:
        free(memctx->process_ranges);
        memctx->process_ranges = take_array(record, sizeof(*memctx->process_ranges), &rest->n_process_ranges, true);
        break;
    case MEMCTX_OBJECT:
        take_object(memctx, record);
        break;
    case MEMCTX_PAYER:
        rest->payer = handover_number_below(record, UINT32_MAX);
        break;
    case MEMCTX_DEADLINE:
        rest->deadline = handover_number(record);
        break;
    default:
        (void)TAKE(record, memctx_members, memctx);
        break;
    }
}

/* As layout.c leaves them: ascending, disjoint, within their objects. */
static bool ranges_are_sound(const struct memctx *memctx) {
    uint64_t end = 0;

    for (size_t i = 0; i < memctx->n_ranges; i++) {
        const struct vmibus_ram_range *range = &memctx->ranges[i];
        const struct ram_object *object;

        if (range->object >= memctx->n_objects || range->len == 0 || range->gpa < end ||
            range->gpa + (range->len - 1) < range->gpa ||
            range->offset + (range->len - 1) < range->offset)
            return false;
        object = &memctx->objects[range->object];
        if (object->is_file && (range->len > object->extent || range->offset > object->extent - range->len))
            return false;
        if (!object->is_file && memctx->memory_fd < 0)
            return false;
        end = range->gpa + range->len;
        if (end == 0 && i + 1 < memctx->n_ranges)
            return false;
    }
    return memctx->n_ranges > 0;
}

/* Of one that has ended nothing is open once only attachments hold it (memctx_unref()). */
static bool is_let_go(const struct memctx *memctx) {
    return memctx_ended(memctx) && memctx->n_objects == 0 && memctx->process_fd < 0 && memctx->memory_fd < 0 &&
           memctx->pagemap_fd < 0 && memctx->maps_fd < 0 && memctx->zeros_fd < 0;
}

static bool backing_is_sound(const struct memctx *memctx) {
    return is_let_go(memctx) || (ranges_are_sound(memctx) && (memctx->process.pid == 0) == (memctx->process_fd < 0));
}

static bool is_sound(const struct authority *authority, const struct memctx *memctx, const struct memctx_rest *rest) {
    return memctx->epoch >> 32 == authority->options.incarnation && (uint32_t)memctx->epoch != 0 &&
           (uint32_t)memctx->epoch <= authority->epochs && memctx->slot && memctx->slot <= authority->options.n_endpoints &&
           memctx->ranges && memctx->addresses && rest->n_addresses == memctx->n_ranges &&
           (!memctx->process_ranges || rest->n_process_ranges == memctx->n_ranges) && backing_is_sound(memctx) &&
           memctx->process.pid != (uint32_t)getpid() &&
           memctx->canary.note_len <= CANARY_NOTE && memctx->canary.glance < CANARY_FIRST + CANARY_ENTRIES &&
           (!memctx->ready || memctx->root.root.levels == 4 || memctx->root.root.levels == 5);
}

static int charge(struct authority *authority, struct memctx *memctx, uid_t uid) {
    uint64_t n = (uint64_t)(memctx->process_fd >= 0) + (uint64_t)(memctx->memory_fd >= 0) + (uint64_t)(memctx->pagemap_fd >= 0) +
                 (uint64_t)(memctx->maps_fd >= 0) + (uint64_t)(memctx->zeros_fd >= 0);
    int r = ledger_ref_account(authority->options.ledger, uid, authority->policy->limits, &memctx->account);

    for (size_t i = 0; i < memctx->n_objects; i++)
        n += memctx->objects[i].fd >= 0;
    if (r == 0)
        r = charge_take(&memctx->descriptors, memctx->account, RESOURCE_FDS, n);
    return r > 0 ? -ENOBUFS : r;
}

static struct memctx *memctx_from(struct authority_handover *handover, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover *whole = record->handover;
    struct memctx_rest rest = {};
    struct handover_record member;
    struct memctx *memctx;
    int r = memctx_new(&memctx);

    if (r == 0)
        memctx->objects = calloc(MEMCTX_OBJECTS_MAX, sizeof(*memctx->objects));
    if (r < 0 || !memctx->objects) {
        handover_wrong(whole, -ENOMEM);
        return r < 0 ? NULL : memctx_unref(memctx);
    }
    while (handover_next(&records, &member))
        take_part(memctx, &rest, &member);
    if (!whole->error && !is_sound(handover->authority, memctx, &rest))
        handover_wrong(whole, -EBADMSG);
    r = whole->error ? 0 : charge(handover->authority, memctx, (uid_t)rest.payer);
    if (r < 0)
        handover_wrong(whole, r);
    if (whole->error || !remember(handover, memctx)) {
        handover_wrong(whole, -ENOMEM);
        return memctx_unref(memctx);
    }
    for (size_t i = 0; i < memctx->n_objects; i++)
        ram_object_map(&memctx->objects[i]);
    if (memctx_ended(memctx))
        retire_take_over(handover->authority, memctx, rest.deadline);
    return memctx;
}

/* Borrowed from the handover. NULL: something was wrong. */
struct memctx *memctx_take(struct authority_handover *handover, const struct handover_record *record) {
    struct handover_record place;
    uint64_t number;

    if (!handover_find(handover_in(record), MEMCTX_PLACE, &place))
        return record->handover->error ? NULL : memctx_from(handover, record);
    number = handover_number(&place);
    if (number && number <= handover->n_memctxs)
        return handover->memctxs[number - 1];
    handover_wrong(record->handover, -EBADMSG);
    return NULL;
}
