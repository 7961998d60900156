/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest RAM as a memctx describes it: ranges over read-only descriptors.
 *
 * What mapping.h allows is loaded.  Everything else is read with pread(2): it neither fills a hole of the file (a load
 * through a mapping would, and the host would grow) nor faults where the file was truncated.  In a process's private
 * memory it would make page tables, and pages: there only what pagemap says to be there is read.  Extents come from
 * SEEK_DATA and SEEK_HOLE, whose answers are stale at once: they say where to look, never what is
 * safe.  Both move the position of the open file description, which is shared with whoever the
 * descriptor came from; nobody may rely on that position, and this file does not.
 */
#include <vmibus/guest.h>
#include <vmibus/syscalls.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "paging.h"
#include "ram.h"
#include "util/pagemap.h"

VMIBUS_SYSCALLS("fstatfs")

#define PAGES_AT_A_TIME 512u

/* Longer reads are not worth the page faults that memory takes which is read once: pread(2) is as fast as memcpy(3) there. */
#define LOADS_MAX (64u * 1024)

static int compare_ranges(const void *a, const void *b) {
    const struct vmibus_ram_range *left = a, *right = b;

    return (left->gpa > right->gpa) - (left->gpa < right->gpa);
}

/* Whether a range is sound by itself: addresses have 52 bits, offsets are an off_t. */
static bool range_is_sound(const struct vmibus_ram_range *range, size_t n_fds) {
    uint64_t gpa_end, offset_end;

    return range->len > 0 && range->object < n_fds &&
           !__builtin_add_overflow(range->gpa, range->len, &gpa_end) &&
           !__builtin_add_overflow(range->offset, range->len, &offset_end) &&
           gpa_end <= PAGING_ADDRESS + PAGING_PAGE_SIZE && offset_end <= INT64_MAX;
}

static bool ranges_are_sound(const struct vmibus_guest_ram *ram, size_t n_fds) {
    for (size_t i = 0; i < ram->n_ranges; i++) {
        const struct vmibus_ram_range *range = &ram->ranges[i];

        if (!range_is_sound(range, n_fds))
            return false;
        if (i > 0 && range[-1].gpa + range[-1].len > range->gpa)
            return false;
    }
    return ram->n_ranges > 0;
}

static bool is_in_proc(int fd) {
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

static int duplicate_fds(struct vmibus_guest_ram *ram, const int *fds, size_t n_fds,
                         int pagemap_fd) {
    ram->fds = calloc(n_fds, sizeof(*ram->fds));
    ram->is_private = calloc(n_fds, sizeof(*ram->is_private));
    if (!ram->fds || !ram->is_private)
        return -ENOMEM;
    for (; ram->n_fds < n_fds; ram->n_fds++) {
        int fd = fcntl(fds[ram->n_fds], F_DUPFD_CLOEXEC, 3);

        if (fd < 0)
            return -errno;
        ram->fds[ram->n_fds] = fd;
        ram->is_private[ram->n_fds] = pagemap_fd >= 0 && is_in_proc(fd);
    }
    if (pagemap_fd >= 0)
        ram->pagemap_fd = fcntl(pagemap_fd, F_DUPFD_CLOEXEC, 3);
    return pagemap_fd >= 0 && ram->pagemap_fd < 0 ? -errno : 0;
}

static int ram_new(struct vmibus_guest_ram **ramp, const struct vmibus_ram_range *ranges,
                   size_t n_ranges, const int *fds, size_t n_fds, int pagemap_fd,
                   bool may_map) {
    struct vmibus_guest_ram *ram;
    size_t size;
    int r;

    *ramp = NULL;
    if (n_ranges == 0 || n_fds == 0)
        return -EINVAL;
    if (__builtin_mul_overflow(n_ranges, sizeof(*ranges), &size) ||
        __builtin_add_overflow(size, sizeof(*ram), &size))
        return -EINVAL;
    ram = calloc(1, size);
    if (!ram)
        return -ENOMEM;
    ram->pagemap_fd = -1;
    memcpy(ram->ranges, ranges, n_ranges * sizeof(*ranges));
    ram->n_ranges = n_ranges;
    qsort(ram->ranges, n_ranges, sizeof(*ranges), compare_ranges);
    r = ranges_are_sound(ram, n_fds) ? duplicate_fds(ram, fds, n_fds, pagemap_fd) : -EINVAL;
    if (r == 0)
        r = mapping_init(&ram->mapping, ram->ranges, ram->n_ranges, ram->fds, ram->n_fds, may_map);
    if (r != 0) {
        vmibus_guest_ram_free(ram);
        return r;
    }
    *ramp = ram;
    return 0;
}

int vmibus_guest_ram_new(struct vmibus_guest_ram **ramp, const struct vmibus_ram_range *ranges,
                         size_t n_ranges, const int *fds, size_t n_fds) {
    return ram_new(ramp, ranges, n_ranges, fds, n_fds, -1, true);
}

int vmibus_guest_ram_new_unmapped(struct vmibus_guest_ram **ramp,
                                  const struct vmibus_ram_range *ranges, size_t n_ranges,
                                  const int *fds, size_t n_fds, int pagemap_fd) {
    return ram_new(ramp, ranges, n_ranges, fds, n_fds, pagemap_fd, false);
}

struct vmibus_guest_ram *vmibus_guest_ram_free(struct vmibus_guest_ram *ram) {
    if (!ram)
        return NULL;
    mapping_deinit(&ram->mapping);
    for (size_t i = 0; i < ram->n_fds; i++)
        close(ram->fds[i]);
    if (ram->pagemap_fd >= 0)
        close(ram->pagemap_fd);
    free(ram->is_private);
    free(ram->fds);
    free(ram);
    return NULL;
}

/* The first range that ends after gpa: it holds gpa, or is the next one. n_ranges if none does. */
static size_t range_at_or_after(const struct vmibus_guest_ram *ram, uint64_t gpa) {
    size_t low = 0, high = ram->n_ranges;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (ram->ranges[middle].gpa + ram->ranges[middle].len > gpa)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The range that holds gpa, or NULL. */
static const struct vmibus_ram_range *find_range(struct vmibus_guest_ram *ram, uint64_t gpa) {
    const struct vmibus_ram_range *range = &ram->ranges[ram->recent];
    size_t i;

    if (gpa - range->gpa < range->len)
        return range;
    i = range_at_or_after(ram, gpa);
    if (i == ram->n_ranges || gpa < ram->ranges[i].gpa)
        return NULL;
    ram->recent = i;
    return &ram->ranges[i];
}

/* Reads from a file; what lies behind its end is TRUNCATED. */
static int read_file(int fd, uint64_t offset, uint8_t *buffer, size_t len) {
    while (len > 0) {
        ssize_t n = pread(fd, buffer, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return VMIBUS_GUEST_TRUNCATED;
        offset += (size_t)n;
        buffer += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Reads memory of a process, page by page: what is not there is zeros, and stays so. */
static int read_private(const struct vmibus_guest_ram *ram, int fd, uint64_t address,
                        uint8_t *buffer, size_t len) {
    while (len > 0) {
        uint64_t page, step = PAGING_PAGE_SIZE - address % PAGING_PAGE_SIZE;
        int r = pagemap_read(ram->pagemap_fd, address, &page, 1);

        if (step > len)
            step = len;
        if (r == 0 && pagemap_is_touched(page))
            r = read_file(fd, address, buffer, (size_t)step);
        else if (r == 0)
            memset(buffer, 0, (size_t)step);
        if (r != 0)
            return r == -ESRCH || r == -EIO ? VMIBUS_GUEST_TRUNCATED : r;
        address += step;
        buffer += step;
        len -= (size_t)step;
    }
    return 0;
}

static int read_object(const struct vmibus_guest_ram *ram, uint16_t object, uint64_t offset,
                       uint8_t *buffer, size_t len) {
    if (ram->is_private[object])
        return read_private(ram, ram->fds[object], offset, buffer, len);
    return read_file(ram->fds[object], offset, buffer, len);
}

/* As much as is marked, up to len; 0 if the page of gpa is not. */
static uint64_t load_marked(struct vmibus_guest_ram *ram, uint64_t gpa, uint8_t *buffer, uint64_t len) {
    uint64_t run = len;
    const uint8_t *at = ram_direct.look(ram, gpa, &run);

    if (!at)
        return 0;
    memcpy(buffer, at, (size_t)run);
    return run;
}

static int read_from_file(struct vmibus_guest_ram *ram, const struct vmibus_ram_range *range,
                          uint64_t gpa, uint8_t *buffer, size_t len) {
    int r = read_object(ram, range->object, range->offset + (gpa - range->gpa), buffer, len);

    if (r == 0 && len <= LOADS_MAX)
        mapping_mark_read(&ram->mapping, range, gpa, buffer, len);
    return r;
}

int vmibus_guest_ram_read(struct vmibus_guest_ram *ram, uint64_t gpa, void *buffer, size_t len) {
    const bool by_loads = len <= LOADS_MAX;
    uint8_t *at = buffer;

    while (len > 0) {
        uint64_t step = by_loads ? load_marked(ram, gpa, at, len) : 0;

        if (step == 0) {
            const struct vmibus_ram_range *range = find_range(ram, gpa);
            uint64_t left;
            int r;

            if (!range)
                return VMIBUS_GUEST_OUTSIDE_RAM;
            left = range->len - (gpa - range->gpa);
            step = len < left ? len : left;
            step = by_loads ? mapping_gap(&ram->mapping, gpa, step) : step;
            r = read_from_file(ram, range, gpa, at, (size_t)step);
            if (r != 0)
                return r;
        }
        gpa += step;
        at += step;
        len -= (size_t)step;
    }
    return 0;
}

int ram_read(void *context, uint64_t gpa, void *buffer, size_t len) {
    return vmibus_guest_ram_read(context, gpa, buffer, len);
}

struct vmibus_guest_reader vmibus_guest_ram_reader(struct vmibus_guest_ram *ram) {
    return (struct vmibus_guest_reader){.read = ram_read, .context = ram, .direct = &ram_direct};
}

/*
 * The next data of a file in [*offset, end).  Where the file system knows no holes, all is data.
 * What changes between the two questions is taken as one page of data: the search must go on.
 */
static int next_file_data(int fd, uint64_t *offset, uint64_t end, uint64_t *len) {
    off_t data = lseek(fd, (off_t)*offset, SEEK_DATA), hole;

    if (data < 0 && errno == ENXIO)
        return VMIBUS_GUEST_NOT_FOUND;
    if (data < 0 && errno == EINVAL) {
        *len = end - *offset;
        return 0;
    }
    if (data < 0)
        return -errno;
    if ((uint64_t)data >= end)
        return VMIBUS_GUEST_NOT_FOUND;
    hole = lseek(fd, data, SEEK_HOLE);
    if (hole < 0 && errno != ENXIO)
        return -errno;
    if (hole <= data)
        hole = data + (off_t)PAGING_PAGE_SIZE;
    *offset = (uint64_t)data;
    *len = ((uint64_t)hole < end ? (uint64_t)hole : end) - *offset;
    return 0;
}

/* The next pages that a process has, in [*address, end). */
static int next_private_data(int pagemap_fd, uint64_t *address, uint64_t end, uint64_t *len) {
    uint64_t pages[PAGES_AT_A_TIME];
    bool found = false;

    for (uint64_t at = *address / PAGING_PAGE_SIZE * PAGING_PAGE_SIZE; at < end;) {
        uint64_t left = (end - at + PAGING_PAGE_SIZE - 1) / PAGING_PAGE_SIZE;
        size_t n = left < PAGES_AT_A_TIME ? (size_t)left : PAGES_AT_A_TIME;
        int r = pagemap_read(pagemap_fd, at, pages, n);

        if (r < 0)
            return r;
        for (size_t i = 0; i < n; i++, at += PAGING_PAGE_SIZE) {
            if (pagemap_is_touched(pages[i]) == found)
                continue;
            if (found) {
                *len = at - *address;
                return 0;
            }
            found = true;
            if (at > *address)
                *address = at;
        }
    }
    *len = end - *address;
    return found ? 0 : VMIBUS_GUEST_NOT_FOUND;
}

static int next_object_data(const struct vmibus_guest_ram *ram, uint16_t object, uint64_t *offset,
                            uint64_t end, uint64_t *len) {
    if (ram->is_private[object])
        return next_private_data(ram->pagemap_fd, offset, end, len);
    return next_file_data(ram->fds[object], offset, end, len);
}

int vmibus_guest_ram_next_data(struct vmibus_guest_ram *ram, uint64_t *gpa, uint64_t *len) {
    for (size_t i = range_at_or_after(ram, *gpa); i < ram->n_ranges; i++) {
        const struct vmibus_ram_range *range = &ram->ranges[i];
        uint64_t skipped = *gpa > range->gpa ? *gpa - range->gpa : 0;
        uint64_t offset = range->offset + skipped;
        int r = next_object_data(ram, range->object, &offset, range->offset + range->len, len);

        if (r == VMIBUS_GUEST_NOT_FOUND)
            continue;
        if (r == 0)
            *gpa = range->gpa + (offset - range->offset);
        return r;
    }
    return VMIBUS_GUEST_NOT_FOUND;
}

int ram_next_range(void *context, uint64_t *gpa, uint64_t *len) {
    const struct vmibus_guest_ram *ram = context;
    size_t i = range_at_or_after(ram, *gpa);

    if (i == ram->n_ranges)
        return VMIBUS_GUEST_NOT_FOUND;
    if (*gpa < ram->ranges[i].gpa)
        *gpa = ram->ranges[i].gpa;
    *len = ram->ranges[i].len - (*gpa - ram->ranges[i].gpa);
    return 0;
}

int ram_next_data(void *context, uint64_t *gpa, uint64_t *len) {
    struct vmibus_guest_ram *ram = context;
    int r = vmibus_guest_ram_next_data(ram, gpa, len);

    /* It is in one range. */
    if (r == 0)
        mapping_mark(&ram->mapping, find_range(ram, *gpa), *gpa, *len);
    return r;
}
