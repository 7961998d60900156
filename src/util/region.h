/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one connection holds: a chain of blocks of one pool, from which its objects are cut.  What it gives
 * back while it lives is reused by itself, through a list for each size; when it ends the chain is spliced
 * back into the pool, at a cost that does not depend on how much it held.  So an object of a region must
 * not outlive it, and whoever ends a region needs to give back nothing of it before.
 *
 * The connection's account pays for whole blocks, which is what is really held.
 *
 * AddressSanitizer sees whoever touches what is not cut from a block, or was given back.
 *
 * One thread owns a region.
 */
#ifndef UTIL_REGION_H
#define UTIL_REGION_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"
#include "util/pool.h"

#define REGION_BLOCK 16384
#define REGION_OBJECT_MAX (REGION_BLOCK - 16) /* octets of one object at most */
#define REGION_SIZES 42

/** Expected outcome beside those of charging (enum charge_result). */
#define REGION_FULL 3 /* the memory held for peers is used up */

struct region {
    struct pool *blocks;                    /**< borrowed */
    struct pool_block *first, *last;
    size_t n_blocks;
    char *rest;                             /**< of the first block, what is not cut yet */
    size_t n_rest;
    struct charge charge;
    struct pool_block *given[REGION_SIZES]; /**< objects given back, by size */
};

/** Makes the pool of blocks that regions are made of, from @a octets of an arena. As pool_init(). */
int region_pool_init(struct pool *blocks, struct arena *arena, size_t octets);

/** Prepares a region, empty. @a account pays for it and must live as long. */
void region_init(struct region *region, struct pool *blocks, struct account *account);

/** Ends it with everything in it, at once. Harmless on zeros. */
void region_deinit(struct region *region);

/**
 * Takes an object, aligned to 16 octets, filled with zeros.
 * @param size 1 to REGION_OBJECT_MAX octets
 * @return 0, CHARGE_QUOTA, CHARGE_PRESSURE, or REGION_FULL; -EMSGSIZE: too large
 */
int region_take(struct region *region, size_t size, void **objectp);

/** Gives an object back. @a size: as it was taken. NULL is ignored. */
void region_give(struct region *region, void *object, size_t size);

/** Writes into an ACK why region_take() did not give; @a result is what it returned. Returns the error. */
uint16_t region_refusal(struct vmibus_ack *ack, int result, const struct region *region);

#endif
