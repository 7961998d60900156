/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that sensors execute: their time, their answers, and what happens to those under way. */
#include "harness.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/stage.h"

static struct fake_control alice, bob;
static struct fake_sensor sensor;
static struct endpoint *endpoint;
static uint64_t token;

static void open_with(const struct stage_options *options) {
    stage_open(options);
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT);
}

static void open_stage(void) {
    open_with(&(struct stage_options){});
}

static void close_stage(void) {
    fake_control_close(&alice);
    fake_control_close(&bob);
    fake_sensor_close(&sensor);
    stage_close();
}

static struct vmibus_frame input_frame(void) {
    return (struct vmibus_frame){
        .header = {.kind = VMIBUS_KIND_CMD_INPUT,
                   .slot = endpoint->slot,
                   .generation = endpoint->generation,
                   .timestamp = clock_now()},
        .cmd_input = {.token = token, .count = 1, .events = {{.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1}}},
    };
}

TEST(test_command_reaches_the_sensor_and_its_answer_the_control, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = input_frame();
    uint64_t command = fake_control_submit(&alice, &frame, NULL, 0);
    const struct vmibus_frame *sent = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT);
    const struct vmibus_ack *ack;
    struct vmibus_audit_record record;

    ck_assert_ptr_nonnull(sent);
    ck_assert_uint_ne(sent->header.correlation, command);
    ck_assert_mem_eq(&sent->cmd_input, &frame.cmd_input, sizeof(frame.cmd_input));
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    ck_assert_int_eq(vmibus_audit_read(stage.audit.header, stage.audit.header->written, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_AUDIT_PENDING);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(record.uid, 1);
    ck_assert_uint_eq(record.token, token);
    ck_assert_uint_eq(record.correlation, command);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 1);
    fake_complete(&sensor, sent, VMIBUS_ERROR_OK);
    ack = fake_control_ack(&alice, command);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack->command, VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(ack->count, 1);
    ck_assert_uint_ge(ack->received, frame.header.timestamp);
    ck_assert_uint_ge(ack->started, ack->received);
    ck_assert_uint_ge(ack->finished, ack->started);
    ck_assert_int_eq(vmibus_audit_read(stage.audit.header, stage.audit.header->written, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(record.finished, ack->finished);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
    /* Answered once more, or by somebody else, it finds nobody. */
    fake_complete(&sensor, sent, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->error, VMIBUS_ERROR_OK);
}

TEST(test_p09_answers_to_what_was_not_asked_are_ignored, .setup = open_stage, .teardown = close_stage) {
    struct fake_sensor other;
    struct vmibus_frame frame = input_frame(), made_up;
    uint64_t command = fake_control_submit(&alice, &frame, NULL, 0);
    const struct vmibus_frame *sent = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT);

    fake_sensor_open(&other, "other", GROUPS_ALL, 0);
    fake_complete(&other, sent, VMIBUS_ERROR_OK);
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    made_up = *sent;
    for (unsigned i = 0; i < 64; i++) {
        made_up.header.correlation = sent->header.correlation ^ UINT64_C(1) << i;
        fake_complete(&sensor, &made_up, VMIBUS_ERROR_OK);
        ck_assert_ptr_null(fake_control_ack(&alice, command));
    }
    fake_complete(&sensor, sent, VMIBUS_ERROR_OK);
    assert_ack(&alice, command, OK, NONE);
    fake_sensor_close(&other);
}

TEST(test_command_past_its_deadline_is_not_executed, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = input_frame();

    frame.header.timestamp -= NS_PER_S;
    frame.header.deadline_us = 1;
    assert_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0), EXPIRED, NONE);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
    /* For any command. */
    frame = (struct vmibus_frame){.header = {.kind = VMIBUS_KIND_QUERY, .timestamp = 1, .deadline_us = 1},
                                  .query = {.query = VMIBUS_QUERY_STATS}};
    assert_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0), EXPIRED, NONE);
}

static const struct vmibus_frame *wait_for_sensor(enum vmibus_kind kind) {
    const struct vmibus_frame *frame;

    while (!(frame = fake_sensor_next_of(&sensor, kind)))
        ck_assert_int_ge(loop_dispatch(stage.loop, -1), 0);
    return frame;
}

#define LATER_MS 100

/* Nothing was sent to the sensor, whose time is LATER_MS after that of the frame. */
static void assert_not_sent(const struct vmibus_frame *frame) {
    if (!fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT))
        return;
    ck_assert_uint_ge(clock_now(), frame->header.timestamp + LATER_MS * NS_PER_MS);
    test_skip("the machine was too slow to have a command wait");
}

TEST(test_command_waits_for_its_time, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_input_event events[20];
    struct vmibus_frame frame = input_frame(), table = input_frame();
    uint64_t first, second;
    const struct vmibus_frame *sent;

    sensor.answers = true;
    memset(events, 0, sizeof(events));
    for (uint16_t i = 0; i < 20; i++)
        events[i] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = i};
    /* For the same time: in the order in which they were given. */
    table.header.timestamp = frame.header.timestamp;
    frame.cmd_input.not_before_us = table.cmd_input.not_before_us = LATER_MS * 1000;
    table.cmd_input.count = 20;
    first = fake_control_submit(&alice, &table, events, sizeof(events));
    second = fake_control_submit(&alice, &frame, NULL, 0);
    memset(events, 0xff, sizeof(events));
    assert_not_sent(&frame);
    sent = wait_for_sensor(VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(sent->header.tail_length, sizeof(events));
    memcpy(events, container_of(sent, struct entry, frame)->tail, sizeof(events));
    for (uint16_t i = 0; i < 20; i++)
        ck_assert_uint_eq(events[i].code, i);
    sent = wait_for_sensor(VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(sent->header.tail_length, 0);
    assert_ack(&alice, first, OK, NONE);
    assert_ack(&alice, second, OK, NONE);
    ck_assert_uint_ge(fake_control_ack(&alice, second)->started, frame.header.timestamp + LATER_MS * NS_PER_MS);
    /* A time that has passed is now. */
    frame = input_frame();
    frame.header.timestamp -= NS_PER_S;
    frame.cmd_input.not_before_us = 1;
    assert_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0), OK, NONE);
}

TEST(test_command_that_waited_past_its_deadline_expires, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = input_frame();
    uint64_t command;

    frame.header.timestamp += NS_PER_MS; /* whatever the machine does meanwhile, it is not late at receipt */
    frame.header.deadline_us = 1;
    frame.cmd_input.not_before_us = 1000;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    ck_assert_uint_eq(fake_control_wait_ack(&alice, command)->error, VMIBUS_ERROR_EXPIRED);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
}

/* The token is checked again when the time has come. */
TEST(test_p05_command_that_waited_is_checked_again, .setup = open_stage, .teardown = close_stage) {
    uint64_t renewal = fake_renew(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT, token, 2);
    uint64_t expires = fake_control_ack(&alice, renewal)->value, command;
    struct vmibus_frame frame = input_frame();
    struct lease *lease = &endpoint->leases[0];

    frame.header.timestamp = expires;
    frame.cmd_input.not_before_us = 1;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    if (fake_control_ack(&alice, command))
        test_skip("the machine was too slow to have a command wait");
    /* Its lease's own timer is late, so only the check stands in the way. */
    loop_timer_cancel(&lease->timer);
    ck_assert_uint_eq(fake_control_wait_ack(&alice, command)->error, VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->reason, VMIBUS_REASON_LEASE_EXPIRED);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
}

TEST(test_command_goes_to_whoever_provides_when_its_time_comes, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = input_frame();
    struct fake_sensor other;
    uint64_t command;

    fake_sensor_open(&other, "other", GROUPS_ALL, 0);
    ck_assert(fake_join(&other, endpoint, GROUPS_ALL));
    frame.cmd_input.not_before_us = LATER_MS * 1000;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    fake_withdraw(&sensor, endpoint);
    assert_not_sent(&frame);
    other.answers = true;
    ck_assert_uint_eq(fake_control_wait_ack(&alice, command)->error, VMIBUS_ERROR_OK);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&other, VMIBUS_KIND_CMD_INPUT));
    fake_sensor_close(&other);
}

TEST(test_command_of_a_control_that_left_is_cancelled, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = input_frame(), later = input_frame();
    const struct vmibus_frame *sent, *cancel;

    later.cmd_input.not_before_us = UINT32_MAX;
    fake_control_submit(&alice, &frame, NULL, 0);
    fake_control_submit(&alice, &later, NULL, 0);
    sent = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT);
    fake_control_close(&alice);
    cancel = fake_sensor_next_of(&sensor, VMIBUS_KIND_CANCEL);
    ck_assert_ptr_nonnull(cancel);
    ck_assert_uint_eq(cancel->header.correlation, sent->header.correlation);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    /* It is in flight until the sensor says otherwise, and its account pays until then. */
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 1);
    fake_complete(&sensor, sent, VMIBUS_ERROR_GONE);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
    ck_assert_uint_eq(fake_sensor_next(&sensor)->frame.header.kind, VMIBUS_KIND_INPUT_RELEASE);
    fake_control_open(&alice, 1);
}

TEST(test_command_at_a_sensor_that_goes_is_answered_gone, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = input_frame(), later = input_frame();
    uint64_t first, second;

    later.cmd_input.not_before_us = UINT32_MAX;
    first = fake_control_submit(&alice, &frame, NULL, 0);
    second = fake_control_submit(&alice, &later, NULL, 0);
    fake_sensor_close(&sensor);
    assert_ack(&alice, first, GONE, WITHDRAWN);
    assert_ack(&alice, second, GONE, WITHDRAWN);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
    assert_ack(&alice, fake_input(&alice, &(struct endpoint){.slot = 1, .generation = frame.header.generation}, token, 30), GONE,
               NONE);
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
}

TEST(test_command_without_ack_is_answered_only_if_refused, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = input_frame();
    uint64_t command;

    sensor.answers = true;
    frame.header.flags = VMIBUS_FRAME_NO_ACK;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    frame.cmd_input.token++;
    assert_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0), STALE_TOKEN, REVOKED);
    sensor.answer_error = VMIBUS_ERROR_IO;
    frame.cmd_input.token--;
    assert_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0), IO, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
}

TEST(test_input_that_is_malformed_is_refused, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_input_event events[8] = {};
    struct vmibus_frame frame;

    for (int i = 0; i < 8; i++)
        events[i].type = VMIBUS_INPUT_TYPE_KEY;
    for (uint16_t count = 0; count < 9; count++) {
        if (count == 1)
            continue;
        frame = input_frame();
        frame.cmd_input.count = count; /* of 6 that fit, one has a type */
        assert_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0), VALIDATION, BAD_FIELD);
        if (count == 8)
            continue;
        assert_ack(&alice, fake_control_submit(&alice, &frame, events, sizeof(events)), VALIDATION, BAD_FIELD);
    }
    frame.cmd_input.count = 8;
    events[7].type = 4;
    assert_ack(&alice, fake_control_submit(&alice, &frame, events, sizeof(events)), VALIDATION, BAD_FIELD);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
}

TEST(test_what_is_not_the_buss_is_unsupported, .setup = open_stage, .teardown = close_stage) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_MEM_ATTACH, VMIBUS_KIND_MEM_READ, VMIBUS_KIND_BUFFER};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct vmibus_frame frame = {
            .header = {.kind = (uint16_t)kinds[i], .slot = endpoint->slot, .generation = endpoint->generation}};

        assert_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0), UNSUPPORTED, NOT_BUILT);
    }
}

TEST(test_p08_commands_in_flight_are_bounded_per_control) {
    uint64_t command;
    const struct vmibus_frame *sent;

    open_with(&(struct stage_options){.commands = 4});
    for (int i = 0; i < 4; i++)
        fake_input(&alice, endpoint, token, 30);
    sent = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT);
    command = fake_input(&alice, endpoint, token, 30);
    assert_ack(&alice, command, QUOTA, LIMIT_COMMANDS);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, 4);
    fake_complete(&sensor, sent, VMIBUS_ERROR_OK);
    fake_input(&alice, endpoint, token, 30);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 4);
    close_stage();
}

TEST(test_p08_commands_in_flight_are_bounded_per_uid_and_for_all) {
    uint64_t limits[N_RESOURCES], limits_total[N_RESOURCES], power, command;

    for (int i = 0; i < N_RESOURCES; i++)
        limits[i] = limits_total[i] = 100;
    limits[RESOURCE_BYTES] = limits_total[RESOURCE_BYTES] = 16 << 20;
    limits[RESOURCE_COMMANDS] = 2;
    limits_total[RESOURCE_COMMANDS] = 5;
    open_with(&(struct stage_options){.limits = limits, .limits_total = limits_total});
    power = fake_hold(&bob, endpoint, VMIBUS_LEASE_CLASS_POWER);
    fake_input(&alice, endpoint, token, 30);
    fake_input(&alice, endpoint, token, 30);
    assert_ack(&alice, fake_input(&alice, endpoint, token, 30), QUOTA, LIMIT_COMMANDS);
    fake_power(&bob, endpoint, power, VMIBUS_POWER_OPERATION_RESET);
    command = fake_power(&bob, endpoint, power, VMIBUS_POWER_OPERATION_RESET);
    assert_ack(&bob, command, PRESSURE, LIMIT_COMMANDS);
    ck_assert_uint_eq(fake_control_ack(&bob, command)->value, 5);
    ck_assert_uint_eq(fake_control_ack(&bob, command)->count, 3);
    ck_assert_uint_eq(fake_control_ack(&bob, command)->token, alice.control.principal.uid);
    /* Leaving does not make room before the sensor has ended what runs. */
    fake_control_close(&alice);
    fake_control_open(&alice, 1);
    assert_ack(&bob, fake_power(&bob, endpoint, power, VMIBUS_POWER_OPERATION_RESET), PRESSURE, LIMIT_COMMANDS);
    close_stage();
}

HARNESS_SUITE("commands", HARNESS_QUICK)
