/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "util/poison.h"

#define ALIGNMENT 16

size_t pool_block_size(size_t block_size) {
    if (block_size < sizeof(struct pool_block))
        block_size = sizeof(struct pool_block);
    return block_size > SIZE_MAX - ALIGNMENT ? block_size : (block_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

int pool_init(struct pool *pool, struct arena *arena, size_t block_size, size_t capacity) {
    size_t size = arena_cost(block_size, capacity);

    if (capacity == 0 || size == SIZE_MAX)
        return -EINVAL;
    if (size > arena->capacity - arena->carved)
        return -ENOMEM;
    *pool = (struct pool){
        .arena = arena,
        .memory = arena->memory + arena->carved,
        .block_size = pool_block_size(block_size),
        .capacity = capacity,
    };
    arena->carved += size;
    list_append(&arena->pools, &pool->arena_link);
    return 0;
}

void pool_deinit(struct pool *pool) {
    if (!pool->memory)
        return;
    assert(pool->in_use == 0);
    list_unlink(&pool->arena_link);
    *pool = (struct pool){};
}

void *pool_take(struct pool *pool) {
    struct pool_block *block = pool->free;

    if (block) {
        unpoison(block, pool->block_size);
        pool->free = block->next;
    } else if (pool->touched < pool->capacity) {
        block = (void *)(pool->memory + pool->block_size * pool->touched++);
    } else {
        return NULL;
    }
    pool->in_use++;
    pool->arena->used += pool->block_size;
    return block;
}

/* The blocks before it become ones that were given back. */
static void touch(struct pool *pool, size_t place) {
    while (pool->touched <= place) {
        struct pool_block *block = (void *)(pool->memory + pool->block_size * pool->touched++);

        block->next = pool->free;
        pool->free = block;
        poison(block, pool->block_size);
    }
}

void *pool_take_place(struct pool *pool, size_t place) {
    struct pool_block *wanted = (void *)(pool->memory + pool->block_size * place), *block, *before = NULL, *next;

    if (place >= pool->capacity)
        return NULL;
    touch(pool, place);
    for (block = pool->free; block; before = block, block = next) {
        unpoison(block, pool->block_size);
        next = block->next;
        if (block != wanted) {
            poison(block, pool->block_size);
            continue;
        }
        if (before) {
            unpoison(before, pool->block_size);
            before->next = next;
            poison(before, pool->block_size);
        } else {
            pool->free = next;
        }
        pool->in_use++;
        pool->arena->used += pool->block_size;
        return block;
    }
    return NULL;
}

void pool_give_chain(struct pool *pool, struct pool_block *first, struct pool_block *last, size_t n) {
    assert(n > 0 && pool->in_use >= n);
    last->next = pool->free;
    pool->free = first;
    pool->in_use -= n;
    pool->arena->used -= n * pool->block_size;
    for (struct pool_block *block = first, *next; POISON_IS_SEEN && n > 0; block = next, n--) {
        next = block->next;
        poison(block, pool->block_size);
    }
}

void pool_give(struct pool *pool, void *block) {
    pool_give_chain(pool, block, block, 1);
}
