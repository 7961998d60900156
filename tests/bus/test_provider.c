/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who provides what of an endpoint, what sensors are told, and what they may say. */
#include "harness.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/stage.h"

static struct fake_control alice;
static struct fake_sensor first, second;

static void open_stage(void) {
    stage_open_default();
    fake_control_open(&alice, 1);
    fake_sensor_open(&first, "first", GROUPS_ALL, 0);
    fake_sensor_open(&second, "second", GROUPS_ALL, 0);
    first.answers = second.answers = true;
}

static void close_stage(void) {
    fake_control_close(&alice);
    fake_sensor_close(&second);
    fake_sensor_close(&first);
    stage_close();
}

/* Who gets a command of the POWER group. */
static const struct fake_sensor *who_executes(const struct endpoint *endpoint) {
    struct lease *lease = &endpoint->bus->endpoints[endpoint->slot]->leases[VMIBUS_LEASE_CLASS_POWER - 1];
    uint64_t token = lease->state == VMIBUS_LEASE_STATE_HELD ? lease->token : fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER);
    uint64_t command = fake_power(&alice, endpoint, token, VMIBUS_POWER_OPERATION_WAKEUP);

    if (fake_sensor_next_of(&first, VMIBUS_KIND_CMD_POWER))
        return &first;
    if (fake_sensor_next_of(&second, VMIBUS_KIND_CMD_POWER))
        return &second;
    assert_ack(&alice, command, UNSUPPORTED, NO_PROVIDER);
    return NULL;
}

TEST(test_one_vm_of_two_sensors_is_one_endpoint, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *by_process = fake_offer_as(&first, "vm", 0, 100, GROUPS_ALL);
    struct endpoint *by_uuid = fake_offer_as(&first, "vm2", 7, 0, GROUPS_ALL);

    ck_assert_ptr_eq(fake_offer_as(&second, "other name", 9, 100, GROUPS_ALL), by_process);
    ck_assert_ptr_eq(fake_offer_as(&second, "vm2", 7, 200, GROUPS_ALL), by_uuid);
    ck_assert_uint_eq(by_uuid->pid, 200);
    /* The process that was learnt names it from now on. */
    ck_assert_ptr_eq(fake_offer_as(&second, "vm2", 0, 200, GROUPS_ALL), by_uuid);
    ck_assert_uint_eq(stage.bus->n_present, 2);
    /* One UUID in two processes is two VMs: a migration on one host. */
    ck_assert_ptr_ne(fake_offer_as(&second, "vm2", 7, 201, GROUPS_ALL), by_uuid);
    /* The unset UUID names nobody. */
    ck_assert_ptr_ne(fake_offer(&first, "a", GROUPS_ALL), fake_offer(&second, "a", GROUPS_ALL));
}

TEST(test_first_provider_is_active_and_the_next_takes_over, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 1, 0, GROUPS_ALL);
    const struct vmibus_frame *frame;

    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_ROSTER));
    ck_assert_ptr_eq(fake_offer_as(&second, "vm", 1, 0, GROUPS_ALL), endpoint);
    ck_assert_ptr_eq(who_executes(endpoint), &first);
    fake_withdraw(&first, endpoint);
    ck_assert_ptr_eq(who_executes(endpoint), &second);
    fake_control_forget(&alice);
    fake_withdraw(&second, endpoint);
    frame = fake_control_next_of(&alice, VMIBUS_KIND_ROSTER);
    ck_assert_uint_eq(frame->roster.change, VMIBUS_ROSTER_CHANGE_REMOVED);
    ck_assert_uint_eq(stage.bus->n_present, 0);
}

/* A sensor in a process of its own that is started anew. */
TEST(test_first_provider_is_preferred_again_when_it_comes_again, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 1, 0, GROUPS_ALL);
    uint32_t before = first.sensor.preference;

    ck_assert_ptr_eq(fake_offer_as(&second, "vm", 1, 0, GROUPS_ALL), endpoint);
    for (unsigned i = 0; i < 2 * SENSOR_PLACES; i++) {
        fake_sensor_close(&first);
        ck_assert_ptr_eq(who_executes(endpoint), &second);
        fake_sensor_open(&first, "first", GROUPS_ALL, 0);
        first.answers = true;
        ck_assert_uint_eq(first.sensor.preference, before);
        ck_assert_ptr_eq(fake_offer_as(&first, "vm", 1, 0, GROUPS_ALL), endpoint);
        ck_assert_ptr_eq(who_executes(endpoint), &first);
    }
}

/* Whoever takes the name of one that is there takes nothing of its place. */
TEST(test_p09_sensor_of_the_same_name_comes_later, .setup = open_stage, .teardown = close_stage) {
    struct fake_sensor again;

    fake_sensor_open(&again, "first", GROUPS_ALL, 0);
    ck_assert_uint_gt(again.sensor.preference, second.sensor.preference);
    fake_sensor_close(&again);
}

TEST(test_fallback_serves_only_where_nobody_else_does, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame announce = {
        .header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE},
        .sensor_announce = {.state = VMIBUS_SENSOR_STATE_READY, .groups = GROUPS_ALL, .fallback = VMIBUS_GROUP_POWER},
    };
    struct endpoint *endpoint;

    sensor_hear(&first.sensor, &announce, NULL, NULL);
    endpoint = fake_offer_as(&first, "vm", 1, 0, GROUPS_ALL);
    ck_assert_ptr_eq(who_executes(endpoint), &first);
    fake_offer_as(&second, "vm", 1, 0, GROUPS_ALL);
    ck_assert_ptr_eq(who_executes(endpoint), &second);
    /* For the other groups it is no fallback. */
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_INPUT), &first.sensor);
    fake_withdraw(&second, endpoint);
    ck_assert_ptr_eq(who_executes(endpoint), &first);
    fake_offer_as(&second, "vm", 1, 0, GROUPS_ALL);
    announce.sensor_announce.fallback = 0;
    sensor_hear(&first.sensor, &announce, NULL, NULL);
    ck_assert_ptr_eq(who_executes(endpoint), &first);
}

TEST(test_offer_again_changes_what_is_provided, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 1, 0, VMIBUS_GROUP_LIFECYCLE);

    ck_assert_ptr_null(who_executes(endpoint));
    ck_assert_ptr_eq(fake_offer_as(&first, "vm", 1, 0, GROUPS_ALL), endpoint);
    ck_assert_ptr_eq(who_executes(endpoint), &first);
    ck_assert_uint_eq(first.sensor.n_endpoints, 1);
}

TEST(test_sensor_that_goes_takes_what_only_it_provides, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *both = fake_offer_as(&first, "both", 1, 0, GROUPS_ALL);
    const struct entry *entry;
    unsigned n_removed = 0;
    bool gone = false;

    fake_offer_as(&first, "mine", 2, 0, GROUPS_ALL);
    fake_offer_as(&second, "both", 1, 0, GROUPS_ALL);
    fake_subscribe(&alice, "*", KINDS_ALL);
    fake_control_forget(&alice);
    fake_sensor_close(&first);
    while ((entry = fake_control_next(&alice))) {
        n_removed += entry->frame.header.kind == VMIBUS_KIND_ROSTER && entry->frame.roster.change == VMIBUS_ROSTER_CHANGE_REMOVED;
        gone |= entry->frame.header.kind == VMIBUS_KIND_SENSOR && entry->frame.sensor.state == VMIBUS_SENSOR_STATE_GONE;
    }
    ck_assert_uint_eq(n_removed, 1);
    ck_assert(gone);
    ck_assert_ptr_eq(endpoint_provider(both, VMIBUS_GROUP_POWER), &second.sensor);
    fake_sensor_open(&first, "first", GROUPS_ALL, 0);
}

/* Knowledge keeps no VM: it joins what others provide, and stays no longer. */
TEST(test_knowledge_joins_and_does_not_keep, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer(&first, "vm", GROUPS_ALL), gone = {.slot = 9, .generation = 9, .name = "vm"};

    ck_assert_ptr_null(fake_offer(&second, "nobody's", 0));
    ck_assert_uint_eq(second.last_answer.ack.error, VMIBUS_ERROR_VALIDATION);
    ck_assert(!fake_join(&second, &gone, 0));
    ck_assert_uint_eq(second.last_answer.ack.error, VMIBUS_ERROR_GONE);
    ck_assert(fake_join(&second, endpoint, 0));
    fake_withdraw(&second, endpoint);
    ck_assert_uint_eq(stage.bus->n_present, 1);
    ck_assert(fake_join(&second, endpoint, 0));
    fake_withdraw(&first, endpoint);
    ck_assert_uint_eq(stage.bus->n_present, 0);
    /* Whoever says it provides nothing any more still ends it by withdrawing. */
    endpoint = fake_offer_as(&first, "vm", 5, 0, GROUPS_ALL);
    ck_assert_ptr_eq(fake_offer_as(&first, "vm", 5, 0, 0), endpoint);
    fake_withdraw(&first, endpoint);
    ck_assert_uint_eq(stage.bus->n_present, 0);
}

TEST(test_p09_offers_are_validated_and_bounded) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER}, .endpoint_offer = {.groups = GROUPS_ALL}};
    char name[VMIBUS_NAME_BOUND + 2];

    stage_open(&(struct stage_options){.n_endpoints = 3});
    fake_sensor_open(&first, "first", GROUPS_ALL, 0);
    sensor_hear(&first.sensor, &frame, NULL, NULL);
    ck_assert_uint_eq(first.last_answer.ack.error, VMIBUS_ERROR_VALIDATION);
    frame.header.tail_length = 3;
    sensor_hear(&first.sensor, &frame, "a\0b", NULL);
    ck_assert_uint_eq(first.last_answer.ack.error, VMIBUS_ERROR_VALIDATION);
    memset(name, 'n', sizeof(name));
    frame.header.tail_length = VMIBUS_NAME_BOUND + 1;
    sensor_hear(&first.sensor, &frame, name, NULL);
    ck_assert_uint_eq(first.last_answer.ack.error, VMIBUS_ERROR_VALIDATION);
    frame.header.tail_length = VMIBUS_NAME_BOUND;
    sensor_hear(&first.sensor, &frame, name, NULL);
    ck_assert_uint_eq(first.last_answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_ptr_nonnull(fake_offer(&first, "2", GROUPS_ALL));
    ck_assert_ptr_nonnull(fake_offer(&first, "3", GROUPS_ALL));
    ck_assert_ptr_null(fake_offer(&first, "4", GROUPS_ALL));
    ck_assert_uint_eq(first.last_answer.ack.error, VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(first.last_answer.ack.reason, VMIBUS_REASON_LIMIT_ENDPOINTS);
    fake_sensor_close(&first);
    ck_assert_uint_eq(stage_used(RESOURCE_ENDPOINTS), 0);
    stage_close();
}

TEST(test_lifecycle_is_heard_from_the_active_one_only, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 1, 0, GROUPS_ALL);
    struct fake_sensor stranger;
    const struct vmibus_frame *frame;

    fake_sensor_open(&stranger, "stranger", GROUPS_ALL, 0);
    fake_offer_as(&second, "vm", 1, 0, GROUPS_ALL);
    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_LIFECYCLE));
    fake_lifecycle(&stranger, endpoint, VMIBUS_VM_STATE_CRASHED);
    fake_lifecycle(&second, endpoint, VMIBUS_VM_STATE_PAUSED);
    fake_withdraw(&stranger, endpoint);
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE));
    fake_lifecycle(&first, endpoint, VMIBUS_VM_STATE_RUNNING);
    frame = fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE);
    ck_assert_uint_eq(frame->lifecycle.state, VMIBUS_VM_STATE_RUNNING);
    ck_assert_uint_eq(frame->header.source, first.sensor.id);
    fake_withdraw(&first, endpoint);
    fake_lifecycle(&second, endpoint, VMIBUS_VM_STATE_PAUSED);
    ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE)->lifecycle.state, VMIBUS_VM_STATE_PAUSED);
    fake_sensor_close(&stranger);
}

/* What only the bus or the authority may say, no sensor says. */
TEST(test_p09_sensor_cannot_speak_for_others, .setup = open_stage, .teardown = close_stage) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_ROSTER,        VMIBUS_KIND_MEMCTX, VMIBUS_KIND_MEMCTX_INVALIDATED,
                                             VMIBUS_KIND_LEASE,         VMIBUS_KIND_GAP,    VMIBUS_KIND_ERROR,
                                             VMIBUS_KIND_FENCE_DRAINED, VMIBUS_KIND_SENSOR};
    struct endpoint *endpoint = fake_offer(&first, "vm", GROUPS_ALL);

    fake_subscribe(&alice, "*", UINT64_MAX);
    fake_control_forget(&alice);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct vmibus_frame frame = {
            .header = {.kind = (uint16_t)kinds[i], .slot = endpoint->slot, .generation = endpoint->generation}};

        sensor_hear(&first.sensor, &frame, NULL, NULL);
    }
    ck_assert_ptr_null(fake_control_next(&alice));
}

/* --- demand ------------------------------------------------------------------------------------ */

static uint64_t demand_told(struct fake_sensor *sensor) {
    const struct vmibus_frame *frame = fake_sensor_next_of(sensor, VMIBUS_KIND_DEMAND);

    ck_assert_ptr_nonnull(frame);
    return frame->demand.kinds;
}

TEST(test_demand_is_told_as_it_changes, .setup = open_stage, .teardown = close_stage) {
    const uint64_t lifecycle = BIT(VMIBUS_KIND_LIFECYCLE), roster = BIT(VMIBUS_KIND_ROSTER);
    struct fake_control bob;
    struct endpoint *endpoint;

    endpoint = fake_offer_as(&first, "vm", 1, 0, GROUPS_ALL);
    ck_assert_ptr_null(fake_sensor_next(&first));
    fake_subscribe(&alice, "vm", lifecycle);
    ck_assert_uint_eq(demand_told(&first), lifecycle);
    fake_control_open(&bob, 2);
    fake_subscribe(&bob, "*", lifecycle);
    ck_assert_ptr_null(fake_sensor_next(&first));
    fake_subscribe(&bob, "*", lifecycle | roster);
    ck_assert_uint_eq(demand_told(&first), lifecycle | roster);
    /* A provider that comes later is told too, and only it. */
    ck_assert_ptr_eq(fake_offer_as(&second, "vm", 1, 0, GROUPS_ALL), endpoint);
    ck_assert_uint_eq(demand_told(&second), lifecycle | roster);
    ck_assert_ptr_null(fake_sensor_next(&first));
    fake_control_close(&bob);
    ck_assert_uint_eq(demand_told(&first), lifecycle);
    ck_assert_uint_eq(demand_told(&second), lifecycle);
    fake_subscribe(&alice, "vm", 0);
    ck_assert_uint_eq(demand_told(&first), 0);
    /* A VM that is covered already when it comes. */
    fake_subscribe(&alice, "late", roster);
    fake_offer(&first, "late", GROUPS_ALL);
    ck_assert_uint_eq(demand_told(&first), roster);
}

TEST(test_demand_follows_the_policy, .setup = open_stage, .teardown = close_stage) {
    const uint64_t kinds = BIT(VMIBUS_KIND_LIFECYCLE) | BIT(VMIBUS_KIND_MEMCTX);

    fake_offer(&first, "vm", GROUPS_ALL);
    fake_subscribe(&alice, "vm", kinds);
    ck_assert_uint_eq(demand_told(&first), kinds);
    stage_new_policy();
    stage_allow(1, "*", VMIBUS_CAP_OBSERVE, 0);
    stage_apply_policy();
    ck_assert_uint_eq(demand_told(&first), BIT(VMIBUS_KIND_LIFECYCLE));
    stage_new_policy();
    stage_allow(1, "other", VMIBUS_CAP_OBSERVE, 0);
    stage_apply_policy();
    ck_assert_uint_eq(demand_told(&first), 0);
    stage_new_policy();
    stage_allow(1, "vm", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    ck_assert_uint_eq(demand_told(&first), kinds);
}

HARNESS_SUITE("providers", HARNESS_QUICK)
