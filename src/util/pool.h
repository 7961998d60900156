/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pool of equal blocks with a fixed capacity.  The whole capacity is address space of an arena, set
 * aside at the start, and becomes resident only as blocks are used for the first time, so taking and
 * giving never allocate.  Blocks are reused last in, first out, which keeps the resident set small.
 *
 * AddressSanitizer sees whoever touches a block that was given back.
 *
 * One thread owns a pool.
 */
#ifndef UTIL_POOL_H
#define UTIL_POOL_H

#include <stddef.h>

#include "util/arena.h"
#include "util/list.h"

struct pool_block {
    struct pool_block *next;
};

struct pool {
    struct arena *arena;
    struct list arena_link;     /**< arena->pools */
    char *memory;
    size_t block_size;
    size_t capacity; /**< blocks */
    size_t touched;  /**< blocks ever used */
    size_t in_use;   /**< blocks in use */
    struct pool_block *free;
};

/** The size that blocks of at least this size have: it keeps each aligned to 16 octets. */
size_t pool_block_size(size_t block_size);

/** Carves a pool from an arena. 0, -ENOMEM (the arena has not that much left) or -EINVAL. */
int pool_init(struct pool *pool, struct arena *arena, size_t block_size, size_t capacity);

/** Releases it; every block must have been given back. Harmless on a zeroed pool. */
void pool_deinit(struct pool *pool);

/** Takes a block, 16-byte aligned, its contents undefined. NULL when all are in use. */
void *pool_take(struct pool *pool);

/**
 * Takes the block at a place that was told of it before (its distance from the pool's memory in blocks).
 * NULL: it is in use, or there is no such place. Takes a step for each block that was given back.
 */
void *pool_take_place(struct pool *pool, size_t place);

/** Gives a block back. */
void pool_give(struct pool *pool, void *block);

/**
 * Gives back @a n blocks that their owner chained: each begins with a struct pool_block that leads to the next one.
 * The cost does not depend on how many there are.
 */
void pool_give_chain(struct pool *pool, struct pool_block *first, struct pool_block *last, size_t n);

#endif
