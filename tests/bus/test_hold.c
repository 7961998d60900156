/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Holding a guest still: nesting, the ways in which a hold ends, and providers that do badly. */
#include "harness.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/hold.h"
#include "stage.h"

#define HOLD VMIBUS_VM_OPERATION_HOLD
#define LET_GO VMIBUS_VM_OPERATION_LET_GO

static struct fake_sensor host;
static struct fake_control alice, bob;
static struct endpoint *vm;

static void open_with(const struct stage_options *options) {
    stage_open(options);
    fake_sensor_open(&host, "host", GROUPS_ALL, 0);
    vm = fake_offer(&host, "vm", GROUPS_ALL);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    while (fake_sensor_next(&host))
        ;
}

static void begin(void) {
    open_with(&(struct stage_options){.with_link = true});
}

static void begin_impatient(void) {
    open_with(&(struct stage_options){.with_link = true, .drain_ms = 1});
}

static void begin_short(void) {
    open_with(&(struct stage_options){.with_link = true, .hold_ms = 1});
}

static void end(void) {
    if (alice.control.bus)
        fake_control_close(&alice);
    if (bob.control.bus)
        fake_control_close(&bob);
    if (host.opened)
        fake_sensor_close(&host);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 0);
    stage_close();
}

static void leave(struct fake_control *control) {
    fake_control_close(control);
    control->control.bus = NULL;
}

static uint64_t ask(struct fake_control *control, enum vmibus_vm_operation operation) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_VM, .slot = vm->slot, .generation = vm->generation},
        .cmd_vm = {.operation = (uint8_t)operation},
    };

    return fake_control_submit(control, &frame, NULL, 0);
}

/* What the sensor was asked next; NULL: nothing. */
static const struct vmibus_frame *asked(void) {
    return fake_sensor_next_of(&host, VMIBUS_KIND_CMD_VM);
}

static void expect_asked(enum vmibus_vm_operation operation, enum vmibus_error answer) {
    const struct vmibus_frame *frame = asked();

    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->cmd_vm.operation, operation);
    fake_complete(&host, frame, answer);
}

#define expect_idle() ck_assert_ptr_null(asked())
#define expect_waiting(control, command) ck_assert_ptr_null(fake_control_ack(control, command))

static void quiesce(enum vmibus_kind kind, uint64_t name) {
    const struct vmibus_frame frame = {
        .header = {.kind = (uint16_t)kind, .slot = vm->slot, .generation = vm->generation, .correlation = name},
    };

    bus_hear_link(stage.bus, &frame, NULL);
}

static const struct vmibus_frame *told_authority(void) {
    const struct vmibus_frame *frame;

    while ((frame = stage_link_next()))
        if (frame->header.kind == VMIBUS_KIND_QUIESCE_STATE)
            return frame;
    return NULL;
}

static void expect_told(uint64_t name, enum vmibus_error error) {
    const struct vmibus_frame *frame = told_authority();

    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->header.correlation, name);
    ck_assert_uint_eq(frame->quiesce_state.error, error);
}

/* Alice's hold is in force. */
static void hold_still(void) {
    uint64_t hold = ask(&alice, HOLD);

    expect_asked(HOLD, VMIBUS_ERROR_OK);
    assert_ack(&alice, hold, OK, NONE);
}

/* --- nesting ----------------------------------------------------------------------------------- */

TEST(test_p11_nested_holds_stop_once_and_let_go_once, .setup = begin, .teardown = end) {
    uint64_t first = ask(&alice, HOLD), second = ask(&bob, HOLD), third = ask(&alice, HOLD), last;

    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 7);
    expect_waiting(&alice, first);
    expect_waiting(&bob, second);
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    assert_ack(&alice, first, OK, NONE);
    assert_ack(&bob, second, OK, NONE);
    assert_ack(&alice, third, OK, NONE);
    expect_told(7, VMIBUS_ERROR_OK);
    /* One that comes later finds it so. */
    assert_ack(&bob, ask(&bob, HOLD), OK, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 4);
    assert_ack(&alice, ask(&alice, LET_GO), OK, NONE);
    assert_ack(&alice, ask(&alice, LET_GO), OK, NONE);
    assert_ack(&bob, ask(&bob, LET_GO), OK, NONE);
    quiesce(VMIBUS_KIND_QUIESCE_END, 7);
    expect_idle();
    last = ask(&bob, LET_GO);
    expect_waiting(&bob, last);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    assert_ack(&bob, last, OK, NONE);
    expect_idle();
    ck_assert_ptr_null(told_authority());
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 0);
    ck_assert_uint_eq(stage.bus->n_held, 0);
}

TEST(test_p11_hold_that_comes_while_the_guest_is_let_go, .setup = begin, .teardown = end) {
    uint64_t left, again;
    const struct vmibus_frame *let_go;

    hold_still();
    left = ask(&alice, LET_GO);
    let_go = asked();
    again = ask(&bob, HOLD);
    expect_idle();
    fake_complete(&host, let_go, VMIBUS_ERROR_OK);
    assert_ack(&alice, left, OK, NONE);
    expect_waiting(&bob, again);
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    assert_ack(&bob, again, OK, NONE);
}

TEST(test_hold_let_go_before_it_is_in_force, .setup = begin, .teardown = end) {
    uint64_t hold = ask(&alice, HOLD);

    assert_ack(&alice, ask(&alice, LET_GO), OK, NONE);
    assert_ack(&alice, hold, EXPIRED, CANCELLED);
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    expect_idle();
}

TEST(test_authority_may_end_before_it_began, .setup = begin, .teardown = end) {
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 1);
    quiesce(VMIBUS_KIND_QUIESCE_END, 1);
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 2);
    quiesce(VMIBUS_KIND_QUIESCE_END, 1); /* of the past */
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    expect_told(2, VMIBUS_ERROR_OK);
    quiesce(VMIBUS_KIND_QUIESCE_END, 2);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    expect_idle();
}

/* A sensor that answers in the call it is asked in. */
TEST(test_provider_that_answers_at_once, .setup = begin, .teardown = end) {
    host.answers = true;
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 1);
    expect_told(1, VMIBUS_ERROR_OK);
    assert_ack(&alice, ask(&alice, HOLD), OK, NONE);
    quiesce(VMIBUS_KIND_QUIESCE_END, 1);
    assert_ack(&alice, ask(&alice, LET_GO), OK, NONE);
    ck_assert_uint_eq(asked()->cmd_vm.operation, HOLD);
    ck_assert_uint_eq(asked()->cmd_vm.operation, LET_GO);
    expect_idle();
}

/* --- who may ----------------------------------------------------------------------------------- */

TEST(test_p01_hold_needs_its_capability_and_no_lease, .setup = begin, .teardown = end) {
    stage_new_policy();
    stage_allow(1, "vm", CAPABILITIES_ALL & ~(uint32_t)VMIBUS_CAP_QUIESCE, 0);
    stage_allow(2, "vm", VMIBUS_CAP_QUIESCE, 0);
    stage_apply_policy();
    assert_ack(&alice, ask(&alice, HOLD), DENIED, NO_CAPABILITY);
    ck_assert_uint_eq(fake_control_ack(&alice, ask(&alice, LET_GO))->value, VMIBUS_CAP_QUIESCE);
    (void)ask(&bob, HOLD);
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    assert_ack(&bob, ask(&bob, VMIBUS_VM_OPERATION_PAUSE), DENIED, NO_CAPABILITY);
    /* Bob's word does not reach what Alice may not end, nor hers what is his. */
    assert_ack(&alice, ask(&alice, LET_GO), DENIED, NO_CAPABILITY);
    expect_idle();
}

TEST(test_p01_hold_ends_with_the_capability, .setup = begin, .teardown = end) {
    hold_still();
    stage_new_policy();
    stage_allow(1, "vm", CAPABILITIES_ALL & ~(uint32_t)VMIBUS_CAP_QUIESCE, 0);
    stage_apply_policy();
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 0);
}

TEST(test_let_go_of_nothing, .setup = begin, .teardown = end) {
    assert_ack(&alice, ask(&alice, LET_GO), EXPIRED, QUIESCE_FAILED);
    hold_still();
    assert_ack(&bob, ask(&bob, LET_GO), EXPIRED, QUIESCE_FAILED);
    expect_idle();
}

static void begin_bounded(void) {
    static uint64_t limits[N_RESOURCES];
    struct policy *policy;

    ck_assert_int_eq(policy_new(&policy), 0);
    memcpy(limits, policy->limits, sizeof(limits));
    policy_free(policy);
    limits[RESOURCE_HOLDS] = 2;
    open_with(&(struct stage_options){.with_link = true, .limits = limits});
}

TEST(test_p08_holds_are_charged_and_bounded, .setup = begin_bounded, .teardown = end) {
    const struct vmibus_ack *ack;

    hold_still();
    (void)ask(&alice, HOLD);
    ack = fake_control_ack(&alice, ask(&alice, HOLD));
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_LIMIT_HOLDS);
    ck_assert_uint_eq(ack->value, 2);
    assert_ack(&bob, ask(&bob, HOLD), OK, NONE);
    /* The authority is none of them. */
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 1);
    expect_told(1, VMIBUS_ERROR_OK);
    assert_ack(&alice, ask(&alice, LET_GO), OK, NONE);
    assert_ack(&alice, ask(&alice, HOLD), OK, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 3);
}

/* --- ends -------------------------------------------------------------------------------------- */

TEST(test_p11_hold_ends_with_its_connection, .setup = begin, .teardown = end) {
    uint64_t waiting;

    hold_still();
    leave(&alice);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 0);
    /* Also of whoever still waits for it, and of whoever waits for its end. */
    waiting = ask(&bob, HOLD);
    expect_waiting(&bob, waiting);
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    (void)ask(&bob, LET_GO);
    leave(&bob);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    expect_idle();
}

TEST(test_p11_hold_that_waits_ends_with_its_connection, .setup = begin, .teardown = end) {
    (void)ask(&alice, HOLD);
    leave(&alice);
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    expect_idle();
}

static const struct vmibus_frame *wait_asked(void) {
    const struct vmibus_frame *frame;

    while (!(frame = asked()))
        ck_assert_int_ge(loop_dispatch(stage.loop, 10000), 0);
    return frame;
}

TEST(test_p11_hold_ends_by_its_bound, .setup = begin_short, .teardown = end) {
    const struct vmibus_frame *let_go;

    hold_still();
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 3);
    expect_told(3, VMIBUS_ERROR_OK);
    let_go = wait_asked();
    ck_assert_uint_eq(let_go->cmd_vm.operation, LET_GO);
    expect_told(3, VMIBUS_ERROR_EXPIRED);
    assert_ack(&alice, ask(&alice, LET_GO), EXPIRED, QUIESCE_FAILED);
    fake_complete(&host, let_go, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 0);
    expect_idle();
}

TEST(test_p11_guest_that_is_let_run_by_other_means, .setup = begin, .teardown = end) {
    hold_still();
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 3);
    expect_told(3, VMIBUS_ERROR_OK);
    fake_lifecycle(&host, vm, VMIBUS_VM_STATE_PAUSED);
    expect_idle();
    fake_lifecycle(&host, vm, VMIBUS_VM_STATE_RUNNING);
    expect_told(3, VMIBUS_ERROR_BUSY);
    expect_asked(LET_GO, VMIBUS_ERROR_OK); /* so that the provider knows */
    assert_ack(&alice, ask(&alice, LET_GO), EXPIRED, QUIESCE_FAILED);
}

TEST(test_p09_endpoint_goes_while_it_is_held, .setup = begin, .teardown = end) {
    uint64_t waiting, leaving;

    hold_still();
    leaving = ask(&alice, LET_GO);
    waiting = ask(&bob, HOLD);
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 3);
    fake_withdraw(&host, vm);
    assert_ack(&alice, leaving, GONE, WITHDRAWN);
    assert_ack(&bob, waiting, GONE, WITHDRAWN);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 0);
}

TEST(test_p09_endpoint_goes_while_it_is_stopped, .setup = begin, .teardown = end) {
    const struct vmibus_frame *hold;
    uint64_t waiting = ask(&alice, HOLD);

    hold = asked();
    fake_withdraw(&host, vm);
    assert_ack(&alice, waiting, GONE, WITHDRAWN);
    fake_complete(&host, hold, VMIBUS_ERROR_OK); /* nobody is there to hear it */
    expect_idle();
}

/* --- providers --------------------------------------------------------------------------------- */

TEST(test_hold_without_a_provider, .setup = begin, .teardown = end) {
    fake_withdraw(&host, vm);
    vm = fake_offer(&host, "dumb", VMIBUS_GROUP_LIFECYCLE);
    assert_ack(&alice, ask(&alice, HOLD), UNSUPPORTED, NO_PROVIDER);
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 1);
    expect_told(1, VMIBUS_ERROR_UNSUPPORTED);
}

TEST(test_provider_that_does_not_know_how, .setup = begin, .teardown = end) {
    uint64_t hold = ask(&alice, HOLD);

    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 1);
    expect_asked(HOLD, VMIBUS_ERROR_VALIDATION);
    assert_ack(&alice, hold, UNSUPPORTED, QUIESCE_FAILED);
    expect_told(1, VMIBUS_ERROR_UNSUPPORTED);
    hold = ask(&alice, HOLD);
    expect_asked(HOLD, VMIBUS_ERROR_IO);
    assert_ack(&alice, hold, BUSY, QUIESCE_FAILED);
    expect_idle();
}

TEST(test_p09_provider_that_succeeds_too_late, .setup = begin_impatient, .teardown = end) {
    const struct vmibus_frame *stop;
    uint64_t hold = ask(&alice, HOLD), second;

    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 1);
    stop = asked();
    ck_assert_ptr_nonnull(fake_control_wait_ack(&alice, hold));
    assert_ack(&alice, hold, BUSY, QUIESCE_FAILED);
    expect_told(1, VMIBUS_ERROR_BUSY);
    expect_idle(); /* one thing at a time */
    second = ask(&bob, HOLD);
    ck_assert_ptr_nonnull(fake_control_wait_ack(&bob, second));
    assert_ack(&bob, second, BUSY, QUIESCE_FAILED);
    fake_complete(&host, stop, VMIBUS_ERROR_OK);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(stage.bus->n_held, 0);
}

TEST(test_p11_provider_that_fails_to_let_go_is_asked_again, .setup = begin, .teardown = end) {
    const struct vmibus_frame *again;
    uint64_t left, hold;

    hold_still();
    left = ask(&alice, LET_GO);
    hold = ask(&bob, HOLD);
    expect_asked(LET_GO, VMIBUS_ERROR_IO);
    assert_ack(&alice, left, BUSY, QUIESCE_FAILED);
    assert_ack(&bob, hold, BUSY, QUIESCE_FAILED);
    hold = ask(&bob, HOLD);
    again = wait_asked();
    ck_assert_uint_eq(again->cmd_vm.operation, LET_GO);
    fake_complete(&host, again, VMIBUS_ERROR_OK);
    expect_asked(HOLD, VMIBUS_ERROR_OK);
    assert_ack(&bob, hold, OK, NONE);
}

TEST(test_p09_provider_dies_while_it_stops_or_holds, .setup = begin, .teardown = end) {
    struct fake_sensor other;
    uint64_t hold;

    fake_sensor_open(&other, "other", GROUPS_ALL, GROUPS_ALL);
    ck_assert(fake_join(&other, vm, GROUPS_ALL));
    hold = ask(&alice, HOLD);
    ck_assert_ptr_nonnull(asked());
    fake_sensor_close(&host);
    host.opened = false;
    assert_ack(&alice, hold, BUSY, QUIESCE_FAILED);
    /* Whoever comes next asks whoever is there next. */
    other.answers = true;
    assert_ack(&alice, ask(&alice, HOLD), OK, NONE);
    quiesce(VMIBUS_KIND_QUIESCE_BEGIN, 1);
    expect_told(1, VMIBUS_ERROR_OK);
    fake_sensor_close(&other);
    ck_assert_uint_eq(stage_used(RESOURCE_HOLDS), 0);
}

/* A better provider has come: who stopped the guest lets it go. */
TEST(test_hold_stays_with_its_provider, .setup = begin, .teardown = end) {
    struct fake_sensor better;
    uint64_t left;

    fake_sensor_close(&host);
    fake_sensor_open(&host, "host", GROUPS_ALL, GROUPS_ALL);
    vm = fake_offer(&host, "vm", GROUPS_ALL);
    hold_still();
    fake_sensor_open(&better, "better", GROUPS_ALL, 0);
    ck_assert(fake_join(&better, vm, GROUPS_ALL));
    fake_lifecycle(&better, vm, VMIBUS_VM_STATE_RUNNING); /* it does not know better */
    assert_ack(&bob, ask(&bob, HOLD), OK, NONE);
    (void)ask(&bob, LET_GO);
    left = ask(&alice, LET_GO);
    expect_asked(LET_GO, VMIBUS_ERROR_OK);
    assert_ack(&alice, left, OK, NONE);
    fake_sensor_close(&better);
}

HARNESS_SUITE("holding still", HARNESS_QUICK)
