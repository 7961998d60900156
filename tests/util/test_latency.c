/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long commands took: which bucket a time falls into, and which kind it is counted for. */
#include "harness.h"

#include "util/latency.h"

#define N_BUCKETS 24

static struct latencies latencies;
static struct vmibus_latency got[LATENCY_KINDS];

static void count(enum vmibus_kind kind, uint64_t received, uint64_t finished) {
    latencies_count(&latencies, &(struct vmibus_ack){.command = (uint16_t)kind, .received = received, .finished = finished});
}

TEST(test_a_time_is_below_its_bucket_and_not_below_half_of_it) {
    for (size_t i = 0; i < N_BUCKETS; i++) {
        uint64_t bound = UINT64_C(1024) << i;

        latencies = (struct latencies){};
        count(VMIBUS_KIND_QUERY, 5, 5 + bound - 1);
        count(VMIBUS_KIND_QUERY, 5, 5 + bound);
        ck_assert_uint_eq(latencies_get(&latencies, got), 1);
        ck_assert_uint_eq(got[0].count, 2);
        ck_assert_uint_eq(got[0].sum, 2 * bound - 1);
        ck_assert_uint_eq(got[0].buckets[i].count, i < N_BUCKETS - 1 ? 1 : 2);
        if (i < N_BUCKETS - 1)
            ck_assert_uint_eq(got[0].buckets[i + 1].count, 1);
    }
}

TEST(test_the_ends) {
    count(VMIBUS_KIND_CMD_MEMWRITE, 7, 7);
    count(VMIBUS_KIND_CMD_MEMWRITE, 0, UINT64_MAX);
    /* A clock that went back, as between two machines, is no time. */
    count(VMIBUS_KIND_CMD_MEMWRITE, 9, 8);
    ck_assert_uint_eq(latencies_get(&latencies, got), 1);
    ck_assert_uint_eq(got[0].buckets[0].count, 2);
    ck_assert_uint_eq(got[0].buckets[N_BUCKETS - 1].count, 1);
}

/* Of each channel, no two kinds share a place. */
TEST(test_kinds_are_told_apart) {
    const enum vmibus_kind of_bus[] = {VMIBUS_KIND_SUBSCRIBE, VMIBUS_KIND_CMD_LEASE, VMIBUS_KIND_QUERY, VMIBUS_KIND_EXPLAIN};
    const enum vmibus_kind of_memory[] = {VMIBUS_KIND_CMD_MEMWRITE, VMIBUS_KIND_MEM_ATTACH, VMIBUS_KIND_MEM_QUERY,
                                          VMIBUS_KIND_MEM_LAYOUT, VMIBUS_KIND_MEM_ROOT, VMIBUS_KIND_MEM_BUSY};
    struct latencies other = {};

    for (size_t i = 0; i < sizeof(of_bus) / sizeof(of_bus[0]); i++)
        count(of_bus[i], 0, 1);
    ck_assert_uint_eq(latencies_get(&latencies, got), sizeof(of_bus) / sizeof(of_bus[0]));
    latencies = other;
    for (size_t i = 0; i < sizeof(of_memory) / sizeof(of_memory[0]); i++)
        count(of_memory[i], 0, 1);
    ck_assert_uint_eq(latencies_get(&latencies, got), sizeof(of_memory) / sizeof(of_memory[0]));
    for (size_t i = 0; i < sizeof(of_memory) / sizeof(of_memory[0]); i++)
        ck_assert_uint_eq(got[i].count, 1);
}

HARNESS_SUITE("latency", HARNESS_QUICK)
