/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Octets of any length that are shared, or that outlive the connection they are held for: tails of events
 * and answers.  A few pools of blocks, each of which holds up to so many octets; where the fitting one is
 * used up, the next larger one serves.  Part of each is kept back from answers, whose number peers choose,
 * for what sensors publish.
 *
 * One thread owns a store.
 */
#ifndef UTIL_STORE_H
#define UTIL_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "util/pool.h"

#define STORE_SIZES 4

struct store {
    struct pool pools[STORE_SIZES]; /**< from small to large */
};

/**
 * Carves a store from an arena.
 * @param octets  about as much is carved, and room for one block of each size at least
 * @param largest octets that are held together at most
 * @return as pool_init()
 */
int store_init(struct store *store, struct arena *arena, size_t octets, size_t largest);

/** What peers can have of it, octets of whole blocks. */
size_t store_for_peers(const struct store *store);

/** What store_init() carves at most, octets. */
size_t store_cost(size_t octets, size_t largest);

/** Releases it; everything must have been given back. Harmless on zeros. */
void store_deinit(struct store *store);

/**
 * Takes room, 16-byte aligned, its contents undefined; allocates nothing.
 * @param for_peer a peer's doing: three quarters of each pool are for that
 * @param poolp    whose it is; pool_give() it back there. Its block_size is what is really held
 * @return NULL: used up, or more than the store holds together
 */
void *store_take(struct store *store, size_t size, bool for_peer, struct pool **poolp);

#endif
