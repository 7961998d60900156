/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Watches: who is told, who is not, and everything that ends one. */
#include "harness.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/stage.h"

#define GROUPS (GROUPS_ALL | VMIBUS_GROUP_WATCH)
#define EPOCH 77

static struct fake_control alice, bob;
static struct fake_sensor sensor;
static struct endpoint *endpoint;

static void open_with(const struct stage_options *options) {
    stage_open(options);
    fake_sensor_open(&sensor, "fake", GROUPS, 0);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    endpoint = fake_offer(&sensor, "vm", GROUPS);
    stage_memctx(endpoint, EPOCH, VMIBUS_MEMCTX_STATE_READY);
}

static void open_stage(void) {
    open_with(&(struct stage_options){});
}

static void close_stage(void) {
    fake_control_close(&alice);
    fake_control_close(&bob);
    if (sensor.opened)
        fake_sensor_close(&sensor);
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
    stage_close();
}

/* --- what is done ------------------------------------------------------------------------------ */

static struct vmibus_frame watch_frame(void) {
    return (struct vmibus_frame){
        .header = {.kind = VMIBUS_KIND_WATCH, .slot = endpoint->slot, .generation = endpoint->generation},
        .watch = {.address = 0x1000, .len = 64, .operation = VMIBUS_WATCH_OPERATION_ADD, .flags = VMIBUS_WATCH_PHYSICAL},
    };
}

static uint64_t add(struct fake_control *control) {
    struct vmibus_frame frame = watch_frame();

    return fake_control_submit(control, &frame, NULL, 0);
}

static uint64_t drop(struct fake_control *control, uint32_t watch) {
    struct vmibus_frame frame = watch_frame();

    frame.watch = (struct vmibus_watch){.operation = VMIBUS_WATCH_OPERATION_REMOVE, .watch = watch};
    return fake_control_submit(control, &frame, NULL, 0);
}

/* The next WATCH that the sensor was sent: what it is to do, and to which watch. */
static const struct vmibus_frame *sent(struct fake_sensor *to, enum vmibus_watch_operation operation) {
    const struct vmibus_frame *frame;

    do {
        frame = fake_sensor_next_of(to, VMIBUS_KIND_WATCH);
        ck_assert_ptr_nonnull(frame);
    } while (frame->watch.operation == VMIBUS_WATCH_OPERATION_GO_ON && operation != VMIBUS_WATCH_OPERATION_GO_ON);
    ck_assert_uint_eq(frame->watch.operation, operation);
    return frame;
}

static void accept_watch(const struct vmibus_frame *command) {
    fake_answer(&sensor, command, &(struct vmibus_ack){.epoch = EPOCH}, NULL, 0, NULL, 0);
}

/* A watch that goes on; returns its number. */
static uint32_t watch_of(struct fake_control *control) {
    uint64_t command = add(control);
    const struct vmibus_frame *frame = sent(&sensor, VMIBUS_WATCH_OPERATION_ADD);

    ck_assert_uint_ne(frame->watch.watch, 0);
    accept_watch(frame);
    assert_ack(control, command, OK, NONE);
    ck_assert_uint_eq(fake_control_ack(control, command)->value, frame->watch.watch);
    return frame->watch.watch;
}

static void publish(struct fake_sensor *by, uint32_t watch, uint32_t flags, const char *tail) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WATCH_CHANGED,
                   .slot = endpoint->slot,
                   .generation = endpoint->generation,
                   .tail_length = (uint32_t)strlen(tail)},
        .watch_changed = {.epoch = EPOCH, .watch = watch, .looks = 1, .flags = flags, .len = (uint32_t)strlen(tail) / 2},
    };

    sensor_hear(&by->sensor, &frame, tail, NULL);
}

static void expect_end(struct fake_control *control, uint32_t watch) {
    const struct vmibus_frame *told = fake_control_next_of(control, VMIBUS_KIND_WATCH_CHANGED);

    ck_assert_ptr_nonnull(told);
    ck_assert_uint_eq(told->watch_changed.watch, watch);
    ck_assert_uint_eq(told->watch_changed.flags, VMIBUS_WATCH_CHANGE_ENDED);
    ck_assert_uint_eq(told->watch_changed.epoch, EPOCH);
    ck_assert_ptr_null(fake_control_next_of(control, VMIBUS_KIND_WATCH_CHANGED));
}

static void expect_removal(uint32_t watch) {
    const struct vmibus_frame *frame = sent(&sensor, VMIBUS_WATCH_OPERATION_REMOVE);

    ck_assert_uint_eq(frame->watch.watch, watch);
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 1);
    fake_complete(&sensor, frame, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
}

/* --- who is told ------------------------------------------------------------------------------- */

TEST(test_p01_changes_go_to_who_watches_and_to_nobody_else, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch;
    const struct entry *told;

    assert_ack(&bob, fake_subscribe(&bob, "*", UINT64_MAX), OK, NONE);
    watch = watch_of(&alice);
    fake_control_forget(&alice);
    publish(&sensor, watch, 0, "beforeAFTER!");
    told = fake_control_next(&alice);
    ck_assert_ptr_nonnull(told);
    ck_assert_uint_eq(told->frame.header.kind, VMIBUS_KIND_WATCH_CHANGED);
    ck_assert_uint_eq(told->frame.watch_changed.watch, watch);
    ck_assert_uint_eq(told->frame.header.slot, endpoint->slot);
    ck_assert_uint_eq(told->frame.header.source, sensor.sensor.id);
    ck_assert_uint_ne(told->frame.header.publication, 0);
    ck_assert_str_eq(told->tail, "beforeAFTER!");
    ck_assert_ptr_null(fake_control_next_of(&bob, VMIBUS_KIND_WATCH_CHANGED));
}

TEST(test_p09_a_number_that_is_not_the_publishers_is_ignored, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);
    struct fake_sensor second;
    struct endpoint *other;

    fake_sensor_open(&second, "second", GROUPS, 0);
    ck_assert(fake_join(&second, endpoint, VMIBUS_GROUP_WATCH));
    other = fake_offer(&sensor, "another", GROUPS);
    fake_control_forget(&alice);
    publish(&second, watch, 0, "xy");
    publish(&sensor, watch + 1, 0, "xy");
    publish(&sensor, watch ^ 1u << 16, 0, "xy");
    publish(&sensor, 0, 0, "xy");
    publish(&sensor, UINT32_MAX, 0, "xy");
    {
        struct endpoint *real = endpoint;

        endpoint = other;
        publish(&sensor, watch, 0, "xy");
        endpoint = real;
    }
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
    publish(&sensor, watch, 0, "xy");
    ck_assert_ptr_nonnull(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
    fake_sensor_close(&second);
}

TEST(test_p07_what_overflows_is_announced_as_any_event) {
    const struct vmibus_frame *told;
    uint32_t watch, n = 0;

    open_with(&(struct stage_options){.queue_depth = 4});
    watch = watch_of(&alice);
    fake_control_forget(&alice);
    for (int i = 0; i < 10; i++)
        publish(&sensor, watch, 0, "xy");
    while ((told = fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED)))
        n++;
    ck_assert_uint_eq(n, 4);
    alice.log.next = 0;
    told = fake_control_next_of(&alice, VMIBUS_KIND_GAP);
    ck_assert_ptr_nonnull(told);
    ck_assert_uint_eq(told->gap.dropped, VMIBUS_KIND_WATCH_CHANGED);
    ck_assert_uint_eq(told->gap.count, 6);
    /* Its end is told although there is no room for anything else. */
    for (int i = 0; i < 10; i++)
        publish(&sensor, watch, 0, "xy");
    stage_invalidate(endpoint, EPOCH);
    for (n = 0; (told = fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED)); n++)
        ck_assert_uint_eq(told->watch_changed.flags, n == 4 ? VMIBUS_WATCH_CHANGE_ENDED : 0);
    ck_assert_uint_eq(n, 5);
    close_stage();
}

/* One event of each watch is on its way, if the sensor waits for this: a slow control gets fewer events, not a flood. */
TEST(test_p09_a_sensor_hears_when_a_change_has_left) {
    uint32_t watch;

    open_with(&(struct stage_options){.queue_depth = 4});
    watch = watch_of(&alice);
    publish(&sensor, watch, 0, "xy");
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_WATCH));
    ck_assert_ptr_nonnull(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
    ck_assert_uint_eq(sent(&sensor, VMIBUS_WATCH_OPERATION_GO_ON)->watch.watch, watch);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_WATCH));
    /* The fifth finds no room: it has left, too. */
    for (int i = 0; i < 5; i++)
        publish(&sensor, watch, 0, "xy");
    ck_assert_uint_eq(sent(&sensor, VMIBUS_WATCH_OPERATION_GO_ON)->watch.watch, watch);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_WATCH));
    close_stage();
}

TEST(test_going_on_is_for_the_bus_to_say, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = watch_frame();
    uint64_t command;

    frame.watch.operation = VMIBUS_WATCH_OPERATION_GO_ON;
    frame.watch.watch = watch_of(&alice);
    command = fake_control_submit(&alice, &frame, NULL, 0);
    assert_ack(&alice, command, VALIDATION, BAD_FIELD);
}

/* --- what is asked ----------------------------------------------------------------------------- */

TEST(test_what_cannot_be_watched_is_refused, .setup = open_stage, .teardown = close_stage) {
    static const struct {
        struct vmibus_watch watch;
        enum vmibus_reason reason;
    } cases[] = {
        {{.len = 0}, VMIBUS_REASON_BAD_LENGTH},
        {{.len = 65537}, VMIBUS_REASON_BAD_LENGTH},
        {{.len = UINT32_MAX}, VMIBUS_REASON_BAD_LENGTH},
        {{.len = 2, .address = UINT64_MAX}, VMIBUS_REASON_BAD_ADDRESS},
        {{.len = 1, .flags = 2}, VMIBUS_REASON_BAD_FLAGS},
        {{.len = 1, .cr3 = 1, .flags = VMIBUS_WATCH_PHYSICAL}, VMIBUS_REASON_BAD_FIELD},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vmibus_frame frame = watch_frame();
        const struct vmibus_ack *ack;

        frame.watch = cases[i].watch;
        frame.watch.operation = VMIBUS_WATCH_OPERATION_ADD;
        ack = fake_control_ack(&alice, fake_control_submit(&alice, &frame, NULL, 0));
        ck_assert_uint_eq(ack->error, VMIBUS_ERROR_VALIDATION);
        ck_assert_uint_eq(ack->reason, cases[i].reason);
    }
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_WATCH));
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
}

TEST(test_p01_watching_needs_its_capability, .setup = open_stage, .teardown = close_stage) {
    stage_new_policy();
    stage_allow(1, "*", CAPABILITIES_ALL & ~(uint32_t)VMIBUS_CAP_WATCH, 0);
    stage_apply_policy();
    assert_ack(&alice, add(&alice), DENIED, NO_CAPABILITY);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_WATCH));
}

TEST(test_who_watches_ends_it_and_nobody_else_can, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);
    uint64_t command;

    assert_ack(&bob, drop(&bob, watch), VALIDATION, NO_WATCH);
    assert_ack(&alice, drop(&alice, watch + 1), VALIDATION, NO_WATCH);
    assert_ack(&alice, drop(&alice, 0), VALIDATION, NO_WATCH);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_WATCH));
    command = drop(&alice, watch);
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    publish(&sensor, watch, 0, "xy");
    assert_ack(&alice, drop(&alice, watch), VALIDATION, NO_WATCH);
    expect_removal(watch);
    assert_ack(&alice, command, OK, NONE);
    publish(&sensor, watch, 0, "xy");
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
    assert_ack(&alice, drop(&alice, watch), VALIDATION, NO_WATCH);
    ck_assert_uint_ne(watch_of(&alice), watch);
}

TEST(test_an_end_that_could_not_be_asked_for_ends_nothing) {
    uint32_t watch;
    uint64_t command;

    open_with(&(struct stage_options){.commands = 1});
    watch = watch_of(&alice);
    add(&alice);
    command = drop(&alice, watch);
    assert_ack(&alice, command, QUOTA, LIMIT_COMMANDS);
    accept_watch(sent(&sensor, VMIBUS_WATCH_OPERATION_ADD));
    publish(&sensor, watch, 0, "xy");
    ck_assert_ptr_nonnull(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
    close_stage();
}

TEST(test_what_the_sensor_refuses_is_no_watch, .setup = open_stage, .teardown = close_stage) {
    const struct vmibus_ack refusal = {.error = VMIBUS_ERROR_TRANSLATION, .reason = VMIBUS_REASON_NOT_PRESENT, .value = 0x1000};
    uint64_t command = add(&alice);
    const struct vmibus_frame *frame = sent(&sensor, VMIBUS_WATCH_OPERATION_ADD);

    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 1);
    /* Nothing is told of it before it is answered. */
    publish(&sensor, frame->watch.watch, 0, "xy");
    fake_answer(&sensor, frame, &refusal, NULL, 0, NULL, 0);
    assert_ack(&alice, command, TRANSLATION, NOT_PRESENT);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, 0x1000);
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
}

TEST(test_p08_watches_are_bounded_per_uid_and_for_all) {
    uint64_t limits[N_RESOURCES], limits_total[N_RESOURCES], command;

    for (int i = 0; i < N_RESOURCES; i++)
        limits[i] = limits_total[i] = 100;
    limits[RESOURCE_BYTES] = limits_total[RESOURCE_BYTES] = 16 << 20;
    limits[RESOURCE_WATCHES] = 3;
    limits_total[RESOURCE_WATCHES] = 6;
    open_with(&(struct stage_options){.limits = limits, .limits_total = limits_total});
    for (int i = 0; i < 3; i++)
        watch_of(&alice);
    command = add(&alice);
    assert_ack(&alice, command, QUOTA, LIMIT_WATCHES);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, 3);
    watch_of(&bob);
    command = add(&bob); /* the share rule: two of what Alice left for two holders */
    assert_ack(&bob, command, PRESSURE, LIMIT_WATCHES);
    close_stage();
}

TEST(test_p08_none_are_had_where_none_are_allowed) {
    uint64_t limits[N_RESOURCES];

    for (int i = 0; i < N_RESOURCES; i++)
        limits[i] = 100;
    limits[RESOURCE_BYTES] = 16 << 20;
    limits[RESOURCE_WATCHES] = 0;
    open_with(&(struct stage_options){.limits_total = limits});
    assert_ack(&alice, add(&alice), PRESSURE, LIMIT_WATCHES);
    close_stage();
}

/* --- what ends one ----------------------------------------------------------------------------- */

TEST(test_p06_its_epoch, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);
    const struct vmibus_frame *late;
    uint64_t command;

    stage_invalidate(endpoint, EPOCH + 1);
    publish(&sensor, watch, 0, "xy");
    ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED)->watch_changed.flags, 0);
    stage_memctx(endpoint, EPOCH, VMIBUS_MEMCTX_STATE_READY);
    stage_invalidate(endpoint, EPOCH);
    publish(&sensor, watch, 0, "xy");
    expect_end(&alice, watch);
    expect_removal(watch);
    /* One that begins in an epoch that is over is over too. */
    stage_memctx(endpoint, EPOCH + 2, VMIBUS_MEMCTX_STATE_READY);
    command = add(&alice);
    late = sent(&sensor, VMIBUS_WATCH_OPERATION_ADD);
    accept_watch(late);
    assert_ack(&alice, command, STALE_EPOCH, NONE);
    expect_removal(late->watch.watch);
}

TEST(test_its_session, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);

    fake_control_close(&alice);
    publish(&sensor, watch, 0, "xy");
    expect_removal(watch);
    fake_control_open(&alice, 1);
    fake_control_take_all(&alice);
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
}

TEST(test_its_session_before_it_has_begun, .setup = open_stage, .teardown = close_stage) {
    const struct vmibus_frame *frame;

    add(&alice);
    frame = sent(&sensor, VMIBUS_WATCH_OPERATION_ADD);
    fake_control_close(&alice);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_CANCEL));
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 1);
    accept_watch(frame); /* it was too late to cancel it */
    expect_removal(frame->watch.watch);
    fake_control_open(&alice, 1);
    add(&alice);
    frame = sent(&sensor, VMIBUS_WATCH_OPERATION_ADD);
    fake_control_close(&alice);
    fake_complete(&sensor, frame, VMIBUS_ERROR_EXPIRED);
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
    fake_control_open(&alice, 1);
}

TEST(test_its_session_while_it_ends, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);

    drop(&alice, watch);
    fake_control_close(&alice);
    expect_removal(watch);
    /* That it is to end is never taken back. */
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CANCEL));
    fake_control_open(&alice, 1);
}

TEST(test_its_endpoint, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);

    drop(&bob, watch);
    add(&bob);
    fake_withdraw(&sensor, endpoint);
    expect_end(&alice, watch);
    ck_assert_ptr_null(fake_control_next_of(&bob, VMIBUS_KIND_WATCH_CHANGED));
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
}

TEST(test_its_provider, .setup = open_stage, .teardown = close_stage) {
    struct fake_sensor second;
    uint32_t watch = watch_of(&alice);

    fake_sensor_open(&second, "second", GROUPS, 0);
    ck_assert(fake_join(&second, endpoint, GROUPS));
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 1);
    fake_sensor_close(&sensor);
    sensor.opened = false;
    expect_end(&alice, watch);
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
    ck_assert_ptr_null(fake_sensor_next_of(&second, VMIBUS_KIND_WATCH));
    fake_sensor_close(&second);
}

TEST(test_somebody_better_than_its_provider) {
    struct fake_sensor second;
    uint64_t command;
    uint32_t watch;

    stage_open(&(struct stage_options){});
    fake_sensor_open(&sensor, "fake", GROUPS, VMIBUS_GROUP_WATCH);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    endpoint = fake_offer(&sensor, "vm", GROUPS);
    stage_memctx(endpoint, EPOCH, VMIBUS_MEMCTX_STATE_READY);
    watch = watch_of(&alice);
    command = add(&bob);
    fake_sensor_open(&second, "second", VMIBUS_GROUP_WATCH, 0);
    ck_assert(fake_join(&second, endpoint, VMIBUS_GROUP_WATCH));
    expect_end(&alice, watch);
    {
        const struct vmibus_frame *begins = sent(&sensor, VMIBUS_WATCH_OPERATION_ADD);
        const struct vmibus_frame *ends = sent(&sensor, VMIBUS_WATCH_OPERATION_REMOVE);

        ck_assert_uint_eq(ends->watch.watch, watch);
        fake_complete(&sensor, ends, VMIBUS_ERROR_OK);
        accept_watch(begins);
        assert_ack(&bob, command, GONE, WITHDRAWN);
        expect_removal(begins->watch.watch);
    }
    /* A VM does not stay for who only looks at it. */
    add(&alice);
    sent(&second, VMIBUS_WATCH_OPERATION_ADD);
    fake_withdraw(&sensor, endpoint);
    ck_assert_uint_eq(stage.bus->n_present, 0);
    fake_sensor_close(&second);
    close_stage();
}

TEST(test_p01_its_grant_and_what_waits_is_not_told, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);

    fake_subscribe(&alice, "*", UINT64_MAX);
    fake_control_forget(&alice);
    publish(&sensor, watch, 0, "secret");
    stage_new_policy();
    stage_allow(1, "*", CAPABILITIES_ALL & ~(uint32_t)VMIBUS_CAP_OBSERVE, 0); /* less is subscribed to, the right is the same */
    stage_allow(2, "*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    ck_assert_ptr_nonnull(fake_control_next_of(&alice, VMIBUS_KIND_WATCH_CHANGED));
    publish(&sensor, watch, 0, "secret");
    stage_new_policy();
    stage_allow(1, "*", CAPABILITIES_ALL & ~(uint32_t)VMIBUS_CAP_WATCH, 0);
    stage_allow(2, "*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    expect_end(&alice, watch);
    expect_removal(watch);
}

TEST(test_p01_the_vm_is_not_for_its_owner_any_more, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);

    publish(&sensor, watch, 0, "secret");
    stage_new_policy();
    stage_allow(1, "another", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    expect_end(&alice, watch);
    expect_removal(watch);
}

TEST(test_its_sensor, .setup = open_stage, .teardown = close_stage) {
    uint32_t watch = watch_of(&alice);

    publish(&sensor, watch, VMIBUS_WATCH_CHANGE_ENDED, "");
    publish(&sensor, watch, 0, "xy");
    expect_end(&alice, watch);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_WATCH));
    ck_assert_uint_eq(stage_used(RESOURCE_WATCHES), 0);
    assert_ack(&alice, drop(&alice, watch), VALIDATION, NO_WATCH);
}

TEST(test_numbers_come_back_late, .setup = open_stage, .teardown = close_stage) {
    uint32_t first = watch_of(&alice), watch = first;

    sensor.answers = true;
    for (int i = 0; i < 1000; i++) {
        assert_ack(&alice, drop(&alice, watch), OK, NONE);
        sensor.answers = false;
        fake_control_forget(&alice);
        sensor.log.next = sensor.log.n;
        watch = watch_of(&alice);
        ck_assert_uint_ne(watch, first);
        sensor.answers = true;
    }
    sensor.answers = false;
}

HARNESS_SUITE("watch", HARNESS_QUICK)
