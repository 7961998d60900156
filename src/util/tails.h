/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks that long tails are gathered in, and that whoever executes the command may keep.
 *
 * Who hands a tail on offers its block meanwhile.  Who needs the octets for longer than that may keep the block
 * instead of copying them, pays for it as it would for the copy, and gives it back when it is done.  Who finds no block
 * of these gathers elsewhere, in memory that comes back at once; so however many are kept, and for how long, nobody is
 * refused a tail for it.
 *
 * Which block is on offer is known to the thread, not told to those between the two: most tails are not kept, and
 * a tail that comes from elsewhere is copied without anybody having to say so.
 *
 * Its owner may free it while blocks are kept: it ends with the last of these, and its arena must be there until then.
 * A block that is left to a thread which may never come back is there for ever, and its arena with it.
 *
 * One thread owns it; a block that is kept may be read by others.
 */
#ifndef UTIL_TAILS_H
#define UTIL_TAILS_H

#include <stdbool.h>
#include <stddef.h>

#include "util/arena.h"

struct tails;

/** A block that is kept. All zeros: none. */
struct kept_tail {
    struct tails *tails;
    void *octets;
};

/** Makes @a n blocks of @a size octets, carved from an arena. 0 or a negative errno. */
int tails_new(struct tails **tailsp, struct arena *arena, size_t size, size_t n);

/** The owner's end of it; every block that is not kept must be back. Takes (also NULL) and returns NULL. */
struct tails *tails_free(struct tails *tails);

/** A block to gather in, its contents undefined; NULL: none is left. */
void *tails_take(struct tails *tails);

/** Gives back a block that was taken and not kept. */
void tails_give(struct tails *tails, void *octets);

/** Offers a block that was taken, until tails_withdraw(). */
void tails_offer(struct tails *tails, void *octets);

/** Ends the offer. True: the block was kept, and is not the offerer's any more. */
bool tails_withdraw(void);

/**
 * Keeps what is on offer in this thread.
 * @param octets somewhere in the block
 * @param kept   filled
 * @return false: these octets are not on offer, so they are to be copied
 */
bool kept_tail_take(struct kept_tail *kept, const void *octets);

/** Gives it back. Harmless on zeros; leaves zeros. */
void kept_tail_give(struct kept_tail *kept);

/** Leaves it, and its arena, for ever to a thread that may still read it; it is not given back any more. Harmless on zeros. */
void kept_tail_abandon(const struct kept_tail *kept);

#endif
