/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/backing.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "memory/buffer.h"
#include "util/pagemap.h"

/* By number: cachestat, of which the libraries of the floor have not heard. */
VMIBUS_SYSCALLS("451")

/* Octets of a piece: of shorter ones a copy is had as soon as an answer. */
#define WORTH_ASKING 2048u

/* Pages asked for at a time. */
#define PAGES 64u

/* Linux include/uapi/linux/mman.h and asm/unistd_64.h, since 6.5, to which the floor's headers do not reach. */
#define CACHESTAT_OF_6_5 451

struct cache_range {
    uint64_t offset, len;
};

struct cache_state {
    uint64_t cached, dirty, writeback, evicted, recently_evicted; /* pages */
};

/* Whether every page of a file that holds some of the octets is in the page cache. */
static bool is_cached(int fd, uint64_t offset, uint64_t len) {
    const uint64_t first = offset / MEMCTX_PAGE, end = (offset + len + MEMCTX_PAGE - 1) / MEMCTX_PAGE;
    const struct cache_range range = {.offset = first * MEMCTX_PAGE, .len = (end - first) * MEMCTX_PAGE};
    struct cache_state state = {};

    return syscall(CACHESTAT_OF_6_5, fd, &range, &state, 0) == 0 && state.cached == end - first;
}

/* Whether writing to each of the pages finds it and asks nobody. */
static bool is_owned(int pagemap_fd, uint64_t address, uint64_t len) {
    const uint64_t end = address + len;
    uint64_t pages[PAGES];

    if (pagemap_fd < 0)
        return false;
    for (uint64_t at = address & ~(MEMCTX_PAGE - 1); at < end; at += PAGES * MEMCTX_PAGE) {
        size_t n = (size_t)((end - at + MEMCTX_PAGE - 1) / MEMCTX_PAGE);

        n = n < PAGES ? n : PAGES;
        if (pagemap_read(pagemap_fd, at, pages, n))
            return false;
        for (size_t i = 0; i < n; i++)
            if (!pagemap_is_owned(pages[i]))
                return false;
    }
    return true;
}

/* A file that is sealed against writing, of which another piece of the write knows nothing, fails at once. */
static bool may_be_written(const struct ram_object *object) {
    int seals;

    if (!object->is_file)
        return true;
    if (!object->sealed || !object->writable || object->huge)
        return false;
    seals = fcntl(object->fd, F_GET_SEALS);
    return seals >= 0 && !(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

/* Octets that lie one after the other in one range. */
static bool is_there(const struct memctx *memctx, size_t range, uint64_t skip, uint64_t len) {
    const struct vmibus_ram_range *where = &memctx->ranges[range];
    const struct ram_object *object = &memctx->objects[where->object];

    if (object->is_file)
        return is_cached(object->fd, where->offset + skip, len);
    return is_owned(memctx->pagemap_fd, memctx->addresses[range] + skip, len);
}

static bool objects_may_be_written(const struct write *write) {
    const struct ram_object *object, *looked_at = NULL;

    for (size_t i = 0; i < write->n_pieces; i++) {
        object = &write->memctx->objects[write->memctx->ranges[write->pieces[i].range].object];
        if (object != looked_at && !may_be_written(object))
            return false;
        looked_at = object;
    }
    return true;
}

/* Pieces that follow each other are asked for together. */
static bool target_is_there(const struct write *write) {
    const struct write_piece *piece = write->pieces, *end = piece + write->n_pieces;

    while (piece < end) {
        const struct write_piece *first = piece;
        uint64_t len = 0;

        do
            len += piece++->len;
        while (piece < end && piece->range == first->range && piece->skip == first->skip + len);
        if (!is_there(write->memctx, first->range, first->skip, len))
            return false;
    }
    return true;
}

static bool source_is_there(const struct write *write) {
    const struct buffer *buffer = write->buffer;

    return !buffer || is_cached(buffer->fd, (uint64_t)(write->source - buffer->octets), write->len);
}

static bool is_worth_asking(const struct write *write) {
    return write->len > WRITE_SMALL && write->len / WORTH_ASKING >= write->n_pieces;
}

bool backing_cannot_fail(const struct write *write) {
    return is_worth_asking(write) && objects_may_be_written(write) && target_is_there(write) &&
           source_is_there(write);
}
