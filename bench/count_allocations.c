/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into a process, counts its allocations in a file that others can map: the one named by
 * VMIBUS_BENCH_ALLOCATIONS, eight octets long.  Freeing is not counted: what is never allocated is
 * never freed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* glibc's own names for what is replaced here. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static _Atomic uint64_t nowhere;
static _Atomic uint64_t *counter = &nowhere;

__attribute__((constructor)) static void open_counter(void) {
    const char *path = getenv("VMIBUS_BENCH_ALLOCATIONS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd >= 0 ? mmap(NULL, sizeof(*counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (map != MAP_FAILED)
        counter = map;
    if (fd >= 0)
        close(fd);
}

static void count(void) {
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

EXPORTED void *malloc(size_t size) {
    count();
    return __libc_malloc(size);
}

EXPORTED void *calloc(size_t n, size_t size) {
    count();
    return __libc_calloc(n, size);
}

EXPORTED void *realloc(void *pointer, size_t size) {
    count();
    return __libc_realloc(pointer, size);
}

EXPORTED void *aligned_alloc(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}

EXPORTED int posix_memalign(void **pointerp, size_t alignment, size_t size) {
    count();
    *pointerp = __libc_memalign(alignment, size);
    return *pointerp ? 0 : ENOMEM;
}
