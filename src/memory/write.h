/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One memory write, from the moment its command passed the gates at receipt to its outcome.
 *
 * Executing it: every page is translated (plan.h), the gates that may have changed meanwhile are passed
 * again, then the octets move (writer.h).  A failure after the first octet is undone from a copy taken
 * before.  It runs on the loop's thread or on a worker; what it borrows outlives it there.
 */
#ifndef MEMORY_WRITE_H
#define MEMORY_WRITE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest.h>
#include <vmibus/protocol.h>

#include "memory/fence.h"
#include "memory/memctx.h"

/** Octets in one piece of the host's memory, that lie in one range. */
struct write_piece {
    uint32_t range;     /**< index of the range */
    uint32_t len;
    uint64_t skip;      /**< octets of the range before them */
};

/** Writes up to so many octets are executed where they are received. */
#define WRITE_SMALL 4096u

struct write {
    struct memctx *memctx;
    const struct fence *fence;
    const _Atomic uint16_t *busy;   /**< the endpoint's: reason why nothing may be written now */
    struct vmibus_guest_root root;  /**< the address space; levels 0: gva is a physical address */
    uint64_t gva;
    uint64_t deadline;              /**< the last nanosecond that it may commit in; util/deadline.h */
    uint32_t len;
    bool dry_run;
    bool allow_read_only;           /**< pages that the guest maps read-only may be written */
    bool loads;                     /**< on the loop's thread */
    const uint8_t *expect;          /**< NULL: nothing to compare */
    const uint8_t *source;
    uint8_t *copy;                  /**< len octets for what was there before; NULL: write_needs_copy() said no */
    struct write_piece *pieces;     /**< room for write_pieces() of them */
    size_t n_pieces;
    uint16_t end_epoch;             /**< out: reason to end the epoch for, VMIBUS_REASON_NONE if there is none */
};

/** Most pieces that a write of this address and length falls into. */
size_t write_pieces(uint64_t gva, uint32_t len);

/** Whether a copy of what was there is needed: to compare, or to undo what can fail in the middle. */
bool write_needs_copy(uint64_t gva, uint32_t len, bool expects);

/** Fills @a ack for an errno of the host; notes that a process which is gone ends the epoch. */
uint16_t write_refuse_errno(struct write *write, struct vmibus_ack *ack, int r);

/** Executes it: fills error, reason, level, value and count of the ack. Any thread, one at a time. */
void write_execute(struct write *write, struct vmibus_ack *ack);

#endif
