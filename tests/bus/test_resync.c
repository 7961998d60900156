/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A memory authority that goes, and comes again: what the bus tells it, and what it makes of one that ended. */
#include "bus/resync.h"

#include <string.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "bus/stage.h"
#include "harness.h"

#define EPOCH UINT64_C(0x300000001)

static struct fake_sensor sensor;
static struct fake_control alice;
static struct endpoint *endpoint;

static void begin(void) {
    stage_open(&(struct stage_options){.with_link = true, .drain_ms = 600000});
    fake_sensor_open(&sensor, "sensor", GROUPS_ALL, 0);
    endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    fake_control_open(&alice, 0);
    stage.link_drains = false;
}

static void end(void) {
    fake_control_close(&alice);
    fake_sensor_close(&sensor);
    stage_close();
}

static struct lease *memwrite(void) {
    return &endpoint->leases[VMIBUS_LEASE_CLASS_MEMWRITE - 1];
}

static void skip_link(void) {
    while (stage_link_next())
        continue;
}

/* How many of a kind the link was told, up to LINK_SYNCED, which has to be the last. */
static unsigned told[64];

static void read_table(void) {
    const struct vmibus_frame *frame;
    uint16_t last = 0;

    memset(told, 0, sizeof(told));
    while ((frame = stage_link_next())) {
        told[frame->header.kind & 63]++;
        last = frame->header.kind;
    }
    ck_assert_uint_eq(last, VMIBUS_KIND_LINK_SYNCED);
}

static unsigned n_told(enum vmibus_kind kind) {
    return told[kind & 63];
}

TEST(test_table_tells_what_there_is, .setup = begin, .teardown = end) {
    uint64_t token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE);

    ck_assert_uint_ne(token, 0);
    skip_link();
    bus_memory_returned(stage.bus);
    bus_tell_all(stage.bus);
    read_table();
    ck_assert_uint_eq(n_told(VMIBUS_KIND_ENDPOINT_OPENED), 1);
    ck_assert_uint_eq(n_told(VMIBUS_KIND_SESSION_OPENED), 1);
    ck_assert_uint_eq(n_told(VMIBUS_KIND_FENCE_ISSUE), 1);
    ck_assert_uint_eq(n_told(VMIBUS_KIND_FENCE_REVOKE), 0);
}

TEST(test_p05_revocation_waits_for_the_same_authority, .setup = begin, .teardown = end) {
    uint64_t token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE);

    fake_release(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, token);
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_REVOKING);
    skip_link();
    bus_memory_returned(stage.bus);
    bus_tell_all(stage.bus);
    read_table();
    ck_assert_uint_eq(n_told(VMIBUS_KIND_FENCE_ISSUE), 0);
    ck_assert_uint_eq(n_told(VMIBUS_KIND_FENCE_REVOKE), 1);
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_REVOKING);
    stage_drained(endpoint, token);
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_FREE);
}

TEST(test_p05_another_authority_has_nothing_in_flight, .setup = begin, .teardown = end) {
    uint64_t token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE);

    fake_release(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, token);
    bus_memory_replaced(stage.bus, true);
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_FREE);
}

TEST(test_p05_lease_ends_with_its_authority, .setup = begin, .teardown = end) {
    (void)fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE);
    bus_memory_replaced(stage.bus, true);
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_FREE);
    ck_assert_int_eq(memwrite()->reason, VMIBUS_REASON_MEMORY_LOST);
}

TEST(test_lease_outlasts_the_first_authority_that_comes, .setup = begin, .teardown = end) {
    (void)fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE);
    bus_memory_replaced(stage.bus, false);
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_HELD);
}

TEST(test_p06_contexts_end_with_their_authority, .setup = begin, .teardown = end) {
    const struct retained *retained = &endpoint->retained[RETAINED_MEMCTX];

    stage_memctx(endpoint, EPOCH, VMIBUS_MEMCTX_STATE_READY);
    bus_memory_replaced(stage.bus, true);
    ck_assert_uint_eq(retained->frame.header.kind, VMIBUS_KIND_MEMCTX_INVALIDATED);
    ck_assert_uint_eq(retained->frame.memctx_invalidated.epoch, EPOCH);
    ck_assert_uint_eq(retained->frame.memctx_invalidated.reason, VMIBUS_REASON_MEMORY_LOST);
}

TEST(test_p05_leases_end_with_the_memory_channel, .setup = begin, .teardown = end) {
    struct vmibus_frame lost = {.header = {.kind = VMIBUS_KIND_SESSION_LOST}};

    (void)fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE);
    (void)fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER);
    bus_hear_link(stage.bus, &lost, NULL); /* of nobody */
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_HELD);
    memcpy(lost.session_lost.session, alice.control.session, sizeof(alice.control.session));
    bus_hear_link(stage.bus, &lost, NULL);
    ck_assert_int_eq(memwrite()->state, VMIBUS_LEASE_STATE_REVOKING);
    ck_assert_int_eq(endpoint->leases[VMIBUS_LEASE_CLASS_POWER - 1].state, VMIBUS_LEASE_STATE_FREE);
}

HARNESS_SUITE("resync", HARNESS_QUICK)
