/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/region.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "util/fault.h"
#include "util/poison.h"
#include "util/refusal.h"

#define STEP 16         /* sizes up to FINE differ by it */
#define FINE 512
#define HEADER (REGION_BLOCK - REGION_OBJECT_MAX)

_Static_assert(HEADER >= sizeof(struct pool_block) && HEADER % STEP == 0, "objects are aligned behind the link");

/* --- sizes: multiples of STEP up to FINE, then two for each power of two ------------------------ */

static size_t size_of(unsigned position) {
    unsigned coarse = position - FINE / STEP;
    size_t size;

    if (position < FINE / STEP)
        return (position + 1) * (size_t)STEP;
    size = coarse % 2 ? (size_t)2 * FINE << coarse / 2 : (size_t)3 * FINE / 2 << coarse / 2;
    return size < REGION_OBJECT_MAX ? size : REGION_OBJECT_MAX;
}

/* The smallest size that holds an object. */
static unsigned position_above(size_t size) {
    unsigned position;

    if (size <= FINE)
        return (unsigned)((size + STEP - 1) / STEP - 1);
    for (position = FINE / STEP; size_of(position) < size; position++)
        ;
    return position;
}

/* The largest size that a stretch of at least STEP octets holds. */
static unsigned position_below(size_t size) {
    unsigned position = position_above(size);

    return size_of(position) > size ? position - 1 : position;
}

/* --- blocks ------------------------------------------------------------------------------------ */

int region_pool_init(struct pool *blocks, struct arena *arena, size_t octets) {
    return pool_init(blocks, arena, REGION_BLOCK, octets / REGION_BLOCK);
}

void region_init(struct region *region, struct pool *blocks, struct account *account) {
    *region = (struct region){.blocks = blocks};
    (void)charge_take(&region->charge, account, RESOURCE_BYTES, 0); /* nothing is always had */
}

void region_deinit(struct region *region) {
    if (region->n_blocks)
        pool_give_chain(region->blocks, region->first, region->last, region->n_blocks);
    charge_release(&region->charge);
    *region = (struct region){};
}

static void put(struct region *region, void *object, unsigned position) {
    struct pool_block *given = object;

    unpoison(given, sizeof(*given));
    given->next = region->given[position];
    region->given[position] = given;
    poison(object, size_of(position));
}

/* What is left of a block is not lost: it is cut into what it holds. */
static void cut_up_rest(struct region *region) {
    while (region->n_rest >= STEP) {
        unsigned position = position_below(region->n_rest);

        put(region, region->rest, position);
        region->rest += size_of(position);
        region->n_rest -= size_of(position);
    }
}

static int add_block(struct region *region) {
    struct pool_block *block;
    int r = charge_raise(&region->charge, REGION_BLOCK);

    if (r)
        return r;
    block = pool_take(region->blocks);
    if (!block) {
        charge_lower(&region->charge, REGION_BLOCK);
        return REGION_FULL;
    }
    cut_up_rest(region);
    block->next = region->first;
    region->first = block;
    if (!region->last)
        region->last = block;
    region->n_blocks++;
    region->rest = (char *)block + HEADER;
    region->n_rest = REGION_OBJECT_MAX;
    poison(region->rest, region->n_rest);
    return 0;
}

/* --- objects ----------------------------------------------------------------------------------- */

int region_take(struct region *region, size_t size, void **objectp) {
    unsigned position;
    void *object;
    int r;

    assert(size > 0);
    if (size > REGION_OBJECT_MAX)
        return -EMSGSIZE;
    if (fault_hit(FAULT_ALLOCATION) < 0)
        return REGION_FULL;
    position = position_above(size);
    object = region->given[position];
    if (object) {
        unpoison(object, sizeof(struct pool_block));
        region->given[position] = region->given[position]->next;
        unpoison(object, size);
    } else {
        r = region->n_rest < size_of(position) ? add_block(region) : 0;
        if (r)
            return r;
        object = region->rest;
        region->rest += size_of(position);
        region->n_rest -= size_of(position);
        unpoison(object, size);
    }
    *objectp = memset(object, 0, size);
    return 0;
}

void region_give(struct region *region, void *object, size_t size) {
    if (object)
        put(region, object, position_above(size));
}

uint16_t region_refusal(struct vmibus_ack *ack, int result, const struct region *region) {
    const struct account *account = region->charge.account, *greatest;
    const struct pool *blocks = region->blocks;

    if (result < 0)
        return refusal_of_bound(ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_MEMORY, REGION_OBJECT_MAX, 0, account->uid);
    if (result != REGION_FULL)
        return refusal_of_charge(ack, result, account, RESOURCE_BYTES);
    greatest = ledger_greatest_holder(account->ledger, RESOURCE_BYTES);
    return refusal_of_bound(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_MEMORY, blocks->capacity * blocks->block_size,
                            blocks->in_use * blocks->block_size, greatest ? greatest->uid : account->uid);
}
