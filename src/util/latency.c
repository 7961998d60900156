/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/latency.h"

/* Octaves of nanoseconds below the second bucket. */
#define FIRST_SHIFT 10

#define BUCKETS (sizeof(((struct vmibus_latency *)NULL)->buckets) / sizeof(struct vmibus_latency_bucket))

static size_t bucket_of(uint64_t ns) {
    size_t bucket = ns >> FIRST_SHIFT ? (size_t)(64 - __builtin_clzll(ns >> FIRST_SHIFT)) : 0;

    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

void latencies_count(struct latencies *latencies, const struct vmibus_ack *ack) {
    struct vmibus_latency *latency = &latencies->of[ack->command % LATENCY_KINDS];
    uint64_t ns = ack->finished > ack->received ? ack->finished - ack->received : 0;

    latency->command = ack->command;
    latency->count++;
    latency->sum += ns;
    latency->buckets[bucket_of(ns)].count++;
}

size_t latencies_get(const struct latencies *latencies, struct vmibus_latency *into) {
    size_t n = 0;

    for (size_t i = 0; i < LATENCY_KINDS; i++)
        if (latencies->of[i].count)
            into[n++] = latencies->of[i];
    return n;
}
