/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One memory write, from the moment its command passed the gates at receipt to its outcome: one extent
 * or many, which are executed as one.
 *
 * Executing it: every page of every extent is translated (plan.h), the gates that may have changed
 * meanwhile are passed again, octets to expect are compared, then the octets move (writer.h), extent by
 * extent, in order.  If one cannot be written, those before are put back, the last first, from copies
 * taken before they were overwritten: where extents overlap, what was there first comes back.
 *
 * What lies in one stretch is written at once where no copy is taken and the file cannot be cut off meanwhile.
 *
 * A copy is not taken where a write cannot fail in the middle: octets that lie in one page and come from
 * memory that is ours alone, for the host's kernel has the page in hand before it moves the first one; and whatever
 * backing.h says that of, right before the first octet moves.
 *
 * Copying takes as long as writing (measured: raw pwrite(2) of 1 MiB is halved by a pread(2) before, in
 * whatever portions).  A long write that may fail is therefore copied ahead of itself by a second thread (copier.h):
 * each portion is copied before it is overwritten, while the one before it is being written.
 *
 * The source, and what to expect, may lie in memory that the client is changing meanwhile: each octet to
 * expect is read once, and so is each octet of the source, by the host's kernel.
 *
 * It runs on the loop's thread or on a worker; what it borrows outlives it there.
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
#include "memory/protect.h"
#include "policy/write_bounds.h"

struct buffer;
struct copier;

/** Octets in one piece of the host's memory, that lie in one range and one extent. */
struct write_piece {
    uint64_t skip;      /**< octets of the range before them */
    uint32_t len;       /**< at most WRITE_PIECE */
    uint32_t at;        /**< octets of the write before them */
    uint16_t range;     /**< index of the range */
    uint16_t extent;    /**< index of the extent */
};

_Static_assert(MEMCTX_RANGES_MAX <= UINT16_MAX && VMIBUS_EXTENTS_BOUND <= UINT16_MAX, "indices fit");

/** A piece is no longer, unless it lies in one page: what is copied ahead, and undone, at a time. */
#define WRITE_PIECE 65536u

/** Writes up to so many octets, in up to so many extents, are executed where they are received. */
#define WRITE_SMALL 4096u
#define WRITE_SMALL_EXTENTS 8u

struct write {
    struct memctx *memctx;
    const struct fence *fence;
    const _Atomic uint16_t *busy;   /**< the endpoint's: reason why nothing may be written now */
    const _Atomic bool *still;      /**< the endpoint's: the guest stands still; NULL: it need not */
    const struct write_allowance *allowance; /**< where policy lets write; NULL: everywhere */
    uint32_t protect;               /**< what the plan has found to be kept from: PROTECT_ bits */
    struct protect_span *spans;     /**< room for as many as pieces, where the allowance protects something */
    struct vmibus_guest_root root;  /**< the address space; levels 0: addresses are physical */
    uint64_t deadline;              /**< the last nanosecond that it may commit in; util/deadline.h */
    const struct vmibus_write_extent *extents;
    struct vmibus_extent_result *results; /**< out: one for each extent */
    uint32_t n_extents;
    uint32_t len;                   /**< octets of all extents */
    bool dry_run;
    bool allow_read_only;           /**< pages that the guest maps read-only may be written */
    bool expect_gpa;                /**< each extent begins where its gpa says, or nothing is written */
    bool loads;                     /**< on the loop's thread */
    bool expects;                   /**< compare first */
    const struct buffer *buffer;    /**< that the octets are in; NULL: in memory that is ours alone */
    uint64_t expect_offset;         /**< with a buffer: where in it those to expect begin */
    const uint8_t *expect;          /**< without: len octets to expect */
    const uint8_t *source;          /**< len octets; with a buffer: for system calls only, see buffer.h */
    void (*digest)(const void *octets, size_t len, uint8_t *digest); /**< NULL: none is taken. Else there is room for a copy */
    uint8_t *own_source;            /**< to be digested, with a buffer: room for len octets, which are then written from here */
    uint8_t *copy;                  /**< len octets for what was there before; NULL: none is needed */
    struct copier *copier;          /**< copies ahead; NULL: everything is copied before the first octet moves */
    struct write_piece *pieces;     /**< room for as many as write_pieces() says of all extents */
    size_t n_pieces;
    uint16_t end_epoch;             /**< out: reason to end the epoch for, VMIBUS_REASON_NONE if there is none */
};

/** Most pieces that an extent falls into. */
size_t write_pieces(uint64_t gva, uint32_t len);

/**
 * Whether room for a copy of what was there is needed: to compare, or to undo what may fail in the middle.
 * @param n_pieces what write_pieces() says of all extents
 * @param shared   the source is in memory that others can change or take away
 */
bool write_needs_copy(size_t n_pieces, bool expects, bool shared);

/** Fills @a ack for an errno of the host; notes that a process which is gone ends the epoch. */
uint16_t write_refuse_errno(struct write *write, struct vmibus_ack *ack, int r);

/** Executes it: fills error, reason, level, value and count of the ack, and the results. Any thread, one at a time. */
void write_execute(struct write *write, struct vmibus_ack *ack);

/** Makes the results of a write that was not executed say what its ACK says. */
void write_refuse_results(struct write *write, const struct vmibus_ack *ack);

#endif
