/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/private.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "memory/reader.h"
#include "util/fds.h"
#include "util/pagemap.h"

VMIBUS_SYSCALLS("ftruncate ioctl memfd_create")

/* Pages asked for at a time. */
#define PAGES 64u

/* More zeros than are read at a time: a file that is one hole. */
#define ZEROS ((off_t)(PAGES * MEMCTX_PAGE))

/*
 * Asks what is mapped at an address, without touching it (Linux include/uapi/linux/fs.h, since 6.11, to which the floor's
 * headers do not reach).
 */
#define PROCMAP_QUERY_OF_6_11 _IOWR('f', 17, struct mapping_query)

struct mapping_query {
    uint64_t size, flags, address;
    uint64_t start, end;                    /* out, as is all that follows */
    uint64_t attributes, page_size, offset, inode;
    uint32_t device_major, device_minor, name_size, build_id_size;
    uint64_t name, build_id;
};

/* Octets to read, of pages that are alike. */
struct stretch {
    uint64_t address;
    uint64_t offset;    /* in the file behind the mapping, if there is one */
    uint8_t *buffer;
    size_t len;
    uint64_t page;      /* pagemap's word on the first; on all of them, as far as is_alike() looks */
};

static int zeros_open(void) {
    int fd = memfd_create("vmibus-zeros", MFD_CLOEXEC);

    if (fd >= 0 && ftruncate(fd, ZEROS) == 0)
        return fd;
    if (fd >= 0)
        fd_close(fd);
    return -errno;
}

int private_open(struct memctx *memctx, const struct opener *opener) {
    int fd = opener->open_pagemap(opener, &memctx->process);

    if (fd == -EOPNOTSUPP) /* a kernel without: untouched pages are read like the others */
        return 0;
    if (fd < 0)
        return fd;
    memctx->pagemap_fd = fd;
    memctx->maps_fd = opener->open_maps(opener, &memctx->process);
    if (memctx->maps_fd < 0)
        return memctx->maps_fd;
    memctx->zeros_fd = zeros_open();
    return memctx->zeros_fd < 0 ? memctx->zeros_fd : 0;
}

/* /proc/PID/mem reads nothing once the address space is gone, and EIO where nothing is mapped. */
static int read_process(const struct memctx *memctx, const struct stretch *stretch) {
    int r = reader_read_file(memctx->memory_fd, stretch->address, stretch->buffer, stretch->len);

    if (r == VMIBUS_GUEST_TRUNCATED)
        return -ESRCH;
    return r == -EIO ? VMIBUS_GUEST_TRUNCATED : r;
}

static bool is_mapped(const struct memctx *memctx, const struct stretch *stretch) {
    struct mapping_query query = {.size = sizeof(query)};
    uint64_t end = stretch->address + stretch->len;

    if (pagemap_is_mapped(stretch->page))
        return true;
    for (uint64_t at = stretch->address; at < end; at = query.end) {
        query.address = at;
        if (ioctl(memctx->maps_fd, PROCMAP_QUERY_OF_6_11, &query) < 0 || query.end <= at)
            return false;
    }
    return true;
}

/* Of what is neither there nor surely mapped, only reading tells: it fails, or (on a kernel that cannot say) makes the page. */
static int read_stretch(const struct memctx *memctx, const struct ram_object *object,
                        const struct stretch *stretch) {
    if (pagemap_is_touched(stretch->page) || !is_mapped(memctx, stretch))
        return read_process(memctx, stretch);
    if (object->fd >= 0)
        return reader_read_file(object->fd, stretch->offset, stretch->buffer, stretch->len);
    return reader_read_file(memctx->zeros_fd, 0, stretch->buffer, stretch->len);
}

static bool is_alike(uint64_t a, uint64_t b) {
    return pagemap_is_touched(a) == pagemap_is_touched(b) && pagemap_is_mapped(a) == pagemap_is_mapped(b);
}

/* Reads what lies in n pages, of which pages tells, stretch by stretch. */
static int read_pages(const struct memctx *memctx, const struct ram_object *object,
                      struct stretch *all, const uint64_t *pages, size_t n) {
    struct stretch stretch = *all;
    uint64_t end = all->address + all->len, first = all->address / MEMCTX_PAGE;

    for (size_t i = 0; i < n; i++) {
        uint64_t until = (first + i + 1) * MEMCTX_PAGE;
        int r;

        if (i + 1 < n && is_alike(pages[i + 1], pages[i]))
            continue;
        stretch.len = (until < end ? until : end) - stretch.address;
        stretch.page = pages[i];
        r = read_stretch(memctx, object, &stretch);
        if (r)
            return r;
        stretch.address += stretch.len;
        stretch.offset += stretch.len;
        stretch.buffer += stretch.len;
    }
    return 0;
}

int private_read(const struct memctx *memctx, size_t range, uint64_t skip, void *buffer, size_t len) {
    const struct vmibus_ram_range *where = &memctx->ranges[range];
    struct stretch stretch = {
        .address = memctx->addresses[range] + skip,
        .offset = where->offset + skip,
        .buffer = buffer,
        .len = len,
    };
    uint64_t pages[PAGES];
    int r = 0;

    if (memctx->pagemap_fd < 0)
        return read_process(memctx, &stretch);
    while (!r && len > 0) {
        uint64_t bound = PAGES * MEMCTX_PAGE - stretch.address % MEMCTX_PAGE;
        size_t n;

        stretch.len = len < bound ? len : bound;
        n = (stretch.address % MEMCTX_PAGE + stretch.len + MEMCTX_PAGE - 1) / MEMCTX_PAGE;
        r = pagemap_read(memctx->pagemap_fd, stretch.address, pages, n);
        if (!r)
            r = read_pages(memctx, &memctx->objects[where->object], &stretch, pages, n);
        stretch.address += stretch.len;
        stretch.offset += stretch.len;
        stretch.buffer += stretch.len;
        len -= stretch.len;
    }
    return r;
}
