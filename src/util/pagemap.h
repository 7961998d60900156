/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which pages of a process are there: /proc/PID/pagemap, 64 bits for each page (Linux
 * Documentation/admin-guide/mm/pagemap.rst).  Asking touches none of them.
 */
#ifndef UTIL_PAGEMAP_H
#define UTIL_PAGEMAP_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#define PAGEMAP_PAGE UINT64_C(4096)

/**
 * Asks for n pages, from that of an address on.
 * @param fd    /proc/PID/pagemap
 * @param pages receives n entries, for pagemap_is_touched() and the like
 * @return 0, -ESRCH (the process is gone) or another negative errno
 */
static inline int pagemap_read(int fd, uint64_t address, uint64_t *pages, size_t n) {
    ssize_t got = pread(fd, pages, n * sizeof(*pages), (off_t)(address / PAGEMAP_PAGE * sizeof(*pages)));

    if (got < 0)
        return -errno;
    return got == (ssize_t)(n * sizeof(*pages)) ? 0 : -ESRCH;
}

/** Whether the process has the page: it is present (bit 63) or swapped out (bit 62). */
static inline bool pagemap_is_touched(uint64_t page) {
    return page >> 62 & 3;
}

/**
 * Whether the page is surely part of a mapping, touched or not: a mapping has the soft-dirty bit (55) from its birth until
 * somebody clears it.  Where it is cleared, or the kernel does not keep it, this says no.
 */
static inline bool pagemap_is_mapped(uint64_t page) {
    return page >> 55 & 1;
}

/**
 * Whether the process alone has the page, and writing there needs no other: it is present (bit 63), mapped exclusively (56),
 * neither of a file nor shared (61), and no write to it is waited for by userfaultfd(2) (57). The page of zeros is not exclusive.
 */
static inline bool pagemap_is_owned(uint64_t page) {
    return (page >> 63 & 1) && (page >> 56 & 1) && !(page >> 61 & 1) && !(page >> 57 & 1);
}

#endif
