/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/pool.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define ALIGNMENT 16

int pool_init(struct pool *pool, size_t block_size, size_t capacity) {
    size_t size;
    void *memory;

    if (block_size < sizeof(struct pool_block))
        block_size = sizeof(struct pool_block);
    block_size = (block_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (capacity == 0 || __builtin_mul_overflow(block_size, capacity, &size))
        return -EINVAL;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    /* A huge page for the first block would defeat the point of reserving lazily. */
    madvise(memory, size, MADV_NOHUGEPAGE);
    *pool = (struct pool){.memory = memory, .block_size = block_size, .capacity = capacity};
    return 0;
}

void pool_deinit(struct pool *pool) {
    if (!pool->memory)
        return;
    assert(pool->in_use == 0);
    munmap(pool->memory, pool->block_size * pool->capacity);
    *pool = (struct pool){};
}

void *pool_take(struct pool *pool) {
    struct pool_block *block = pool->free;

    if (block)
        pool->free = block->next;
    else if (pool->touched < pool->capacity)
        block = (void *)(pool->memory + pool->block_size * pool->touched++);
    else
        return NULL;
    pool->in_use++;
    return block;
}

void pool_give(struct pool *pool, void *pointer) {
    struct pool_block *block = pointer;

    assert(pool->in_use > 0);
    block->next = pool->free;
    pool->free = block;
    pool->in_use--;
}
