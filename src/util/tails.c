/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/tails.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "util/pool.h"

struct tails {
    struct pool blocks;
    size_t refs;    /* the owner's, and one for each block that is kept */
};

/* What this thread has on offer; octets NULL: nothing. */
static _Thread_local struct kept_tail offer;

int tails_new(struct tails **tailsp, struct arena *arena, size_t size, size_t n) {
    struct tails *tails = calloc(1, sizeof(*tails));
    int r;

    if (!tails)
        return -ENOMEM;
    r = pool_init(&tails->blocks, arena, size, n);
    if (r < 0) {
        free(tails);
        return r;
    }
    tails->refs = 1;
    *tailsp = tails;
    return 0;
}

static void tails_unref(struct tails *tails) {
    if (--tails->refs > 0)
        return;
    pool_deinit(&tails->blocks);
    free(tails);
}

struct tails *tails_free(struct tails *tails) {
    if (!tails)
        return NULL;
    assert(tails->blocks.in_use == tails->refs - 1);
    tails_unref(tails);
    return NULL;
}

void *tails_take(struct tails *tails) {
    return pool_take(&tails->blocks);
}

void tails_give(struct tails *tails, void *octets) {
    pool_give(&tails->blocks, octets);
}

void tails_offer(struct tails *tails, void *octets) {
    assert(!offer.octets);
    offer = (struct kept_tail){tails, octets};
}

bool tails_withdraw(void) {
    bool kept = !offer.octets;

    offer = (struct kept_tail){};
    return kept;
}

bool kept_tail_take(struct kept_tail *kept, const void *octets) {
    uintptr_t begin = (uintptr_t)offer.octets, at = (uintptr_t)octets;

    if (!begin || at < begin || at - begin >= offer.tails->blocks.block_size)
        return false;
    *kept = offer;
    kept->tails->refs++;
    offer = (struct kept_tail){};
    return true;
}

void kept_tail_give(struct kept_tail *kept) {
    struct kept_tail given = *kept;

    *kept = (struct kept_tail){};
    if (!given.octets)
        return;
    pool_give(&given.tails->blocks, given.octets);
    tails_unref(given.tails);
}

void kept_tail_abandon(const struct kept_tail *kept) {
    if (kept->octets)
        arena_abandon(kept->tails->blocks.arena);
}
