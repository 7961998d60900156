/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory that is held for peers: one stretch of address space with a fixed capacity, reserved at the
 * start and resident only as far as it is touched.  Everything that is held because a peer connected or
 * asked comes from it, so whatever peers do, the process grows by the capacity at most, and whoever finds
 * it used up is told so.  What is made of it:
 *
 *      pool    equal blocks, each kind with a capacity of its own (util/pool.h): events, deliveries,
 *              commands, peers, buffers for octets on their way
 *      region  what one connection holds (util/region.h): a chain of blocks of one pool
 *      store   what is shared, outlives its connection, or has any size (util/store.h): pools of a few sizes
 *
 * Each is carved from the arena when its owner is made, and never returned before the arena ends: a carving
 * belongs to its owner for life, so nobody can use up what another was promised.
 *
 * Deliberately elsewhere, on the heap, bounded by what the administrator set up and not by peers:
 *
 *      configuration and policy; the bus and the authority themselves
 *      the sensors' side: sensors, endpoints, providers, what is retained of an endpoint, memory contexts
 *      per uid that has a connection an account (util/ledger.h) and a line (transport/turns.h); per uid that
 *      writes at a bounded rate a meter (memory/meter.h); a pointer per armed timer (util/loop.h)
 *
 * and bounded by the ledger, at the memory authority, which may be a process of its own: buffers, the
 * writes and reads on their way to a worker (but for a long payload that stays where it was gathered, util/tails.h), and per
 * session and endpoint what policy bounds writing by (RESOURCE_BUFFERS, _BYTES).  The answer to a query is on the heap
 * while it is being answered.
 *
 * One thread owns an arena and everything made of it.
 */
#ifndef UTIL_ARENA_H
#define UTIL_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "util/list.h"

struct arena {
    char *memory;       /**< NULL: none */
    size_t capacity;    /**< octets */
    size_t carved;      /**< octets that have owners */
    size_t used;        /**< octets of blocks that are in use */
    bool abandoned;     /**< see arena_abandon() */
    struct list pools;
};

/** Reserves an arena; @a capacity is rounded up to pages. 0 or a negative errno. */
int arena_init(struct arena *arena, size_t capacity);

/** Releases it; every pool must have been released. Harmless on zeros. */
void arena_deinit(struct arena *arena);

/** Some of it is left for ever to a thread that may still touch it: arena_deinit() releases nothing then. */
void arena_abandon(struct arena *arena);

/** What a pool of this many blocks takes from an arena, octets; SIZE_MAX: too much to be counted. */
size_t arena_cost(size_t block_size, size_t n_blocks);

/**
 * How much of the arena is resident, as the kernel counts it: asks mincore(2) for what pools have touched.
 * @return octets
 */
size_t arena_resident(const struct arena *arena);

#endif
