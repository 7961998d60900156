/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include <vmibus/syscalls.h>

#include "util/poison.h"
#include "util/pool.h"

VMIBUS_SYSCALLS("mincore")

#define PAGE ((size_t)4096)
#define PAGES_AT_ONCE 4096

static size_t page_round(size_t size) {
    return size > SIZE_MAX - PAGE ? SIZE_MAX : (size + PAGE - 1) / PAGE * PAGE;
}

int arena_init(struct arena *arena, size_t capacity) {
    void *memory;

    capacity = page_round(capacity);
    if (capacity == 0 || capacity == SIZE_MAX)
        return -EINVAL;
    memory = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    /* A huge page for the first block would defeat the point of reserving lazily. */
    madvise(memory, capacity, MADV_NOHUGEPAGE);
    *arena = (struct arena){.memory = memory, .capacity = capacity};
    list_init(&arena->pools);
    root_begin(memory, capacity);
    return 0;
}

void arena_deinit(struct arena *arena) {
    if (!arena->memory || arena->abandoned)
        return;
    assert(list_is_empty(&arena->pools) && arena->used == 0);
    unpoison(arena->memory, arena->carved);
    root_end(arena->memory, arena->capacity);
    munmap(arena->memory, arena->capacity);
    *arena = (struct arena){};
}

void arena_abandon(struct arena *arena) {
    arena->abandoned = true;
}

size_t arena_cost(size_t block_size, size_t n_blocks) {
    size_t size;

    return __builtin_mul_overflow(pool_block_size(block_size), n_blocks, &size) ? SIZE_MAX : page_round(size);
}

/* What of a stretch is resident. Pages, because that is what the kernel counts. */
static size_t resident(char *memory, size_t size) {
    unsigned char pages[PAGES_AT_ONCE];
    size_t sum = 0;

    for (size_t done = 0; done < size; done += PAGES_AT_ONCE * PAGE) {
        size_t n = size - done < PAGES_AT_ONCE * PAGE ? size - done : PAGES_AT_ONCE * PAGE;

        if (mincore(memory + done, n, pages) < 0)
            break;
        for (size_t i = 0; i < (n + PAGE - 1) / PAGE; i++)
            sum += pages[i] & 1 ? PAGE : 0;
    }
    return sum;
}

size_t arena_resident(const struct arena *arena) {
    const struct pool *pool;
    size_t sum = 0;

    list_for_each(pool, &arena->pools, arena_link)
        sum += resident(pool->memory, pool->block_size * pool->touched);
    return sum;
}
