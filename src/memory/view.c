/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/octets.h"

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

int view_read_unknown(struct view_page *known, int fd, uint64_t offset, void *buffer, size_t len, uint64_t now) {
    ssize_t n;

    do
        n = pread(fd, buffer, len, (off_t)offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if ((size_t)n != len)
        return -EIO;
    if (!octets_are_zero(buffer, len))
        *known = (struct view_page){.offset = offset & ~(VIEW_PAGE - 1), .until = now + VIEW_TRUST_NS};
    return 0;
}
