/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long commands took, counted by kind in buckets that double: enough for a median or a 99th part, and two additions
 * for each command.  Owned by whoever answers; one thread.
 */
#ifndef UTIL_LATENCY_H
#define UTIL_LATENCY_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

/** Kinds of one channel: those whose numbers differ in the lowest bits only. */
#define LATENCY_KINDS 32u

/** All zeros: nothing was counted. */
struct latencies {
    struct vmibus_latency of[LATENCY_KINDS]; /**< by the lowest bits of the kind */
};

/** Counts an answer. @param ack names the command, and when it was received and finished */
void latencies_count(struct latencies *latencies, const struct vmibus_ack *ack);

/**
 * Copies what was counted.
 * @param into room for LATENCY_KINDS
 * @return how many kinds there were
 */
size_t latencies_get(const struct latencies *latencies, struct vmibus_latency *into);

#endif
