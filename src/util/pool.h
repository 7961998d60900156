/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pool of equal blocks with a fixed capacity.  The whole capacity is reserved as address space at
 * the start and becomes resident only as blocks are used for the first time, so taking and giving
 * never allocate.  Blocks are reused last in, first out, which keeps the resident set small.
 *
 * One thread owns a pool.
 */
#ifndef UTIL_POOL_H
#define UTIL_POOL_H

#include <stddef.h>

struct pool_block {
    struct pool_block *next;
};

struct pool {
    char *memory;
    size_t block_size;
    size_t capacity; /**< blocks */
    size_t touched;  /**< blocks ever used */
    size_t in_use;   /**< blocks in use */
    struct pool_block *free;
};

/** Reserves a pool. 0 or a negative errno. */
int pool_init(struct pool *pool, size_t block_size, size_t capacity);

/** Releases it; every block must have been given back. Harmless on a zeroed pool. */
void pool_deinit(struct pool *pool);

/** Takes a block, 16-byte aligned, its contents undefined. NULL when all are in use. */
void *pool_take(struct pool *pool);

/** Gives a block back. */
void pool_give(struct pool *pool, void *block);

#endif
