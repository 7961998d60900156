/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading a sealed RAM file by plain loads, without a system call.
 *
 * A load from a hole of a mapping allocates the page and so grows the host; pread(2) does not.  A view
 * therefore loads only from pages that the file is known to hold, because pread(2) brought something else
 * than zeros from them, and remembers each for a short while only: a guest's balloon may give the page
 * back.  lseek(2) is not asked: it takes the inode's lock, which another user of the file can hold for as
 * long as it likes, by a write(2) whose source blocks.  A load beyond the end of a file raises SIGBUS, so
 * there is no view of a file that is not sealed against shrinking.
 *
 * The loop's thread only.
 */
#ifndef MEMORY_VIEW_H
#define MEMORY_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VIEW_PAGE UINT64_C(4096)
#define VIEW_CACHE_BITS 8u
#define VIEW_CACHE (1u << VIEW_CACHE_BITS)
#define VIEW_TRUST_NS UINT64_C(100000000) /* how long a page once seen to hold data is believed */

/** All zeros: no view. */
struct view {
    const uint8_t *map;
    uint64_t size;
    struct view_page {
        uint64_t offset;    /**< of a page that holds data */
        uint64_t until;     /**< CLOCK_MONOTONIC nanoseconds up to which that is believed */
    } *pages;               /**< VIEW_CACHE of them */
};

/**
 * Maps a file that is sealed against shrinking, read-only.
 * @param fd   borrowed, here and later
 * @param size octets; the file is at least so long
 * @return 0 or a negative errno; then there is no view and the file is read by pread(2)
 */
int view_init(struct view *view, int fd, uint64_t size);

/** Unmaps it. Harmless if there is none. */
void view_deinit(struct view *view);

/** Reads without loading, for view_read(). What is not all zeros is no hole: its page becomes @a known. 0 or a negative errno. */
int view_read_unknown(struct view_page *known, int fd, uint64_t offset, void *buffer, size_t len, uint64_t now);

/* Page tables lie at round addresses, so the low bits of their page numbers collide: Fibonacci hashing takes the upper ones. */
static inline size_t view_slot(uint64_t page) {
    return page / VIEW_PAGE * UINT64_C(0x9e3779b97f4a7c15) >> (64 - VIEW_CACHE_BITS);
}

/**
 * Reads octets that lie in one page; a hole reads as zeros. Eight aligned octets are one load.
 * @param fd  the file of the view, whose file position nobody uses
 * @param len at least 1
 * @param now CLOCK_MONOTONIC nanoseconds
 * @return 0 or a negative errno
 */
static inline int view_read(struct view *view, int fd, uint64_t offset, void *buffer, size_t len, uint64_t now) {
    const uint64_t page = offset & ~(VIEW_PAGE - 1);
    struct view_page *known = &view->pages[view_slot(page)];
    const uint8_t *source = view->map + offset;
    uint64_t value;

    if (known->offset != page || now >= known->until)
        return view_read_unknown(known, fd, offset, buffer, len, now);
    if (len == sizeof(value) && offset % sizeof(value) == 0) {
        value = __atomic_load_n((const uint64_t *)(const void *)source, __ATOMIC_RELAXED);
        memcpy(buffer, &value, sizeof(value));
        return 0;
    }
    memcpy(buffer, source, len);
    return 0;
}

static inline bool view_is_there(const struct view *view) {
    return view->map != NULL;
}

#endif
