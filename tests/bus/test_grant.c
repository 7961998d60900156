/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Default deny: what a control may know of, hear and do, and what changes when the policy is replaced. */
#include "harness.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/stage.h"

#define ALICE 1000
#define BOB 1001

static struct fake_control alice, bob;
static struct fake_sensor sensor;

static void open_stage(void) {
    stage_open(&(struct stage_options){.with_link = true});
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    sensor.answers = true;
}

static void close_stage(void) {
    fake_sensor_close(&sensor);
    stage_close();
}

/* Whether anything came but answers. */
static bool heard_something(struct fake_control *control) {
    const struct entry *entry;

    while ((entry = fake_control_next(control)))
        if (entry->frame.header.kind != VMIBUS_KIND_ACK)
            return true;
    return false;
}

TEST(test_p01_without_a_grant_nothing_is_heard_or_done, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint, *later;

    stage_new_policy();
    stage_allow(BOB, "*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    endpoint = fake_offer(&sensor, "vm1", GROUPS_ALL);
    fake_control_open(&alice, ALICE);
    assert_ack(&alice, fake_subscribe(&alice, "*", KINDS_ALL), OK, NONE);
    assert_ack(&alice, fake_acquire(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_FAIL, 0), DENIED, NO_GRANT);
    assert_ack(&alice, fake_input(&alice, endpoint, 1, 30), DENIED, NO_GRANT);
    assert_ack(&alice, fake_power(&alice, endpoint, 1, VMIBUS_POWER_OPERATION_RESET), DENIED, NO_GRANT);
    assert_ack(&alice, fake_query(&alice, NULL, VMIBUS_QUERY_STATS), DENIED, NO_CAPABILITY);
    assert_ack(&alice, fake_query(&alice, NULL, VMIBUS_QUERY_SENSORS), DENIED, NO_CAPABILITY);
    assert_ack(&alice, fake_query(&alice, endpoint, VMIBUS_QUERY_GRANT), GONE, NONE);
    later = fake_offer(&sensor, "vm2", GROUPS_ALL);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    stage_memctx(later, 1, VMIBUS_MEMCTX_STATE_READY);
    fake_withdraw(&sensor, later);
    ck_assert(!heard_something(&alice));
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    fake_control_close(&alice);
}

TEST(test_p01_nothing_is_heard_unasked, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint;

    fake_control_open(&alice, ALICE);
    endpoint = fake_offer(&sensor, "vm1", GROUPS_ALL);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    fake_withdraw(&sensor, endpoint);
    ck_assert_ptr_null(fake_control_next(&alice));
    fake_control_close(&alice);
}

TEST(test_p01_what_is_heard_is_subscription_and_grant, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoints[3];
    const struct entry *entry;
    unsigned n_rosters = 0, n_lifecycles = 0;

    stage_new_policy();
    stage_allow(ALICE, "vm[12]", VMIBUS_CAP_OBSERVE, 0);
    stage_apply_policy();
    fake_control_open(&alice, ALICE);
    assert_ack(&alice, fake_subscribe(&alice, "vm[23]", BIT(VMIBUS_KIND_LIFECYCLE) | BIT(VMIBUS_KIND_MEMCTX)), OK, NONE);
    assert_ack(&alice, fake_subscribe(&alice, "vm1", BIT(VMIBUS_KIND_ROSTER)), OK, NONE);
    for (int i = 0; i < 3; i++) {
        endpoints[i] = fake_offer(&sensor, (const char *[]){"vm1", "vm2", "vm3"}[i], GROUPS_ALL);
        fake_lifecycle(&sensor, endpoints[i], VMIBUS_VM_STATE_RUNNING);
        stage_memctx(endpoints[i], 1, VMIBUS_MEMCTX_STATE_READY);
    }
    while ((entry = fake_control_next(&alice))) {
        if (entry->frame.header.kind == VMIBUS_KIND_ROSTER) {
            ck_assert_uint_eq(entry->frame.header.slot, endpoints[0]->slot);
            n_rosters++;
        } else if (entry->frame.header.kind == VMIBUS_KIND_LIFECYCLE) {
            ck_assert_uint_eq(entry->frame.header.slot, endpoints[1]->slot);
            n_lifecycles++;
        } else {
            ck_assert_uint_eq(entry->frame.header.kind, VMIBUS_KIND_ACK);
        }
    }
    ck_assert_uint_eq(n_rosters, 1);
    ck_assert_uint_eq(n_lifecycles, 1);
    fake_control_close(&alice);
}

/* An endpoint that one may not know of looks like one that is not there. */
TEST(test_p01_hidden_and_missing_endpoints_answer_alike, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *hidden = fake_offer(&sensor, "hidden", GROUPS_ALL);
    struct endpoint missing = {.slot = 5, .generation = 17}, bus = {}, beyond = {.slot = 1000};

    stage_new_policy();
    stage_allow(ALICE, "mine", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    fake_control_open(&alice, ALICE);
    for (unsigned i = VMIBUS_LEASE_CLASS_INPUT; i <= VMIBUS_LEASE_CLASS_MEMWRITE; i++) {
        enum vmibus_lease_class lease_class = (enum vmibus_lease_class)i;

        assert_ack(&alice, fake_acquire(&alice, hidden, lease_class, VMIBUS_LEASE_MODE_FAIL, 0), GONE, NONE);
        assert_ack(&alice, fake_acquire(&alice, &missing, lease_class, VMIBUS_LEASE_MODE_FAIL, 0), GONE, NONE);
    }
    assert_ack(&alice, fake_input(&alice, hidden, 1, 30), GONE, NONE);
    assert_ack(&alice, fake_input(&alice, &missing, 1, 30), GONE, NONE);
    assert_ack(&alice, fake_query(&alice, hidden, VMIBUS_QUERY_GRANT), GONE, NONE);
    assert_ack(&alice, fake_query(&alice, &missing, VMIBUS_QUERY_GRANT), GONE, NONE);
    assert_ack(&alice, fake_input(&alice, &bus, 1, 30), VALIDATION, BAD_FIELD);
    assert_ack(&alice, fake_input(&alice, &beyond, 1, 30), VALIDATION, BAD_FIELD);
    fake_control_close(&alice);
}

TEST(test_p01_missing_capability_is_named, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    const struct vmibus_ack *ack;
    uint64_t command;

    stage_new_policy();
    stage_allow(ALICE, "*", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_PAUSE, 0);
    stage_apply_policy();
    fake_control_open(&alice, ALICE);
    command = fake_acquire(&alice, endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL, 0);
    assert_ack(&alice, command, DENIED, NO_CAPABILITY);
    ack = fake_control_ack(&alice, command);
    ck_assert_uint_eq(ack->value, VMIBUS_CAP_MEM_WRITE);
    /* The POWER lease is for either of its capabilities, its commands are not. */
    command = fake_power(&alice, endpoint, fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER), VMIBUS_POWER_OPERATION_QUIT);
    assert_ack(&alice, command, DENIED, NO_CAPABILITY);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, VMIBUS_CAP_POWER);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    fake_control_close(&alice);
}

TEST(test_p01_grant_taken_away_ends_what_it_allowed, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    uint64_t input, power;

    stage_new_policy();
    stage_allow(ALICE, "vm", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    fake_control_open(&alice, ALICE);
    fake_subscribe(&alice, "*", KINDS_ALL & ~BIT(VMIBUS_KIND_LEASE));
    input = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT);
    power = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER);
    fake_control_forget(&alice);
    /* These wait, and may not be told any more once the grant is gone. */
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_READY);
    stage_new_policy();
    stage_allow(ALICE, "vm", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_POWER, 0);
    stage_apply_policy();
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
    assert_ack(&alice, fake_input(&alice, endpoint, input, 30), DENIED, NO_CAPABILITY);
    assert_ack(&alice, fake_power(&alice, endpoint, power, VMIBUS_POWER_OPERATION_RESET), OK, NONE);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_READY);
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_MEMCTX));
    alice.log.next = 0;
    ck_assert_ptr_nonnull(fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE));
    alice.log.next = 0;
    /* Whoever lost a lease is told without a subscription. */
    ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_LEASE)->lease.reason, VMIBUS_REASON_NO_CAPABILITY);
    fake_control_forget(&alice);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    stage_new_policy();
    stage_allow(ALICE, "other", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    assert_ack(&alice, fake_power(&alice, endpoint, power, VMIBUS_POWER_OPERATION_RESET), GONE, NONE);
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE));
    ck_assert_uint_eq(endpoint->leases[VMIBUS_LEASE_CLASS_POWER - 1].state, VMIBUS_LEASE_STATE_FREE);
    fake_control_close(&alice);
}

/* To whom an endpoint is hidden from now on it is gone; to whom it is shown again it is there again. */
TEST(test_p01_endpoint_that_is_granted_no_more_is_removed, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm1", GROUPS_ALL);
    const struct vmibus_frame *frame;

    fake_offer(&sensor, "vm2", GROUPS_ALL);
    fake_control_open(&alice, ALICE);
    fake_control_open(&bob, BOB);
    fake_subscribe(&alice, "*", KINDS_ALL);
    fake_subscribe(&bob, "*", KINDS_ALL);
    fake_control_take_all(&alice);
    fake_control_take_all(&bob);
    fake_control_forget(&alice);
    fake_control_forget(&bob);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED); /* waits, and is not to be told any more */
    stage_new_policy();
    stage_allow(ALICE, "vm2", CAPABILITIES_ALL, 0);
    stage_allow(BOB, "*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    fake_control_take_all(&alice);
    frame = fake_control_next_of(&alice, VMIBUS_KIND_ROSTER);
    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->roster.change, VMIBUS_ROSTER_CHANGE_REMOVED);
    ck_assert_uint_eq(frame->header.slot, endpoint->slot);
    ck_assert_uint_eq(frame->header.generation, endpoint->generation);
    ck_assert_ptr_null(fake_control_next(&alice));
    /* Nobody else is told. */
    fake_control_take_all(&bob);
    ck_assert_ptr_null(fake_control_next_of(&bob, VMIBUS_KIND_ROSTER));
    stage_new_policy();
    stage_allow(ALICE, "*", CAPABILITIES_ALL, 0);
    stage_allow(BOB, "*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    fake_control_take_all(&alice);
    frame = fake_control_next_of(&alice, VMIBUS_KIND_ROSTER);
    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->roster.change, VMIBUS_ROSTER_CHANGE_ADDED);
    ck_assert_uint_eq(frame->header.slot, endpoint->slot);
    fake_control_close(&alice);
    fake_control_close(&bob);
}

TEST(test_p01_grant_given_opens_what_was_asked_for, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);

    stage_new_policy();
    stage_allow(ALICE, "vm", VMIBUS_CAP_OBSERVE, 0);
    stage_apply_policy();
    fake_control_open(&alice, ALICE);
    fake_control_open(&bob, BOB);
    fake_subscribe(&alice, "*", KINDS_ALL);
    fake_subscribe(&bob, "*", BIT(VMIBUS_KIND_ROSTER) | BIT(VMIBUS_KIND_LIFECYCLE));
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_READY);
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_MEMCTX));
    ck_assert(!heard_something(&bob));
    alice.n_wakes = bob.n_wakes = 0;
    stage_new_policy();
    stage_allow(ALICE, "vm", CAPABILITIES_ALL, 0);
    stage_allow(BOB, "vm", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    ck_assert_uint_gt(alice.n_wakes, 0);
    ck_assert_uint_gt(bob.n_wakes, 0);
    ck_assert_ptr_nonnull(fake_control_next_of(&alice, VMIBUS_KIND_MEMCTX));
    ck_assert_ptr_nonnull(fake_control_next_of(&bob, VMIBUS_KIND_ROSTER));
    ck_assert_ptr_nonnull(fake_control_next_of(&bob, VMIBUS_KIND_LIFECYCLE));
    fake_control_close(&alice);
    fake_control_close(&bob);
}

/* Who waits in line is asked for its grant when its turn comes. */
TEST(test_p01_waiter_without_the_capability_is_passed_over, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    uint64_t token, command;

    fake_control_open(&alice, ALICE);
    fake_control_open(&bob, BOB);
    token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER);
    command = fake_acquire(&bob, endpoint, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
    stage_new_policy();
    stage_allow(ALICE, "*", CAPABILITIES_ALL, 0);
    stage_allow(BOB, "*", VMIBUS_CAP_OBSERVE, 0);
    stage_apply_policy();
    ck_assert_ptr_null(fake_control_ack(&bob, command));
    assert_ack(&alice, fake_release(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER, token), OK, NONE);
    assert_ack(&bob, command, DENIED, NO_CAPABILITY);
    ck_assert_uint_eq(endpoint->leases[VMIBUS_LEASE_CLASS_POWER - 1].state, VMIBUS_LEASE_STATE_FREE);
    fake_control_close(&alice);
    fake_control_close(&bob);
}

/* Whom the policy names nowhere any more has to go, and is told why as the last thing. */
TEST(test_p01_control_without_any_grant_has_to_go, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    const struct entry *entry;

    fake_control_open(&alice, ALICE);
    fake_subscribe(&alice, "*", KINDS_ALL);
    fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER);
    fake_control_forget(&alice);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    stage_new_policy();
    stage_allow(BOB, "*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    ck_assert(alice.failed);
    ck_assert(!control_may_submit(&alice.control));
    entry = fake_control_next(&alice);
    ck_assert_uint_eq(entry->frame.header.kind, VMIBUS_KIND_ERROR);
    ck_assert_uint_eq(entry->frame.error.reason, VMIBUS_REASON_NO_GRANT);
    ck_assert_ptr_null(fake_control_next(&alice));
    ck_assert_uint_eq(endpoint->leases[VMIBUS_LEASE_CLASS_POWER - 1].state, VMIBUS_LEASE_STATE_FREE);
    fake_control_close(&alice);
}

/* A rebound endpoint is told anew, and what waited from before does not confuse it. */
TEST(test_p01_policy_flapping_keeps_order, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    const struct entry *entry;
    uint64_t publication = 0;

    fake_control_open(&alice, ALICE);
    fake_subscribe(&alice, "*", KINDS_RETAINED);
    for (int i = 0; i < 10; i++) {
        fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
        stage_new_policy();
        stage_allow(ALICE, i % 2 ? "*" : "other", CAPABILITIES_ALL, 0);
        stage_apply_policy();
        fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    }
    while ((entry = fake_control_next(&alice)))
        if (entry->frame.header.kind == VMIBUS_KIND_LIFECYCLE) {
            ck_assert_uint_gt(entry->frame.header.publication, publication);
            publication = entry->frame.header.publication;
        }
    ck_assert_uint_eq(publication, endpoint->publication);
    ck_assert_uint_eq(stage_used(RESOURCE_EVENTS), 0);
    fake_control_close(&alice);
}

TEST(test_query_tells_counters_sensors_and_the_callers_grant, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    const struct vmibus_ack *ack;
    struct vmibus_counter_value values[64];
    struct vmibus_sensor_info info;
    uint64_t command;
    bool found = false;

    stage_new_policy();
    stage_allow(ALICE, "v*", VMIBUS_CAP_STATS | VMIBUS_CAP_INPUT, 5);
    stage_apply_policy();
    fake_control_open(&alice, ALICE);
    command = fake_query(&alice, endpoint, VMIBUS_QUERY_GRANT);
    ack = fake_control_ack(&alice, command);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack->count, VMIBUS_CAP_STATS | VMIBUS_CAP_INPUT);
    ck_assert_uint_eq(ack->value, 5);

    fake_query(&alice, NULL, VMIBUS_QUERY_STATS);
    fake_control_take_all(&alice);
    ack = &alice.log.entries[1]->frame.ack;
    ck_assert_uint_le(ack->count, 64);
    ck_assert_uint_eq(alice.log.entries[1]->frame.header.tail_length, ack->count * sizeof(values[0]));
    memcpy(values, alice.log.entries[1]->tail, ack->count * sizeof(values[0]));
    for (uint64_t i = 0; i < ack->count; i++) {
        ck_assert_ptr_nonnull(vmibus_counter_name(values[i].counter));
        if (values[i].counter == VMIBUS_COUNTER_ENDPOINTS)
            ck_assert_uint_eq(values[i].value, 1);
        if (values[i].counter == VMIBUS_COUNTER_COMMANDS_RECEIVED)
            ck_assert_uint_eq(values[i].value, 2);
        if (values[i].counter == VMIBUS_COUNTER_MEMWRITES) {
            ck_assert_uint_eq(values[i].value, 1234);
            found = true;
        }
    }
    ck_assert(found);

    fake_query(&alice, NULL, VMIBUS_QUERY_SENSORS);
    fake_control_take_all(&alice);
    ck_assert_uint_eq(alice.log.entries[2]->frame.ack.count, 1);
    memcpy(&info, alice.log.entries[2]->tail, sizeof(info));
    ck_assert_uint_eq(info.source, sensor.sensor.id);
    ck_assert_uint_eq(info.state, VMIBUS_SENSOR_STATE_READY);
    ck_assert_uint_eq(info.groups, GROUPS_ALL);
    ck_assert_uint_eq(info.endpoints, 1);
    ck_assert_str_eq((const char *)info.name, "fake");
    assert_ack(&alice, fake_query(&alice, NULL, (enum vmibus_query)99), VALIDATION, BAD_FIELD);
    fake_control_close(&alice);
}

HARNESS_SUITE("grants", HARNESS_QUICK)
