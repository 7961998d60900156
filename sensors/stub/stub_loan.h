/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The RAM of a synthetic VM that others may still look at.
 *
 * RAM that was proposed as a layout is on loan from then on, until the memory authority refuses it, or
 * tells that its epoch is retired.  Only then is it used again, by the next boot of the VM; one that begins while somebody
 * holds it gets fresh RAM.  So whoever reads an ended epoch finds what it held, and never what a later boot puts there.
 *
 * The loop's thread only.
 */
#ifndef STUB_LOAN_H
#define STUB_LOAN_H

#include <stdbool.h>
#include <stdint.h>

#include "stub_ram.h"

struct stub_loan;

struct stub_loans {
    struct stub_loan *first;    /**< in the order of the proposals */
};

/** The RAM is about to be proposed. 0 or -ENOMEM. */
int stub_loans_add(struct stub_loans *loans, struct stub_ram *ram);

/** The verdict on the oldest proposal without one. @param epoch 0: it was refused */
void stub_loans_settle(struct stub_loans *loans, uint64_t epoch);

/** An epoch is retired: its RAM comes back. */
void stub_loans_return(struct stub_loans *loans, uint64_t epoch);

/** Whether the RAM is on loan. */
bool stub_loans_have(const struct stub_loans *loans, const struct stub_ram *ram);

/**
 * RAM for a boot of the VM: the RAM it has, unless that is on loan; else fresh RAM.
 * @param ram its reference is consumed, also on failure
 * @return a reference; NULL: out of memory
 */
struct stub_ram *stub_loans_renew(struct stub_loans *loans, struct stub_ram *ram);

/** Forgets all of it: nothing comes back any more. */
void stub_loans_drop(struct stub_loans *loans);

#endif
