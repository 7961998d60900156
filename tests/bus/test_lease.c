/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leases: one holder, provably. */
#include "harness.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/stage.h"

#define INPUT VMIBUS_LEASE_CLASS_INPUT
#define POWER VMIBUS_LEASE_CLASS_POWER
#define MEMWRITE VMIBUS_LEASE_CLASS_MEMWRITE
#define FAIL VMIBUS_LEASE_MODE_FAIL
#define QUEUE VMIBUS_LEASE_MODE_QUEUE
#define PREEMPT VMIBUS_LEASE_MODE_PREEMPT

static struct fake_control alice, bob, carol;
static struct fake_sensor sensor;
static struct endpoint *endpoint;

static void open_with(const struct stage_options *options) {
    stage_open(options);
    /* Alice 1, Bob 2, Carol 3: their ranks too. */
    stage_new_policy();
    for (uid_t uid = 1; uid <= 3; uid++)
        stage_allow(uid, "*", CAPABILITIES_ALL, uid);
    stage_apply_policy();
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    fake_control_open(&carol, 3);
    endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    sensor.answers = true;
}

static void open_stage(void) {
    open_with(&(struct stage_options){.with_link = true});
}

static void close_stage(void) {
    fake_control_close(&alice);
    fake_control_close(&bob);
    fake_control_close(&carol);
    fake_sensor_close(&sensor);
    stage_close();
}

static struct lease *lease_of(enum vmibus_lease_class lease_class) {
    return &endpoint->leases[lease_class - 1];
}

/* Opens another stage where the class may be revoked for one millisecond only. */
static void open_hasty_stage(void) {
    open_with(&(struct stage_options){.with_link = true, .drain_ms = 1});
}

/* --- acquiring --------------------------------------------------------------------------------- */

TEST(test_p05_lease_is_held_by_one, .setup = open_stage, .teardown = close_stage) {
    for (unsigned i = INPUT; i <= MEMWRITE; i++) {
        enum vmibus_lease_class lease_class = (enum vmibus_lease_class)i;
        uint64_t token = fake_hold(&alice, endpoint, lease_class), next;

        assert_ack(&bob, fake_acquire(&bob, endpoint, lease_class, FAIL, 0), BUSY, HELD);
        assert_ack(&alice, fake_acquire(&alice, endpoint, lease_class, QUEUE, 0), BUSY, HELD);
        ck_assert_uint_eq(stage_used(RESOURCE_LEASES), 1);
        assert_ack(&bob, fake_release(&bob, endpoint, lease_class, token), STALE_TOKEN, NOT_RIGHTS_HOLDER);
        assert_ack(&bob, fake_renew(&bob, endpoint, lease_class, token, 5), STALE_TOKEN, NOT_RIGHTS_HOLDER);
        assert_ack(&alice, fake_release(&alice, endpoint, lease_class, token), OK, NONE);
        next = fake_hold(&bob, endpoint, lease_class);
        ck_assert_uint_gt(next, token);
        assert_ack(&bob, fake_release(&bob, endpoint, lease_class, next), OK, NONE);
        ck_assert_uint_eq(stage_used(RESOURCE_LEASES), 0);
    }
}

TEST(test_p05_tokens_begin_with_the_incarnation, .setup = open_stage, .teardown = close_stage) {
    ck_assert_uint_eq(fake_hold(&alice, endpoint, INPUT) >> 32, 7);
    ck_assert_uint_eq(endpoint->generation >> 32, 7);
}

TEST(test_p05_waiters_are_served_in_order, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, POWER);
    uint64_t second = fake_acquire(&bob, endpoint, POWER, QUEUE, 0), third = fake_acquire(&carol, endpoint, POWER, QUEUE, 0);

    assert_ack(&bob, fake_acquire(&bob, endpoint, POWER, QUEUE, 0), BUSY, HELD);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
    fake_release(&alice, endpoint, POWER, token);
    assert_ack(&bob, second, OK, NONE);
    ck_assert_ptr_null(fake_control_ack(&carol, third));
    fake_release(&bob, endpoint, POWER, fake_control_ack(&bob, second)->token);
    assert_ack(&carol, third, OK, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_WAITERS), 0);
}

TEST(test_p05_place_in_line_can_be_left, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, POWER);
    uint64_t second = fake_acquire(&bob, endpoint, POWER, QUEUE, 0), third = fake_acquire(&carol, endpoint, POWER, QUEUE, 0);

    assert_ack(&bob, fake_release(&bob, endpoint, POWER, 0), OK, NONE);
    assert_ack(&bob, second, BUSY, CANCELLED);
    assert_ack(&bob, fake_release(&bob, endpoint, POWER, 0), NO_LEASE, HELD);
    fake_release(&alice, endpoint, POWER, token);
    assert_ack(&carol, third, OK, NONE);
}

TEST(test_p05_preemption_needs_a_higher_rank, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&bob, endpoint, POWER), command;

    assert_ack(&alice, fake_acquire(&alice, endpoint, POWER, PREEMPT, 0), BUSY, RANK);
    assert_ack(&bob, fake_power(&bob, endpoint, token, VMIBUS_POWER_OPERATION_RESET), OK, NONE);
    command = fake_acquire(&carol, endpoint, POWER, PREEMPT, 0);
    assert_ack(&carol, command, OK, NONE);
    ck_assert_uint_gt(fake_control_ack(&carol, command)->token, token);
    assert_ack(&bob, fake_power(&bob, endpoint, token, VMIBUS_POWER_OPERATION_RESET), STALE_TOKEN, REVOKED);
    /* Told without a subscription. */
    bob.log.next = 0;
    ck_assert_uint_eq(fake_control_next_of(&bob, VMIBUS_KIND_LEASE)->lease.reason, VMIBUS_REASON_PREEMPTED);
}

TEST(test_p05_preemption_needs_its_capability, .setup = open_stage, .teardown = close_stage) {
    fake_hold(&alice, endpoint, POWER);
    stage_new_policy();
    stage_allow(1, "*", CAPABILITIES_ALL, 1);
    stage_allow(2, "*", CAPABILITIES_ALL & ~VMIBUS_CAP_PREEMPT, 9);
    stage_apply_policy();
    assert_ack(&bob, fake_acquire(&bob, endpoint, POWER, PREEMPT, 0), DENIED, NO_CAPABILITY);
    ck_assert_ptr_eq(lease_of(POWER)->holder, &alice.control);
}

TEST(test_p05_preemptor_goes_before_lower_ranks_in_line, .setup = open_stage, .teardown = close_stage) {
    uint64_t second, preemptor;

    fake_hold(&alice, endpoint, POWER);
    second = fake_acquire(&bob, endpoint, POWER, QUEUE, 0);
    preemptor = fake_acquire(&carol, endpoint, POWER, PREEMPT, 0);
    assert_ack(&carol, preemptor, OK, NONE);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
}

/* Whoever cannot pay for a place in line takes the lease from nobody. */
TEST(test_p05_preemptor_over_its_quota_takes_nothing) {
    uint64_t limits[N_RESOURCES];

    for (int i = 0; i < N_RESOURCES; i++)
        limits[i] = 100;
    limits[RESOURCE_BYTES] = 16 << 20;
    limits[RESOURCE_WAITERS] = 0;
    open_with(&(struct stage_options){.limits = limits});
    fake_hold(&alice, endpoint, POWER);
    assert_ack(&carol, fake_acquire(&carol, endpoint, POWER, PREEMPT, 0), QUOTA, LIMIT_WAITERS);
    ck_assert_ptr_eq(lease_of(POWER)->holder, &alice.control);
    close_stage();
}

/* A class that is being revoked has no holder, so nobody's rank stands against a preemptor. */
TEST(test_p05_preemptor_of_a_revoked_lease_waits, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&carol, endpoint, POWER), command;
    const struct vmibus_frame *sent;

    sensor.answers = false;
    fake_power(&carol, endpoint, token, VMIBUS_POWER_OPERATION_RESET);
    sent = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_POWER);
    fake_release(&carol, endpoint, POWER, token);
    assert_ack(&bob, fake_acquire(&bob, endpoint, POWER, FAIL, 0), BUSY, REVOKING);
    command = fake_acquire(&alice, endpoint, POWER, PREEMPT, 0);
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    fake_complete(&sensor, sent, VMIBUS_ERROR_OK);
    assert_ack(&alice, command, OK, NONE);
}

/* --- ending ------------------------------------------------------------------------------------ */

/* A token that ended one way or another. */
static void check_stale(struct fake_control *control, uint64_t token) {
    size_t n_sent = sensor.log.n;
    uint64_t commands[] = {
        fake_power(control, endpoint, token, VMIBUS_POWER_OPERATION_RESET),
        fake_renew(control, endpoint, POWER, token, 1000),
        fake_release(control, endpoint, POWER, token),
    };

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const struct vmibus_ack *ack = fake_control_ack(control, commands[i]);

        ck_assert_ptr_nonnull(ack);
        ck_assert_str_eq(vmibus_error_name(ack->error), "STALE_TOKEN");
    }
    ck_assert_uint_eq(sensor.log.n, n_sent);
}

TEST(test_p05_made_up_and_missing_tokens_are_refused, .setup = open_stage, .teardown = close_stage) {
    uint64_t token;

    assert_ack(&alice, fake_power(&alice, endpoint, 0, VMIBUS_POWER_OPERATION_RESET), NO_LEASE, NONE);
    check_stale(&alice, 1);
    token = fake_hold(&alice, endpoint, POWER);
    assert_ack(&alice, fake_power(&alice, endpoint, 0, VMIBUS_POWER_OPERATION_RESET), NO_LEASE, NONE);
    assert_ack(&bob, fake_power(&bob, endpoint, 0, VMIBUS_POWER_OPERATION_RESET), NO_LEASE, HELD);
    check_stale(&alice, token + 1);
    check_stale(&alice, token - 1);
    check_stale(&bob, token);
    /* The token of another class is none of this one. */
    check_stale(&alice, fake_hold(&alice, endpoint, INPUT));
    assert_ack(&alice, fake_power(&alice, endpoint, token, VMIBUS_POWER_OPERATION_RESET), OK, NONE);
}

TEST(test_p05_token_released, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, POWER);

    assert_ack(&alice, fake_release(&alice, endpoint, POWER, token), OK, NONE);
    check_stale(&alice, token);
    /* The answer is all that is told about it. */
    alice.log.next = 0;
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_LEASE));
    fake_hold(&bob, endpoint, POWER);
    check_stale(&alice, token);
}

TEST(test_p05_token_of_a_disconnected_control, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, POWER);

    fake_control_close(&alice);
    check_stale(&bob, token);
    fake_control_open(&alice, 1);
    check_stale(&alice, token);
    ck_assert_uint_gt(fake_hold(&alice, endpoint, POWER), token);
}

TEST(test_p05_token_preempted, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, POWER);

    fake_acquire(&bob, endpoint, POWER, PREEMPT, 0);
    check_stale(&alice, token);
}

TEST(test_p05_token_expires_by_timer, .setup = open_stage, .teardown = close_stage) {
    uint64_t first = fake_acquire(&alice, endpoint, POWER, FAIL, 1), second = fake_acquire(&bob, endpoint, POWER, QUEUE, 0);
    uint64_t token = fake_control_ack(&alice, first)->token;

    ck_assert_uint_ne(fake_control_ack(&alice, first)->value, 0);
    ck_assert_uint_eq(fake_control_wait_ack(&bob, second)->error, VMIBUS_ERROR_OK);
    check_stale(&alice, token);
    alice.log.next = 0;
    ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_LEASE)->lease.reason, VMIBUS_REASON_LEASE_EXPIRED);
}

TEST(test_p05_token_is_dead_before_its_timer_fired, .setup = open_stage, .teardown = close_stage) {
    uint64_t command = fake_acquire(&alice, endpoint, POWER, FAIL, 1);
    uint64_t token = fake_control_ack(&alice, command)->token, expires = fake_control_ack(&alice, command)->value;

    while (clock_now() < expires)
        ;
    ck_assert_uint_eq(lease_of(POWER)->state, VMIBUS_LEASE_STATE_HELD);
    assert_ack(&alice, fake_power(&alice, endpoint, token, VMIBUS_POWER_OPERATION_RESET), STALE_TOKEN, LEASE_EXPIRED);
    check_stale(&alice, token);
}

TEST(test_p05_renewal_counts_from_now_as_far_as_the_grant_goes, .setup = open_stage, .teardown = close_stage) {
    uint64_t command = fake_acquire(&alice, endpoint, POWER, FAIL, 5000), token = fake_control_ack(&alice, command)->token;
    uint64_t before, expires;

    before = clock_now();
    command = fake_renew(&alice, endpoint, POWER, token, 3600 * 1000);
    expires = fake_control_ack(&alice, command)->value;
    ck_assert_uint_ge(expires, before + 3600 * NS_PER_S);
    ck_assert_uint_eq(lease_of(POWER)->timer.deadline, expires);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->token, token);
    command = fake_renew(&alice, endpoint, POWER, token, 0);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, 0);
    ck_assert(!loop_timer_is_armed(&lease_of(POWER)->timer));
    stage_new_policy();
    stage_allow(1, "*", CAPABILITIES_ALL, 1)->lease_ttl_ms = 1000;
    stage_apply_policy();
    command = fake_renew(&alice, endpoint, POWER, token, 0);
    ck_assert_uint_ne(fake_control_ack(&alice, command)->value, 0);
    ck_assert_uint_le(fake_control_ack(&alice, command)->value, clock_now() + NS_PER_S);
}

TEST(test_p05_token_of_the_last_occupant, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *others[16], last = *endpoint;
    uint64_t token = fake_hold(&alice, endpoint, POWER), fresh;

    fake_withdraw(&sensor, endpoint);
    /* Slots are reused as late as possible; all of them bring back this one. */
    for (int i = 0; i < 16; i++)
        others[i] = fake_offer(&sensor, "vm", GROUPS_ALL);
    endpoint = others[15];
    ck_assert_uint_eq(endpoint->slot, last.slot);
    ck_assert_uint_gt(endpoint->generation, last.generation);
    assert_ack(&alice, fake_power(&alice, &last, token, VMIBUS_POWER_OPERATION_RESET), GONE, NONE);
    check_stale(&alice, token);
    fresh = fake_hold(&alice, endpoint, POWER);
    ck_assert_uint_gt(fresh, token);
    check_stale(&alice, token);
    assert_ack(&alice, fake_power(&alice, &last, fresh, VMIBUS_POWER_OPERATION_RESET), GONE, NONE);
    assert_ack(&alice, fake_release(&alice, &last, POWER, fresh), GONE, NONE);
}

TEST(test_p05_endpoint_goes_with_holder_and_line, .setup = open_stage, .teardown = close_stage) {
    uint64_t second;
    size_t n_issued = 0;
    const struct vmibus_frame *frame;

    fake_hold(&alice, endpoint, MEMWRITE);
    second = fake_acquire(&bob, endpoint, MEMWRITE, QUEUE, 0);
    fake_withdraw(&sensor, endpoint);
    assert_ack(&bob, second, GONE, NONE);
    alice.log.next = 0;
    ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_LEASE)->lease.state, VMIBUS_LEASE_STATE_FREE);
    while ((frame = stage_link_next()))
        n_issued += frame->header.kind == VMIBUS_KIND_FENCE_ISSUE;
    ck_assert_uint_eq(n_issued, 1);
    ck_assert_uint_eq(stage_used(RESOURCE_LEASES) + stage_used(RESOURCE_WAITERS), 0);
}

/* The line of a class that is just being revoked does not move because the endpoint goes. */
TEST(test_p05_endpoint_goes_while_revoking, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, INPUT), second, command;

    sensor.answers = false;
    command = fake_input(&alice, endpoint, token, 30);
    second = fake_acquire(&bob, endpoint, INPUT, QUEUE, 0);
    fake_release(&alice, endpoint, INPUT, token);
    fake_withdraw(&sensor, endpoint);
    assert_ack(&alice, command, GONE, WITHDRAWN);
    assert_ack(&bob, second, GONE, NONE);
    ck_assert_uint_eq(stage.bus->last_token & UINT32_MAX, token & UINT32_MAX);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_INPUT_RELEASE));
}

/* --- revoke first, notify second --------------------------------------------------------------- */

static uint64_t watched_token;
static unsigned n_checked;

/* Whoever is woken finds the token dead already, at the bus and at the authority. */
static void check_dead(struct fake_control *control) {
    const struct lease *lease = lease_of(MEMWRITE);
    enum vmibus_reason reason;
    bool revoked = false;

    (void)control;
    ck_assert_uint_ne(lease_check(lease, &alice.control, watched_token, &reason), VMIBUS_ERROR_OK);
    for (size_t i = 0; i < stage.link.n; i++)
        revoked |= stage.link.entries[i]->frame.header.kind == VMIBUS_KIND_FENCE_REVOKE &&
                   stage.link.entries[i]->frame.fence_revoke.token == watched_token;
    ck_assert(revoked);
    n_checked++;
}

TEST(test_p05_revoke_first_notify_second, .setup = open_stage, .teardown = close_stage, .iterations = 4) {
    fake_subscribe(&bob, "*", KINDS_RETAINED);
    watched_token = fake_hold(&alice, endpoint, MEMWRITE);
    stage.link_drains = _i % 2;
    fake_acquire(&carol, endpoint, MEMWRITE, QUEUE, 0);
    n_checked = 0;
    alice.on_wake = bob.on_wake = carol.on_wake = check_dead;
    if (_i < 2)
        fake_release(&alice, endpoint, MEMWRITE, watched_token);
    else
        lease_revoke(lease_of(MEMWRITE), VMIBUS_REASON_REVOKED);
    ck_assert_uint_ge(n_checked, 2);
    alice.on_wake = bob.on_wake = carol.on_wake = NULL;
}

TEST(test_p05_authority_knows_the_fence_before_the_holder, .setup = open_stage, .teardown = close_stage) {
    const struct vmibus_frame *frame;
    uint64_t command = fake_acquire(&alice, endpoint, MEMWRITE, FAIL, 60000), token = fake_control_ack(&alice, command)->token;

    ck_assert_uint_eq(stage_link_next()->header.kind, VMIBUS_KIND_ENDPOINT_OPENED);
    frame = stage_link_next();
    ck_assert_uint_eq(frame->header.kind, VMIBUS_KIND_FENCE_ISSUE);
    ck_assert_uint_eq(frame->header.slot, endpoint->slot);
    ck_assert_uint_eq(frame->header.generation, endpoint->generation);
    ck_assert_uint_eq(frame->fence_issue.token, token);
    ck_assert_uint_eq(frame->fence_issue.expires, fake_control_ack(&alice, command)->value);
    ck_assert_uint_eq(frame->fence_issue.uid, 1);
    ck_assert_mem_eq(frame->fence_issue.session, alice.control.session, 16);
    command = fake_renew(&alice, endpoint, MEMWRITE, token, 120000);
    frame = stage_link_next();
    ck_assert_uint_eq(frame->header.kind, VMIBUS_KIND_FENCE_ISSUE);
    ck_assert_uint_eq(frame->fence_issue.token, token);
    ck_assert_uint_eq(frame->fence_issue.expires, fake_control_ack(&alice, command)->value);
    fake_control_close(&alice);
    ck_assert_uint_eq(stage_link_next()->header.kind, VMIBUS_KIND_FENCE_REVOKE);
    frame = stage_link_next();
    ck_assert_uint_eq(frame->header.kind, VMIBUS_KIND_SESSION_CLOSED);
    fake_control_open(&alice, 1);
    /* No other class concerns the authority. */
    fake_hold(&alice, endpoint, INPUT);
    ck_assert_ptr_null(stage_link_next());
}

/* --- the next token only after everything under the last one is over ---------------------------- */

TEST(test_p05_next_token_waits_for_the_authority, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, MEMWRITE), second;

    stage.link_drains = false;
    second = fake_acquire(&bob, endpoint, MEMWRITE, QUEUE, 0);
    fake_release(&alice, endpoint, MEMWRITE, token);
    ck_assert_uint_eq(lease_of(MEMWRITE)->state, VMIBUS_LEASE_STATE_REVOKING);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
    stage_drained(endpoint, token - 1);
    stage_drained(endpoint, token + 1);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
    stage_drained(endpoint, token);
    assert_ack(&bob, second, OK, NONE);
    /* Once more means nothing. */
    stage_drained(endpoint, token);
    stage_drained(endpoint, fake_control_ack(&bob, second)->token);
    ck_assert_ptr_eq(lease_of(MEMWRITE)->holder, &bob.control);
}

TEST(test_p05_next_token_waits_for_commands, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, POWER), second;
    const struct vmibus_frame *sent[2];

    sensor.answers = false;
    for (int i = 0; i < 2; i++) {
        fake_power(&alice, endpoint, token, VMIBUS_POWER_OPERATION_RESET);
        sent[i] = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_POWER);
    }
    second = fake_acquire(&bob, endpoint, POWER, QUEUE, 0);
    /* Disconnected or not: what runs at the sensor runs. */
    fake_control_close(&alice);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_CANCEL));
    fake_complete(&sensor, sent[1], VMIBUS_ERROR_OK);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
    fake_complete(&sensor, sent[1], VMIBUS_ERROR_OK);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
    fake_complete(&sensor, sent[0], VMIBUS_ERROR_OK);
    assert_ack(&bob, second, OK, NONE);
    fake_control_open(&alice, 1);
}

TEST(test_p05_keys_are_released_after_the_last_command_and_before_the_next_holder, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, INPUT), command, second;
    const struct vmibus_frame *input, *release;

    sensor.answers = false;
    command = fake_input(&alice, endpoint, token, 30);
    input = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT);
    second = fake_acquire(&bob, endpoint, INPUT, QUEUE, 0);
    fake_release(&alice, endpoint, INPUT, token);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_INPUT_RELEASE));
    fake_complete(&sensor, input, VMIBUS_ERROR_OK);
    assert_ack(&alice, command, OK, NONE);
    release = fake_sensor_next_of(&sensor, VMIBUS_KIND_INPUT_RELEASE);
    ck_assert_ptr_nonnull(release);
    ck_assert_uint_eq(release->header.slot, endpoint->slot);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    fake_complete(&sensor, release, VMIBUS_ERROR_OK);
    assert_ack(&bob, second, OK, NONE);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
}

TEST(test_p05_keys_are_released_by_a_sensor_that_answers_at_once, .setup = open_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, INPUT), second = fake_acquire(&bob, endpoint, INPUT, QUEUE, 0);

    assert_ack(&alice, fake_input(&alice, endpoint, token, 30), OK, NONE);
    fake_control_close(&alice);
    assert_ack(&bob, second, OK, NONE);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_INPUT_RELEASE));
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    fake_control_open(&alice, 1);
}

/* Keys that may still be down are nobody's to inherit: the class stays closed until the sensor has released them. */
TEST(test_p05_keys_that_stay_down_close_the_class, .setup = open_hasty_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, INPUT), second = fake_acquire(&bob, endpoint, INPUT, QUEUE, 0);
    const struct vmibus_frame *release;

    sensor.answers = false;
    fake_release(&alice, endpoint, INPUT, token);
    release = fake_sensor_next_of(&sensor, VMIBUS_KIND_INPUT_RELEASE);
    ck_assert_ptr_nonnull(release);
    fake_complete(&sensor, release, VMIBUS_ERROR_IO);
    ck_assert_ptr_null(fake_control_ack(&bob, second));
    ck_assert_ptr_nonnull(fake_control_wait_ack(&bob, second));
    assert_ack(&bob, second, BUSY, OUT_OF_SERVICE);
    while (!(release = fake_sensor_next_of(&sensor, VMIBUS_KIND_INPUT_RELEASE)))
        ck_assert_int_ge(loop_dispatch(stage.loop, -1), 0);
    fake_complete(&sensor, release, VMIBUS_ERROR_OK);
    fake_hold(&bob, endpoint, INPUT);
}

/* --- every way in which a lease ends ----------------------------------------------------------- */

enum ending { RELEASE, EXPIRY, PREEMPTION, DISCONNECT, N_ENDINGS };

/* Alice's lease ends; whoever comes next is in line already, or comes by preempting. Returns the next one's command. */
static uint64_t end_lease(enum ending ending, enum vmibus_lease_class lease_class, uint64_t token) {
    uint64_t next = fake_acquire(&bob, endpoint, lease_class, ending == PREEMPTION ? PREEMPT : QUEUE, 0);

    if (ending == RELEASE)
        fake_release(&alice, endpoint, lease_class, token);
    if (ending == EXPIRY)
        fake_renew(&alice, endpoint, lease_class, token, 1);
    if (ending == DISCONNECT)
        fake_control_close(&alice);
    while (lease_of(lease_class)->state == VMIBUS_LEASE_STATE_HELD && lease_of(lease_class)->token == token)
        ck_assert_int_ge(loop_dispatch(stage.loop, -1), 0);
    return next;
}

TEST(test_p05_every_ending_waits_for_the_authority, .setup = open_stage, .teardown = close_stage, .iterations = N_ENDINGS) {
    uint64_t token = fake_hold(&alice, endpoint, MEMWRITE), next;
    const struct vmibus_frame *frame;

    stage.link_drains = false;
    next = end_lease((enum ending)_i, MEMWRITE, token);
    ck_assert_uint_eq(lease_of(MEMWRITE)->state, VMIBUS_LEASE_STATE_REVOKING);
    do {
        frame = stage_link_next();
        ck_assert_ptr_nonnull(frame);
    } while (frame->header.kind != VMIBUS_KIND_FENCE_REVOKE);
    ck_assert_uint_eq(frame->fence_revoke.token, token);
    stage_settle();
    ck_assert_ptr_null(fake_control_ack(&bob, next));
    stage_drained(endpoint, token);
    assert_ack(&bob, next, OK, NONE);
    ck_assert_uint_gt(fake_control_ack(&bob, next)->token, token);
    if (_i == DISCONNECT)
        fake_control_open(&alice, 1);
}

TEST(test_p05_every_ending_releases_keys_before_the_next_holder, .setup = open_stage, .teardown = close_stage,
     .iterations = N_ENDINGS) {
    uint64_t token = fake_hold(&alice, endpoint, INPUT), next;
    const struct vmibus_frame *release;

    assert_ack(&alice, fake_input(&alice, endpoint, token, 30), OK, NONE);
    sensor.answers = false;
    next = end_lease((enum ending)_i, INPUT, token);
    release = fake_sensor_next_of(&sensor, VMIBUS_KIND_INPUT_RELEASE);
    ck_assert_ptr_nonnull(release);
    stage_settle();
    ck_assert_ptr_null(fake_control_ack(&bob, next));
    fake_complete(&sensor, release, VMIBUS_ERROR_OK);
    assert_ack(&bob, next, OK, NONE);
    if (_i == DISCONNECT)
        fake_control_open(&alice, 1);
}

/* --- what waits for its time ------------------------------------------------------------------- */

/* What waits for its time under a lease that ended keeps nobody waiting. */
TEST(test_p05_commands_that_wait_end_with_the_lease, .setup = open_stage, .teardown = close_stage) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_INPUT, .slot = endpoint->slot, .generation = endpoint->generation},
        .cmd_input = {.token = fake_hold(&alice, endpoint, INPUT),
                      .not_before_us = UINT32_MAX,
                      .count = 1,
                      .events = {{.type = VMIBUS_INPUT_TYPE_KEY}}},
    };
    uint64_t token = frame.cmd_input.token, command, second;

    sensor.answers = true;
    command = fake_control_submit(&alice, &frame, NULL, 0);
    second = fake_acquire(&bob, endpoint, INPUT, QUEUE, 0);
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    fake_release(&alice, endpoint, INPUT, token);
    assert_ack(&alice, command, STALE_TOKEN, RELEASED);
    assert_ack(&bob, second, OK, NONE);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_INPUT));
}

/* --- out of service ---------------------------------------------------------------------------- */

TEST(test_p05_class_goes_out_of_service_and_comes_back, .setup = open_hasty_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, MEMWRITE), second;
    const struct vmibus_frame *frame;

    stage.link_drains = false;
    fake_subscribe(&carol, "*", BIT(VMIBUS_KIND_LEASE));
    fake_control_forget(&carol);
    second = fake_acquire(&bob, endpoint, MEMWRITE, QUEUE, 0);
    fake_release(&alice, endpoint, MEMWRITE, token);
    ck_assert_uint_eq(fake_control_wait_ack(&bob, second)->reason, VMIBUS_REASON_OUT_OF_SERVICE);
    assert_ack(&bob, second, BUSY, OUT_OF_SERVICE);
    assert_ack(&bob, fake_acquire(&bob, endpoint, MEMWRITE, FAIL, 0), BUSY, OUT_OF_SERVICE);
    assert_ack(&bob, fake_acquire(&bob, endpoint, MEMWRITE, QUEUE, 0), BUSY, OUT_OF_SERVICE);
    assert_ack(&bob, fake_acquire(&bob, endpoint, MEMWRITE, PREEMPT, 0), BUSY, OUT_OF_SERVICE);
    stage_settle();
    frame = fake_control_next_of(&carol, VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(frame->lease.state, VMIBUS_LEASE_STATE_REVOKING);
    frame = fake_control_next_of(&carol, VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(frame->lease.state, VMIBUS_LEASE_STATE_OUT_OF_SERVICE);
    /* The other classes are. */
    fake_hold(&bob, endpoint, POWER);
    stage_drained(endpoint, token);
    ck_assert_uint_eq(lease_of(MEMWRITE)->state, VMIBUS_LEASE_STATE_FREE);
    ck_assert_uint_gt(fake_hold(&bob, endpoint, MEMWRITE), token);
    ck_assert_uint_eq(stage_used(RESOURCE_WAITERS), 0);
}

TEST(test_p05_drain_deadline_does_not_hit_the_next_holder, .setup = open_hasty_stage, .teardown = close_stage) {
    uint64_t token = fake_hold(&alice, endpoint, POWER), next;

    fake_release(&alice, endpoint, POWER, token);
    next = fake_hold(&bob, endpoint, POWER);
    ck_assert(!loop_timer_is_armed(&lease_of(POWER)->timer));
    assert_ack(&bob, fake_power(&bob, endpoint, next, VMIBUS_POWER_OPERATION_RESET), OK, NONE);
}

TEST(test_p05_without_an_authority_writes_drain_at_once) {
    uint64_t token;

    open_with(&(struct stage_options){});
    token = fake_hold(&alice, endpoint, MEMWRITE);
    assert_ack(&alice, fake_release(&alice, endpoint, MEMWRITE, token), OK, NONE);
    ck_assert_uint_eq(lease_of(MEMWRITE)->state, VMIBUS_LEASE_STATE_FREE);
    close_stage();
}

/* --- observers --------------------------------------------------------------------------------- */

TEST(test_p05_observers_see_who_holds_what, .setup = open_stage, .teardown = close_stage) {
    uint64_t token;
    const struct vmibus_frame *frame;

    fake_subscribe(&carol, "*", BIT(VMIBUS_KIND_LEASE));
    token = fake_hold(&alice, endpoint, POWER);
    frame = fake_control_next_of(&carol, VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(frame->lease.state, VMIBUS_LEASE_STATE_HELD);
    ck_assert_uint_eq(frame->lease.token, token);
    ck_assert_uint_eq(frame->lease.holder_uid, 1);
    ck_assert_uint_eq(frame->lease.holder_pid, 1001);
    ck_assert_uint_eq(frame->lease.rank, 1);
    fake_release(&alice, endpoint, POWER, token);
    frame = fake_control_next_of(&carol, VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(frame->lease.state, VMIBUS_LEASE_STATE_FREE);
    ck_assert_uint_eq(frame->lease.reason, VMIBUS_REASON_RELEASED);
    /* Late ones too. */
    fake_hold(&alice, endpoint, INPUT);
    fake_subscribe(&bob, "*", BIT(VMIBUS_KIND_LEASE));
    frame = fake_control_next_of(&bob, VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(frame->lease.state, VMIBUS_LEASE_STATE_FREE);
    ck_assert_uint_eq(frame->header.flags, VMIBUS_FRAME_RETAINED);
    frame = fake_control_next_of(&bob, VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(frame->lease.lease_class, INPUT);
    ck_assert_uint_eq(frame->lease.state, VMIBUS_LEASE_STATE_HELD);
}

/* When the numbers of an incarnation are used up, leases are refused; none is given twice. */
TEST(test_p05_tokens_run_out_rather_than_repeat, .setup = open_stage, .teardown = close_stage) {
    uint64_t token;

    stage.bus->last_token = UINT32_MAX - 1;
    token = fake_hold(&alice, endpoint, POWER);
    assert_ack(&alice, fake_release(&alice, endpoint, POWER, token), OK, NONE);
    assert_ack(&alice, fake_acquire(&alice, endpoint, POWER, FAIL, 0), PRESSURE, LIMIT_LEASES);
    stage.bus->last_generation = UINT32_MAX;
    ck_assert_ptr_null(fake_offer(&sensor, "another", GROUPS_ALL));
    ck_assert_uint_eq(sensor.last_answer.ack.error, VMIBUS_ERROR_PRESSURE);
}

HARNESS_SUITE("leases", HARNESS_QUICK)
