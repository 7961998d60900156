/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The recorder of a process: takes the records of its intents log (util/audit.h) into its chain, and tells the journal.
 *
 * The intents log is the queue: a record is taken as soon as its command has ended and there is room in the chain's memory, at the
 * latest when it is about to be overwritten; what can be taken by then neither is counted.  What a writer that died had not
 * got to the disk is still in the intents log, and taken from there at the next start.
 *
 * Which commands are destructive is not known here: whoever executes one asks audit_require().
 */
#ifndef AUDIT_RECORDER_H
#define AUDIT_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "audit/chain.h"
#include "audit/journal.h"
#include "util/audit.h"

struct recorder_options {
    struct loop *loop;
    struct audit *audit;        /**< open; its keeper this becomes */
    int directory;              /**< where the chain is; borrowed, or a negative errno: why there is none */
    const char *writer;         /**< see chain_options */
    bool strict;                /**< destructive commands wait for the disk */
    uint32_t digest_bound;      /**< see struct audit */
    uint64_t segment_bytes;     /**< these as in chain_options */
    uint32_t keep;
    uint32_t idle_rate;         /**< records a second of each user's commands that changed nothing; 0: all are recorded */
    uint32_t commit_ms;
    uint32_t patience_ms;
    enum chain_full full;
    enum disk_way way;
    const char *journal;        /**< path of the journal's socket, borrowed; NULL: it is not told */
    /** What a person should know; @a bad: something does not work. May be NULL. */
    void (*log)(void *context, bool bad, const char *text);
    void *context;              /**< of log */
};

struct recorder {
    struct recorder_options options;
    struct chain chain;
    struct journal journal;
    uint64_t idle_from[CHAIN_USERS]; /**< of each user: CLOCK_MONOTONIC nanoseconds up to which its idle commands use the rate up */
    int unusable;               /**< errno: why there is no chain; 0: there is one */
    bool behind;                /**< records that have ended wait in the intents log */
    uint64_t lost;              /**< while there is no chain */
    uint64_t undurable;         /**< commands that should have waited and went on */
};

/**
 * Begins. A chain that cannot be is no reason not to: what that means for commands, policy says.
 * @return 0, or a negative errno: why there is no chain
 */
int recorder_init(struct recorder *recorder, const struct recorder_options *options);

/** Ends, waiting for the disk for a bounded time. Before the loop and the intents log do. Harmless if zeroed. */
void recorder_deinit(struct recorder *recorder);

#endif
