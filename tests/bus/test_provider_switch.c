/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several sensors see one VM: whose endpoint it is, who of them provides, and what happens when that changes. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/hold.h"
#include "bus/stage.h"

#define KEY_A 30
#define KEY_B 48

static struct fake_control alice, bob;
static struct fake_sensor first, second;

static void open_with(const struct stage_options *options) {
    stage_open(options);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    fake_sensor_open(&first, "first", GROUPS_ALL, 0);
    fake_sensor_open(&second, "second", GROUPS_ALL, 0);
}

static void open_stage(void) {
    open_with(&(struct stage_options){.with_link = true});
    memset(first.sensor.session, 1, sizeof(first.sensor.session));
    memset(second.sensor.session, 2, sizeof(second.sensor.session));
}

static void close_stage(void) {
    fake_control_close(&alice);
    fake_control_close(&bob);
    if (second.opened)
        fake_sensor_close(&second);
    if (first.opened)
        fake_sensor_close(&first);
    stage_close();
}

static void go(struct fake_sensor *sensor) {
    fake_sensor_close(sensor);
    sensor->opened = false;
}

static void announce(struct fake_sensor *sensor, const char *name, enum vmibus_sensor_state state, uint32_t fallback) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE},
        .sensor_announce = {.state = (uint8_t)state, .groups = GROUPS_ALL, .fallback = fallback},
    };

    memcpy(frame.sensor_announce.name, name, strlen(name));
    sensor_hear(&sensor->sensor, &frame, NULL, NULL);
}

/* Tells more of a VM that was offered before. */
static void identify(struct fake_sensor *sensor, const struct endpoint *endpoint, uint8_t uuid, uint32_t pid) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER,
                   .slot = endpoint->slot,
                   .generation = endpoint->generation,
                   .tail_length = 2},
        .endpoint_offer = {.uuid = {uuid}, .pid = pid, .start_time = pid, .groups = GROUPS_ALL},
    };

    sensor->last_answer = (struct vmibus_frame){};
    sensor_hear(&sensor->sensor, &frame, "vm", NULL);
}

static const struct vmibus_frame *last_roster(struct fake_control *control) {
    const struct vmibus_frame *frame, *last = NULL;

    while ((frame = fake_control_next_of(control, VMIBUS_KIND_ROSTER)))
        last = frame;
    return last;
}

static const struct vmibus_frame *last_link_of(enum vmibus_kind kind) {
    const struct vmibus_frame *frame, *last = NULL;

    while ((frame = stage_link_next()))
        if (frame->header.kind == kind)
            last = frame;
    return last;
}

/* --- whose endpoint it is ------------------------------------------------------------------------ */

TEST(test_uuid_and_process_are_learnt_from_whoever_knows, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 0, 100, GROUPS_ALL);
    const struct vmibus_frame *frame;

    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_ROSTER));
    fake_control_forget(&alice);
    ck_assert_ptr_eq(fake_offer_as(&second, "vm", 7, 100, GROUPS_ALL), endpoint);
    frame = last_roster(&alice);
    ck_assert_uint_eq(frame->roster.uuid[0], 7);
    frame = last_link_of(VMIBUS_KIND_ENDPOINT_OPENED);
    ck_assert_uint_eq(frame->endpoint_opened.uuid[0], 0); /* it was not who introduced the VM */
    /* What it knows stays: one process is one VM, whatever UUID comes with it. */
    ck_assert_ptr_eq(fake_offer_as(&second, "vm", 8, 100, GROUPS_ALL), endpoint);
    ck_assert_uint_eq(endpoint->uuid[0], 7);
    ck_assert_uint_eq(stage.bus->n_present, 1);
}

/* Whoever is granted a UUID, and subscribed to it, gets the endpoint as soon as it is known to be that one. */
TEST(test_p01_grants_and_patterns_follow_a_uuid_that_is_learnt, .setup = open_stage, .teardown = close_stage) {
    const char *pattern = "uuid:07000000-0000-0000-0000-000000000000";
    struct endpoint *endpoint;

    stage_new_policy();
    stage_allow(1, pattern, VMIBUS_CAP_OBSERVE, 0);
    stage_allow(2, "other", VMIBUS_CAP_OBSERVE, 0);
    stage_apply_policy();
    fake_subscribe(&alice, pattern, BIT(VMIBUS_KIND_ROSTER));
    fake_subscribe(&bob, "*", BIT(VMIBUS_KIND_ROSTER));
    endpoint = fake_offer_as(&first, "vm", 0, 100, GROUPS_ALL);
    ck_assert_ptr_null(last_roster(&alice));
    identify(&first, endpoint, 7, 0);
    ck_assert_uint_eq(last_roster(&alice)->header.slot, endpoint->slot);
    ck_assert_ptr_null(last_roster(&bob));
}

static bool knows(const struct fake_control *control, const struct endpoint *endpoint) {
    return control_binding(&control->control, endpoint->slot, endpoint->generation);
}

/* Alice may do everything on the UUID 7, bob on what is called vm. */
static void grant_by_uuid_and_name(void) {
    stage_new_policy();
    stage_allow(1, "uuid:07000000-0000-0000-0000-000000000000", CAPABILITIES_ALL, 0);
    stage_allow(1, "hers", CAPABILITIES_ALL, 0);
    stage_allow(2, "vm", CAPABILITIES_ALL, 0);
    stage_apply_policy();
}

/* A UUID is who introduced the VM's to say: by that of a second sensor nobody is let near it, here or at the memory authority. */
TEST(test_p01_uuid_that_a_second_sensor_says_gives_nothing, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint;

    grant_by_uuid_and_name();
    endpoint = fake_offer_as(&first, "vm", 0, 100, GROUPS_ALL);
    ck_assert_ptr_eq(fake_offer_as(&second, "vm", 7, 100, GROUPS_ALL), endpoint);
    ck_assert_uint_eq(endpoint->uuid[0], 7);
    ck_assert(!knows(&alice, endpoint) && knows(&bob, endpoint));
    ck_assert_uint_eq(last_link_of(VMIBUS_KIND_ENDPOINT_OPENED)->endpoint_opened.uuid[0], 0);
    identify(&second, endpoint, 7, 100);
    ck_assert(!knows(&alice, endpoint));
    /* Not when it is the only one left, either. */
    go(&first);
    identify(&second, endpoint, 7, 100);
    ck_assert(!knows(&alice, endpoint) && knows(&bob, endpoint));
}

/* Nor does it keep who introduced it from saying what it is. */
TEST(test_p09_uuid_of_a_second_sensor_gives_way, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint;

    grant_by_uuid_and_name();
    endpoint = fake_offer_as(&first, "vm", 0, 100, GROUPS_ALL);
    fake_offer_as(&second, "vm", 9, 100, GROUPS_ALL);
    identify(&first, endpoint, 7, 0);
    ck_assert_uint_eq(first.last_answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(endpoint->uuid[0], 7);
    ck_assert(knows(&alice, endpoint));
    ck_assert_uint_eq(last_link_of(VMIBUS_KIND_ENDPOINT_OPENED)->endpoint_opened.uuid[0], 7);
    identify(&second, endpoint, 9, 0);
    ck_assert_uint_eq(endpoint->uuid[0], 7);
}

/* An endpoint of one's own, which then turns out to be the VM of another. */
TEST(test_p01_vm_does_not_move_under_another_name, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *hers, *vm;

    grant_by_uuid_and_name();
    hers = fake_offer_as(&second, "hers", 7, 0, GROUPS_ALL);
    vm = fake_offer_as(&first, "vm", 0, 100, GROUPS_ALL);
    identify(&second, hers, 0, 100);
    ck_assert_uint_eq(second.last_answer.ack.reason, VMIBUS_REASON_SAME_VM);
    ck_assert_uint_eq(stage.bus->n_present, 2);
    ck_assert(knows(&alice, hers) && !knows(&alice, vm));
    ck_assert_ptr_eq(endpoint_provider(vm, VMIBUS_GROUP_MEMORY), &first.sensor);
    ck_assert_uint_eq(hers->pid, 0);
}

/* Under the same name they are one: the name counts, the UUID that came with the other one does not. */
TEST(test_p01_uuid_does_not_come_with_an_endpoint_without_process, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *hers;

    grant_by_uuid_and_name();
    hers = fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    ck_assert(knows(&alice, hers));
    fake_offer_as(&first, "vm", 0, 100, GROUPS_ALL);
    identify(&second, hers, 0, 100);
    ck_assert_uint_eq(stage.bus->n_present, 1);
    ck_assert(!knows(&alice, hers) && knows(&bob, hers));
    identify(&first, hers, 7, 0);
    ck_assert(knows(&alice, hers));
}

/* One that introduced a VM by an offer that awaits no answer does not go along: its word ends there, and is nobody's after it. */
TEST(test_p01_word_of_a_sensor_ends_with_it, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER, .tail_length = 2},
        .endpoint_offer = {.pid = 100, .start_time = 100, .groups = GROUPS_ALL},
    };
    struct endpoint *vm;

    grant_by_uuid_and_name();
    vm = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    sensor_hear(&second.sensor, &frame, "vm", NULL);
    ck_assert_uint_eq(stage.bus->n_present, 2);
    identify(&first, vm, 0, 100);
    ck_assert_uint_eq(stage.bus->n_present, 1);
    ck_assert(!knows(&alice, vm) && knows(&bob, vm));
    go(&second);
    fake_sensor_open(&second, "third", GROUPS_ALL, 0);
    ck_assert_ptr_eq(fake_offer_as(&second, "vm", 7, 100, GROUPS_ALL), vm);
    ck_assert(!knows(&alice, vm) && knows(&bob, vm));
}

/* A claim to somebody else's UUID takes nothing from whose process contradicts it. */
TEST(test_p09_claimed_uuid_hijacks_nothing, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *mine = fake_offer_as(&first, "vm", 7, 100, GROUPS_ALL);
    struct endpoint *claimed = fake_offer_as(&second, "vm", 7, 666, GROUPS_ALL);

    ck_assert_ptr_nonnull(claimed);
    ck_assert_ptr_ne(claimed, mine);
    ck_assert_ptr_eq(endpoint_provider(mine, VMIBUS_GROUP_MEMORY), &first.sensor);
    ck_assert_uint_eq(mine->pid, 100);
    /* Nor by telling it afterwards. */
    identify(&second, claimed, 0, 100);
    ck_assert_uint_eq(second.last_answer.ack.error, VMIBUS_ERROR_VALIDATION);
    identify(&second, mine, 0, 0);
    ck_assert_uint_eq(stage.bus->n_present, 2);
    ck_assert_ptr_eq(endpoint_provider(mine, VMIBUS_GROUP_MEMORY), &first.sensor);
    /* Without a process it could mean either: that is no guess to make. */
    ck_assert_ptr_null(fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL));
    ck_assert_uint_eq(second.last_answer.ack.reason, VMIBUS_REASON_SAME_VM);
}

TEST(test_two_endpoints_that_are_one_vm_become_the_older_one, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *older = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    struct endpoint *younger = fake_offer_as(&second, "vm", 0, 100, GROUPS_ALL);
    struct fake_sensor third;
    uint32_t slot = younger->slot;
    uint64_t generation = younger->generation;
    const struct vmibus_frame *frame;

    fake_sensor_open(&third, "third", GROUPS_ALL, 0);
    fake_lifecycle(&second, younger, VMIBUS_VM_STATE_PAUSED);
    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_ROSTER));
    fake_control_forget(&alice);
    second.last_answer = (struct vmibus_frame){};
    ck_assert_ptr_eq(fake_offer_as(&third, "vm", 7, 100, GROUPS_ALL), older);
    ck_assert_ptr_null(bus_endpoint(stage.bus, slot, generation));
    frame = fake_control_next_of(&alice, VMIBUS_KIND_ROSTER);
    ck_assert_uint_eq(frame->roster.change, VMIBUS_ROSTER_CHANGE_REMOVED);
    ck_assert_uint_eq(frame->roster.reason, VMIBUS_REASON_SAME_VM);
    ck_assert_uint_eq(frame->header.slot, slot);
    ck_assert_uint_eq(last_roster(&alice)->roster.pid, 100);
    /* The sensor that had the other one is told by the answer to its offer, given again. */
    ck_assert_uint_eq(second.last_answer.header.slot, older->slot);
    ck_assert_uint_eq(second.last_answer.header.generation, older->generation);
    ck_assert_uint_eq(second.last_answer.ack.reason, VMIBUS_REASON_SAME_VM);
    ck_assert_uint_eq(second.sensor.n_endpoints, 1);
    /* What it told of the VM is not lost. */
    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_LIFECYCLE));
    go(&first);
    ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE)->lifecycle.state, VMIBUS_VM_STATE_PAUSED);
    fake_sensor_close(&third);
}

TEST(test_identity_told_later_unites_too, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *older = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    struct endpoint *younger = fake_offer(&second, "guest", GROUPS_ALL);
    uint64_t token = fake_hold(&alice, younger, VMIBUS_LEASE_CLASS_POWER), command;

    command = fake_power(&alice, younger, token, VMIBUS_POWER_OPERATION_RESET);
    identify(&second, younger, 7, 0);
    ck_assert_uint_eq(second.last_answer.header.slot, older->slot);
    ck_assert_uint_eq(stage.bus->n_present, 1);
    assert_ack(&alice, command, GONE, WITHDRAWN);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&second, VMIBUS_KIND_ACTIVE));
    ck_assert_uint_eq(stage_used(RESOURCE_LEASES), 0);
}

/* Neither a key nor a stopped guest is left behind by the endpoint that goes. */
TEST(test_p11_nothing_stays_down_when_two_become_one, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *older = fake_offer_as(&first, "vm", 7, 0, VMIBUS_GROUP_LIFECYCLE), *younger;
    struct vmibus_frame hold = {.header = {.kind = VMIBUS_KIND_CMD_VM}, .cmd_vm = {.operation = VMIBUS_VM_OPERATION_HOLD}};
    const struct vmibus_frame *frame;

    second.answers = true;
    younger = fake_offer_as(&second, "guest", 0, 100, GROUPS_ALL);
    fake_input(&alice, younger, fake_hold(&alice, younger, VMIBUS_LEASE_CLASS_INPUT), KEY_A);
    hold.header.slot = younger->slot;
    hold.header.generation = younger->generation;
    fake_control_submit(&alice, &hold, NULL, 0);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&second, VMIBUS_KIND_CMD_VM));
    identify(&second, younger, 7, 0);
    frame = fake_sensor_next_of(&second, VMIBUS_KIND_CMD_VM);
    ck_assert_uint_eq(frame->cmd_vm.operation, VMIBUS_VM_OPERATION_LET_GO);
    ck_assert_uint_eq(frame->header.generation, older->generation);
    frame = fake_sensor_next_of(&second, VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(frame->cmd_input.events[0].code, KEY_A);
    ck_assert_int_eq(frame->cmd_input.events[0].value, 0);
    ck_assert_uint_eq(stage.bus->n_held, 0);
}

/* --- who provides -------------------------------------------------------------------------------- */

TEST(test_roster_names_the_active_providers, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint;

    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_ROSTER));
    endpoint = fake_offer_as(&first, "vm", 7, 0, VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER);
    fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    {
        const struct vmibus_roster *roster = &last_roster(&alice)->roster;

        ck_assert_uint_eq(roster->power_source, first.sensor.id);
        ck_assert_uint_eq(roster->input_source, second.sensor.id);
        ck_assert_uint_eq(roster->screen_source, 0);
    }
    fake_withdraw(&first, endpoint);
    ck_assert_uint_eq(last_roster(&alice)->roster.power_source, second.sensor.id);
}

TEST(test_sensor_named_first_is_preferred_once_nothing_is_under_way, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    uint64_t token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER), command;
    const struct vmibus_frame *reset;

    command = fake_power(&alice, endpoint, token, VMIBUS_POWER_OPERATION_RESET);
    reset = fake_sensor_next_of(&second, VMIBUS_KIND_CMD_POWER);
    fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_LIFECYCLE), &first.sensor);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_POWER), &second.sensor);
    ck_assert_uint_eq(fake_sensor_next_of(&first, VMIBUS_KIND_ACTIVE)->active.groups, GROUPS_ALL & ~VMIBUS_GROUP_POWER);
    ck_assert_uint_eq(fake_sensor_next_of(&second, VMIBUS_KIND_ACTIVE)->active.groups, VMIBUS_GROUP_POWER);
    fake_complete(&second, reset, VMIBUS_ERROR_OK);
    assert_ack(&alice, command, OK, NONE);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_POWER), &first.sensor);
    ck_assert_uint_eq(fake_sensor_next_of(&first, VMIBUS_KIND_ACTIVE)->active.groups, GROUPS_ALL);
}

/* Keys go on being somebody's: the provider stays until they are released, and the release comes from it. */
TEST(test_better_input_provider_waits_for_keys, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    uint64_t token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT);

    second.answers = true;
    fake_input(&alice, endpoint, token, KEY_A);
    fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_INPUT), &second.sensor);
    assert_ack(&alice, fake_release(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT, token), OK, NONE);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&second, VMIBUS_KIND_INPUT_RELEASE));
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_INPUT), &first.sensor);
    ck_assert_ptr_null(fake_sensor_next_of(&first, VMIBUS_KIND_CMD_INPUT));
}

/* --- a provider that is lost --------------------------------------------------------------------- */

static void by_withdrawal(const struct endpoint *endpoint) {
    fake_withdraw(&first, endpoint);
}

static void by_end_of_the_sensor(const struct endpoint *endpoint) {
    (void)endpoint;
    go(&first);
}

static void by_failure(const struct endpoint *endpoint) {
    (void)endpoint;
    announce(&first, "first", VMIBUS_SENSOR_STATE_FAILED, 0);
}

static void by_offering_less(const struct endpoint *endpoint) {
    ck_assert_ptr_eq(fake_offer_as(&first, "vm", 7, 0, VMIBUS_GROUP_SCREEN), endpoint);
}

static void (*const losses[])(const struct endpoint *endpoint) = {
    by_withdrawal,
    by_end_of_the_sensor,
    by_failure,
    by_offering_less,
};

#define N_LOSSES (sizeof(losses) / sizeof(losses[0]))

/* The order in which the parties hear of things: what the next provider had been sent when the command was answered. */
static size_t n_sent_when_answered;

static void note_sent(struct fake_control *control) {
    (void)control;
    n_sent_when_answered = 0;
    for (size_t i = 0; i < second.log.n; i++)
        n_sent_when_answered += second.log.entries[i]->frame.header.kind == VMIBUS_KIND_CMD_POWER ||
                                second.log.entries[i]->frame.header.kind == VMIBUS_KIND_CMD_INPUT ||
                                second.log.entries[i]->frame.header.kind == VMIBUS_KIND_INPUT_RELEASE;
}

static void lose_one(unsigned how) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    uint64_t power = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_POWER), input, in_flight, pressed, command;
    const struct vmibus_frame *frame;

    fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    input = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT);
    fake_control_take_all(&alice);
    pressed = fake_input(&alice, endpoint, input, KEY_B);
    fake_complete(&first, fake_sensor_next_of(&first, VMIBUS_KIND_CMD_INPUT), VMIBUS_ERROR_OK);
    assert_ack(&alice, pressed, OK, NONE);
    pressed = fake_input(&alice, endpoint, input, KEY_A);
    in_flight = fake_power(&alice, endpoint, power, VMIBUS_POWER_OPERATION_RESET);
    fake_control_take_all(&alice);
    n_sent_when_answered = 99;
    alice.on_wake = note_sent;
    losses[how](endpoint);
    alice.on_wake = NULL;
    if (how == 2) {
        assert_ack(&alice, in_flight, IO, SENSOR_FAILED);
        assert_ack(&alice, pressed, IO, SENSOR_FAILED);
    } else {
        assert_ack(&alice, in_flight, GONE, WITHDRAWN);
        assert_ack(&alice, pressed, GONE, WITHDRAWN);
    }
    ck_assert_uint_eq(n_sent_when_answered, 0);
    /* The keys first: both may be down. The token is as good as before. */
    command = fake_input(&alice, endpoint, input, 35);
    frame = fake_sensor_next_of(&second, VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(frame->cmd_input.count, 2);
    ck_assert_uint_eq(frame->cmd_input.events[0].code, KEY_A);
    ck_assert_int_eq(frame->cmd_input.events[0].value, 0);
    ck_assert_uint_eq(frame->cmd_input.events[1].code, KEY_B);
    ck_assert_int_eq(frame->cmd_input.events[1].value, 0);
    frame = fake_sensor_next_of(&second, VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(frame->cmd_input.events[0].code, 35);
    fake_complete(&second, frame, VMIBUS_ERROR_OK);
    assert_ack(&alice, command, OK, NONE);
    command = fake_power(&alice, endpoint, power, VMIBUS_POWER_OPERATION_WAKEUP);
    fake_complete(&second, fake_sensor_next_of(&second, VMIBUS_KIND_CMD_POWER), VMIBUS_ERROR_OK);
    assert_ack(&alice, command, OK, NONE);
}

TEST(test_p05_p07_switch_is_ordered_and_leases_stay, .iterations = N_LOSSES, .setup = open_stage, .teardown = close_stage) {
    lose_one((unsigned)_i);
}

/* A release that the lost provider owes is owed by the next one, and nobody gets the lease before. */
TEST(test_p05_next_provider_owes_the_release, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    uint64_t token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT), queued;
    const struct vmibus_frame *frame;

    fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    fake_input(&alice, endpoint, token, KEY_A);
    fake_complete(&first, fake_sensor_next_of(&first, VMIBUS_KIND_CMD_INPUT), VMIBUS_ERROR_OK);
    queued = fake_acquire(&bob, endpoint, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_QUEUE, 0);
    fake_release(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT, token);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&first, VMIBUS_KIND_INPUT_RELEASE));
    fake_withdraw(&first, endpoint);
    ck_assert_ptr_null(fake_control_ack(&bob, queued));
    frame = fake_sensor_next_of(&second, VMIBUS_KIND_CMD_INPUT);
    ck_assert_int_eq(frame->cmd_input.events[0].value, 0);
    fake_complete(&second, frame, VMIBUS_ERROR_OK);
    frame = fake_sensor_next_of(&second, VMIBUS_KIND_INPUT_RELEASE);
    ck_assert_ptr_null(fake_control_ack(&bob, queued));
    fake_complete(&second, frame, VMIBUS_ERROR_OK);
    assert_ack(&bob, queued, OK, NONE);
}

TEST(test_p11_hold_ends_visibly_with_its_provider, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_VM, .slot = endpoint->slot, .generation = endpoint->generation},
        .cmd_vm = {.operation = VMIBUS_VM_OPERATION_HOLD},
    };
    uint64_t command;

    fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    first.answers = second.answers = true;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    assert_ack(&alice, command, OK, NONE);
    go(&first);
    ck_assert_uint_eq(stage.bus->n_held, 0);
    frame.cmd_vm.operation = VMIBUS_VM_OPERATION_LET_GO;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    assert_ack(&alice, command, EXPIRED, QUIESCE_FAILED);
    /* The next one holds as well. */
    frame.cmd_vm.operation = VMIBUS_VM_OPERATION_HOLD;
    frame.header.timestamp = 0;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    assert_ack(&alice, command, OK, NONE);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&second, VMIBUS_KIND_CMD_VM));
}

TEST(test_p07_run_state_is_told_anew_and_by_one_only, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);
    const struct vmibus_frame *frame;

    fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    fake_lifecycle(&first, endpoint, VMIBUS_VM_STATE_RUNNING);
    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_LIFECYCLE) | BIT(VMIBUS_KIND_ROSTER));
    fake_control_forget(&alice);
    fake_lifecycle(&second, endpoint, VMIBUS_VM_STATE_PAUSED);
    ck_assert_ptr_null(fake_control_next(&alice));
    fake_withdraw(&first, endpoint);
    frame = &fake_control_next(&alice)->frame;
    ck_assert_uint_eq(frame->header.kind, VMIBUS_KIND_ROSTER);
    ck_assert_uint_eq(frame->roster.lifecycle_source, second.sensor.id);
    frame = &fake_control_next(&alice)->frame;
    ck_assert_uint_eq(frame->header.kind, VMIBUS_KIND_LIFECYCLE);
    ck_assert_uint_eq(frame->header.source, second.sensor.id);
    ck_assert_uint_eq(frame->lifecycle.state, VMIBUS_VM_STATE_PAUSED);
    ck_assert_uint_eq(frame->lifecycle.cause, VMIBUS_LIFECYCLE_CAUSE_OBSERVED);
    ck_assert_ptr_null(fake_control_next(&alice));
    /* One that has told nothing yet does not let an old truth stand. */
    ck_assert_ptr_eq(fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL), endpoint);
    ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE)->lifecycle.state, VMIBUS_VM_STATE_UNKNOWN);
}

TEST(test_authority_is_told_who_provides_memory, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);

    ck_assert_uint_eq(last_link_of(VMIBUS_KIND_MEMORY_PROVIDER)->memory_provider.session[0], 1);
    fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    ck_assert_ptr_null(last_link_of(VMIBUS_KIND_MEMORY_PROVIDER));
    fake_withdraw(&first, endpoint);
    ck_assert_uint_eq(last_link_of(VMIBUS_KIND_MEMORY_PROVIDER)->memory_provider.session[0], 2);
    fake_offer_as(&second, "vm", 7, 0, VMIBUS_GROUP_LIFECYCLE);
    ck_assert_uint_eq(last_link_of(VMIBUS_KIND_MEMORY_PROVIDER)->memory_provider.session[0], 0);
}

TEST(test_failed_sensor_that_recovers_provides_again, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *endpoint = fake_offer_as(&first, "vm", 7, 0, GROUPS_ALL);

    fake_offer_as(&second, "vm", 7, 0, GROUPS_ALL);
    announce(&first, "first", VMIBUS_SENSOR_STATE_DEGRADED, 0);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_POWER), &first.sensor);
    announce(&first, "first", VMIBUS_SENSOR_STATE_FAILED, 0);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_POWER), &second.sensor);
    announce(&first, "first", VMIBUS_SENSOR_STATE_READY, 0);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_POWER), &first.sensor);
    /* A failed one is better than none. */
    go(&second);
    announce(&first, "first", VMIBUS_SENSOR_STATE_FAILED, 0);
    ck_assert_ptr_eq(endpoint_provider(endpoint, VMIBUS_GROUP_POWER), &first.sensor);
}

/* --- words on their way ------------------------------------------------------------------------- */

/* A sensor in another process speaks of the endpoint that it was told of last. */
struct distant {
    struct fake_sensor *sensor;
    struct vmibus_header endpoint;  /* that it believes in */
    uint8_t state;                  /* that it told last; 0: none */
};

static void believe(struct distant *distant) {
    distant->endpoint = distant->sensor->last_answer.header;
}

static void tell_state(struct distant *distant, uint8_t state) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_LIFECYCLE, .slot = distant->endpoint.slot, .generation = distant->endpoint.generation},
        .lifecycle = {.state = state},
    };

    sensor_hear(&distant->sensor->sensor, &frame, NULL, NULL);
    distant->state = state;
}

static void withdraw(const struct distant *distant) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_ENDPOINT_WITHDRAW,
                                            .slot = distant->endpoint.slot,
                                            .generation = distant->endpoint.generation}};

    sensor_hear(&distant->sensor->sensor, &frame, NULL, NULL);
}

/* One offers a VM by its UUID, the other by its process, and one of them learns that they are one: by whatever way round. */
static void meet(struct distant *one, struct distant *other) {
    struct endpoint *endpoint = fake_offer_as(one->sensor, "vm", 7, 0, GROUPS_ALL);

    believe(one);
    ck_assert_ptr_ne(fake_offer_as(other->sensor, "vm", 0, 100, GROUPS_ALL), endpoint);
    believe(other);
}

static void unite(struct distant *one, struct distant *other, bool by_one) {
    struct distant *learner = by_one ? one : other;

    identify(learner->sensor, bus_endpoint(stage.bus, learner->endpoint.slot, learner->endpoint.generation), 7, 100);
    ck_assert_uint_eq(stage.bus->n_present, 1);
}

static uint8_t last_state(struct fake_control *control) {
    const struct vmibus_frame *frame;
    uint8_t state = 0;

    /* Of the endpoint that stays; what was said of the other one ended with it. */
    while ((frame = fake_control_next_of(control, VMIBUS_KIND_LIFECYCLE)))
        if (bus_endpoint(stage.bus, frame->header.slot, frame->header.generation))
            state = frame->lifecycle.state;
    return state;
}

/* Whatever is said when: who subscribed to all knows in the end what the active provider said last. */
TEST(test_p07_lifecycle_is_told_although_the_younger_endpoint_goes, .setup = open_stage, .teardown = close_stage,
     .iterations = 64) {
    struct distant one = {.sensor = _i & 1 ? &first : &second}, other = {.sensor = _i & 1 ? &second : &first};
    const struct distant *active;

    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_ROSTER) | BIT(VMIBUS_KIND_LIFECYCLE));
    meet(&one, &other);
    if (_i & 2)
        tell_state(&one, VMIBUS_VM_STATE_PAUSED);
    if (_i & 4)
        tell_state(&other, VMIBUS_VM_STATE_PAUSED);
    unite(&one, &other, _i & 8);
    /* Neither has heard of that. */
    if (_i & 16)
        tell_state(&one, VMIBUS_VM_STATE_RUNNING);
    if (_i & 32)
        tell_state(&other, VMIBUS_VM_STATE_SUSPENDED);
    active = one.sensor == &first ? &one : &other;
    ck_assert_uint_eq(last_state(&alice), active->state);
    fake_subscribe(&bob, "*", BIT(VMIBUS_KIND_ROSTER) | BIT(VMIBUS_KIND_LIFECYCLE));
    ck_assert_uint_eq(last_state(&bob), active->state);
    /* A VM that ends meanwhile does not stay. */
    withdraw(&one);
    withdraw(&other);
    ck_assert_uint_eq(stage.bus->n_present, 0);
}

/* --- anything in any order ----------------------------------------------------------------------- */

#define N_SENSORS 4
#define N_STEPS 600

struct scene {
    struct fake_sensor sensors[N_SENSORS];
    struct endpoint *endpoint;
    uint64_t token;             /* of alice's INPUT lease, 0: none */
    uint64_t commands[N_STEPS]; /* each is answered exactly once in the end */
    size_t n_commands;
    uint64_t down;              /* who pressed: bit of sensor id; keys are nowhere down but there */
};

static struct scene scene;

/* What the roster says is what is so, and only one sensor is sent anything of a group. */
static void check_roster(void) {
    const struct vmibus_frame *frame = last_roster(&alice);
    const struct sensor *active;

    if (!scene.endpoint || !frame || frame->roster.change == VMIBUS_ROSTER_CHANGE_REMOVED)
        return;
    active = endpoint_provider(scene.endpoint, VMIBUS_GROUP_INPUT);
    ck_assert_uint_eq(frame->roster.input_source, active ? active->id : 0);
    ck_assert_uint_eq(frame->roster.groups, endpoint_groups(scene.endpoint));
}

/* A sensor gets keys only while it is the active one, and the first thing it gets after another had some is their release. */
static void look_at_sensor(struct fake_sensor *sensor) {
    const struct sensor *active = scene.endpoint ? endpoint_provider(scene.endpoint, VMIBUS_GROUP_INPUT) : NULL;
    const struct entry *entry;

    while ((entry = fake_sensor_next(sensor))) {
        const struct vmibus_frame *frame = &entry->frame;
        uint64_t me = UINT64_C(1) << sensor->sensor.id;

        if (frame->header.kind == VMIBUS_KIND_CMD_INPUT) {
            ck_assert_ptr_eq(active, &sensor->sensor);
            if (frame->cmd_input.events[0].value) {
                ck_assert_msg(!(scene.down & ~me), "a key went to a sensor while one of another was down");
                scene.down |= me;
            } else {
                scene.down = 0;
            }
        } else if (frame->header.kind == VMIBUS_KIND_INPUT_RELEASE && scene.down == me) {
            scene.down = 0;
        } else if (frame->header.kind == VMIBUS_KIND_CANCEL || frame->header.kind == VMIBUS_KIND_DEMAND ||
                   frame->header.kind == VMIBUS_KIND_ACTIVE) {
            continue;
        }
        if (random() % 3)
            fake_complete(sensor, frame, random() % 8 || frame->header.kind == VMIBUS_KIND_INPUT_RELEASE ? VMIBUS_ERROR_OK
                                                                                                       : VMIBUS_ERROR_IO);
    }
}

static void step(void) {
    struct fake_sensor *sensor = &scene.sensors[random() % N_SENSORS];
    static const char *const names[] = {"0", "1", "2", "3"};

    switch (random() % 8) {
    case 0:
    case 1:
        if (!sensor->opened)
            fake_sensor_open(sensor, names[sensor - scene.sensors], GROUPS_ALL, random() % 3 ? 0 : VMIBUS_GROUP_INPUT);
        scene.endpoint = fake_offer_as(sensor, "vm", 7, random() % 2 ? 100 : 0, random() % 4 ? GROUPS_ALL : VMIBUS_GROUP_POWER);
        ck_assert_ptr_nonnull(scene.endpoint);
        break;
    case 2:
        if (sensor->opened && scene.endpoint)
            fake_withdraw(sensor, scene.endpoint);
        break;
    case 3:
        if (sensor->opened && random() % 2) {
            fake_sensor_close(sensor);
            sensor->opened = false;
        } else if (sensor->opened) {
            announce(sensor, sensor->sensor.name, random() % 2 ? VMIBUS_SENSOR_STATE_FAILED : VMIBUS_SENSOR_STATE_READY,
                     sensor->sensor.fallback);
        }
        break;
    case 4:
        if (scene.token && random() % 2) {
            fake_release(&alice, scene.endpoint, VMIBUS_LEASE_CLASS_INPUT, scene.token);
            scene.token = 0;
        }
        break;
    default:
        if (scene.token)
            scene.commands[scene.n_commands++] = fake_input(&alice, scene.endpoint, scene.token, KEY_A);
        break;
    }
}

/* The endpoint goes with its last provider, and with it the lease. */
static void see_end(void) {
    struct lease *lease;

    if (stage.bus->n_present == 0) {
        scene.endpoint = NULL;
        scene.token = 0;
        scene.down = 0;
        return;
    }
    lease = &scene.endpoint->leases[VMIBUS_LEASE_CLASS_INPUT - 1];
    if (scene.token) {
        ck_assert_uint_eq(lease->state, VMIBUS_LEASE_STATE_HELD);
        ck_assert_uint_eq(lease->token, scene.token);
    } else if (lease->state == VMIBUS_LEASE_STATE_FREE) {
        scene.token = fake_hold(&alice, scene.endpoint, VMIBUS_LEASE_CLASS_INPUT);
    }
}

TEST(test_p07_p09_providers_come_and_die_at_random, .iterations = 20) {
    unsigned seed = (unsigned)clock_now() * 20 + (unsigned)_i;

    printf("seed %u\n", seed);
    srandom(seed);
    stage_open(&(struct stage_options){.commands = 2000});
    fake_control_open(&alice, 1);
    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_ROSTER) | BIT(VMIBUS_KIND_LIFECYCLE));
    scene = (struct scene){};
    for (unsigned i = 0; i < N_STEPS; i++) {
        step();
        see_end();
        for (unsigned j = 0; j < N_SENSORS; j++)
            if (scene.sensors[j].opened)
                look_at_sensor(&scene.sensors[j]);
        see_end();
        check_roster();
    }
    for (unsigned i = 0; i < N_SENSORS; i++)
        if (scene.sensors[i].opened)
            fake_sensor_close(&scene.sensors[i]);
    ck_assert_uint_eq(stage.bus->n_present, 0);
    for (size_t i = 0; i < scene.n_commands; i++)
        ck_assert_ptr_nonnull(fake_control_ack(&alice, scene.commands[i]));
    fake_control_close(&alice);
    stage_close();
}

HARNESS_SUITE("provider switches", HARNESS_QUICK)
