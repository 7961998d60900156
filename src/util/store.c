/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/store.h"

#include "util/fault.h"

/* Block sizes but the largest, and the parts (sixteenths) that each takes of the whole. */
static const size_t block_sizes[STORE_SIZES - 1] = {512, 8192, 131072};
static const size_t sixteenths[STORE_SIZES] = {2, 2, 4, 8};

static size_t block_size(unsigned i, size_t largest) {
    return i < STORE_SIZES - 1 && block_sizes[i] < largest ? block_sizes[i] : largest;
}

static size_t n_blocks(unsigned i, size_t octets, size_t largest) {
    size_t n = octets / 16 * sixteenths[i] / pool_block_size(block_size(i, largest));

    return n ? n : 1;
}

int store_init(struct store *store, struct arena *arena, size_t octets, size_t largest) {
    *store = (struct store){};
    for (unsigned i = 0; i < STORE_SIZES; i++) {
        int r = pool_init(&store->pools[i], arena, block_size(i, largest), n_blocks(i, octets, largest));

        if (r < 0) {
            store_deinit(store);
            return r;
        }
    }
    return 0;
}

size_t store_cost(size_t octets, size_t largest) {
    size_t sum = 0;

    for (unsigned i = 0; i < STORE_SIZES; i++)
        sum += arena_cost(block_size(i, largest), n_blocks(i, octets, largest));
    return sum;
}

void store_deinit(struct store *store) {
    for (unsigned i = 0; i < STORE_SIZES; i++)
        pool_deinit(&store->pools[i]);
}

static size_t blocks_for_peers(const struct pool *pool) {
    return pool->capacity - pool->capacity / 4;
}

size_t store_for_peers(const struct store *store) {
    size_t octets = 0;

    for (unsigned i = 0; i < STORE_SIZES; i++)
        octets += blocks_for_peers(&store->pools[i]) * store->pools[i].block_size;
    return octets;
}

void *store_take(struct store *store, size_t size, bool for_peer, struct pool **poolp) {
    if (fault_hit(FAULT_ALLOCATION) < 0)
        return NULL;
    for (unsigned i = 0; i < STORE_SIZES; i++) {
        struct pool *pool = &store->pools[i];
        void *block;

        if (pool->block_size < size || (for_peer && pool->in_use >= blocks_for_peers(pool)))
            continue;
        block = pool_take(pool);
        if (block) {
            *poolp = pool;
            return block;
        }
    }
    return NULL;
}
