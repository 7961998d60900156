/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int view_init(struct view *view, int fd, uint64_t size) {
    struct view_page *pages;
    void *map;
    int r;

    pages = calloc(VIEW_CACHE, sizeof(*pages));
    if (!pages)
        return -ENOMEM;
    map = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED) {
        r = -errno;
        free(pages);
        return r;
    }
    /* Neither in a core file nor in a child is a guest's memory wanted; failing is no harm. */
    (void)madvise(map, size, MADV_DONTDUMP);
    (void)madvise(map, size, MADV_DONTFORK);
    *view = (struct view){.map = map, .size = size, .pages = pages};
    return 0;
}

void view_deinit(struct view *view) {
    if (view->map)
        munmap((void *)(uintptr_t)view->map, view->size);
    free(view->pages);
    *view = (struct view){};
}

/* Page tables lie at round addresses, so the low bits of their page numbers collide: Fibonacci hashing takes the upper ones. */
static size_t cache_slot(uint64_t page) {
    return page / VIEW_PAGE * UINT64_C(0x9e3779b97f4a7c15) >> (64 - VIEW_CACHE_BITS);
}

static bool page_holds_data(struct view *view, int fd, uint64_t page, uint64_t now) {
    struct view_page *known = &view->pages[cache_slot(page)];

    if (known->offset == page && now < known->until)
        return true;
    if (lseek(fd, (off_t)page, SEEK_DATA) != (off_t)page)
        return false;
    *known = (struct view_page){.offset = page, .until = now + VIEW_TRUST_NS};
    return true;
}

void view_read(struct view *view, int fd, uint64_t offset, void *buffer, size_t len, uint64_t now) {
    const uint8_t *source = view->map + offset;
    uint64_t value;

    if (!page_holds_data(view, fd, offset & ~(VIEW_PAGE - 1), now)) {
        memset(buffer, 0, len);
        return;
    }
    if (len == sizeof(value) && offset % sizeof(value) == 0) {
        value = __atomic_load_n((const uint64_t *)(const void *)source, __ATOMIC_RELAXED);
        memcpy(buffer, &value, sizeof(value));
        return;
    }
    memcpy(buffer, source, len);
}
