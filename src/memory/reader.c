/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/reader.h"

#include <errno.h>
#include <unistd.h>

#include "memory/private.h"

int reader_read_file(int fd, uint64_t offset, void *buffer, size_t len) {
    uint8_t *at = buffer;
    ssize_t n;

    while (len > 0) {
        n = pread(fd, at, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return VMIBUS_GUEST_TRUNCATED;
        at += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int memory_read_range(const struct memctx *memctx, size_t range, uint64_t skip, void *buffer,
                      size_t len) {
    const struct vmibus_ram_range *where = &memctx->ranges[range];
    const struct ram_object *object = &memctx->objects[where->object];

    if (object->is_file)
        return reader_read_file(object->fd, where->offset + skip, buffer, len);
    return private_read(memctx, range, skip, buffer, len);
}

static bool range_contains(const struct memctx *memctx, ptrdiff_t index, uint64_t gpa) {
    const struct vmibus_ram_range *range;

    if (index < 0)
        return false;
    range = &memctx->ranges[index];
    return gpa >= range->gpa && gpa - range->gpa < range->len;
}

/* Reads as much of *len as lies in one range, and for loads in one page. */
static inline int read_some(struct memory_reader *reader, uint64_t gpa, void *buffer, size_t *len) {
    const struct memctx *memctx = reader->memctx;
    const struct vmibus_ram_range *range;
    struct ram_object *object;
    uint64_t skip, left;

    if (!range_contains(memctx, reader->range, gpa))
        reader->range = memctx_locate(memctx, gpa);
    if (reader->range < 0)
        return VMIBUS_GUEST_OUTSIDE_RAM;
    range = &memctx->ranges[reader->range];
    object = &memctx->objects[range->object];
    skip = gpa - range->gpa;
    left = range->len - skip;
    if (*len > left)
        *len = (size_t)left;
    if (!reader->loads || !view_is_there(&object->view))
        return memory_read_range(memctx, (size_t)reader->range, skip, buffer, *len);
    left = VIEW_PAGE - (range->offset + skip) % VIEW_PAGE;
    if (*len > left)
        *len = (size_t)left;
    return view_read(&object->view, object->fd, range->offset + skip, buffer, *len, reader->now);
}

static int memory_reader_read(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct memory_reader *reader = context;
    uint8_t *at = buffer;

    while (len > 0) {
        size_t n = len;
        int r = read_some(reader, gpa, at, &n);

        if (r)
            return r;
        gpa += n;
        at += n;
        len -= n;
    }
    return 0;
}

struct vmibus_guest_reader memory_reader_init(struct memory_reader *reader,
                                              const struct memctx *memctx, bool loads,
                                              uint64_t now) {
    *reader = (struct memory_reader){
        .memctx = memctx,
        .loads = loads,
        .now = now,
        .range = -1,
    };
    return (struct vmibus_guest_reader){.read = memory_reader_read, .context = reader};
}
