/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An audience: receivers, each in a process of its own, that count what they hear and how long it took,
 * and check that nothing is missing.
 *
 * What they count is in memory shared with whoever started them.  A receiver says "here" on a pipe when
 * it has subscribed, and each time it has heard as much as it was told to expect.
 */
#ifndef BENCH_AUDIENCE_H
#define BENCH_AUDIENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "dbus.h"
#include "instance.h"

#define AUDIENCE_MAXIMUM 32
#define AUDIENCE_LATENCIES 4096

/** Written by the receiver, read by its owner once it has said "here". */
struct receiver {
    uint64_t heard;         /**< events of the round */
    uint64_t heard_ever;
    uint64_t holes;         /**< delivery numbers that did not follow */
    uint64_t gaps;          /**< GAP events, and messages that were something else */
    bool lost;              /**< the connection ended */
    uint32_t latencies[AUDIENCE_LATENCIES]; /**< of the round, ns */
};

struct audience_shared {
    _Atomic uint64_t expected; /**< events of a round */
    struct receiver receivers[AUDIENCE_MAXIMUM];
};

struct audience {
    struct audience_shared *shared;
    size_t n;
    pid_t pids[AUDIENCE_MAXIMUM];
    int here;               /**< read end of the pipe */
};

/** Starts @a n receivers of bus events (@a instance) or of D-Bus signals (@a broker); the other is NULL. 0 or an errno below 0. */
int audience_start(struct audience *audience, size_t n, const struct instance *instance, const struct dbus_broker *broker);

/** Ends them. Harmless on one that was not started. */
void audience_stop(struct audience *audience);

/** Begins a round: tells how much each is to hear. */
void audience_expect(struct audience *audience, uint64_t events);

/** Waits until every receiver has heard it all. 0, -ETIMEDOUT, -ECONNRESET a receiver was disconnected. */
int audience_wait(struct audience *audience);

/** What was missing, over all rounds and receivers. */
uint64_t audience_lost(const struct audience *audience);

#endif
