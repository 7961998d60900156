/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fences: whose token executes, and when it is said that nothing does any more. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "util/clock.h"

#define TOKEN(n) (UINT64_C(3) << 32 | (n))

static struct fixture fx;

static void ready(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void teardown(void) {
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown

static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static struct vmibus_ack *write_by(struct client *client, uint64_t token) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    frame.cmd_memwrite.token = token;
    return submit(client, &frame, NULL, NULL);
}

static void assert_untouched(void) {
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], 0);
}

TEST(test_p05_no_token_no_lease) {
    fixture_init(&fx, VM_SEALED);
    propose_layout(&fx, false);
    propose_root(&fx);
    assert_refused(write_by(&fx.control, 0), VMIBUS_ERROR_NO_LEASE, VMIBUS_REASON_NONE);
    assert_refused(write_by(&fx.control, TOKEN(9)), VMIBUS_ERROR_NO_LEASE, VMIBUS_REASON_NONE);
    link_issue(&fx, &fx.control, TOKEN(1), 0);
    assert_refused(write_by(&fx.control, 0), VMIBUS_ERROR_NO_LEASE, VMIBUS_REASON_NONE);
    assert_untouched();
    fixture_deinit(&fx);
}

TEST(test_p05_wrong_token, READY) {
    assert_refused(write_by(&fx.control, TOKEN(2)), VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NONE);
    assert_refused(write_by(&fx.control, TOKEN(0)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    assert_untouched();
}

TEST(test_p05_revoked_token, READY) {
    link_revoke(&fx, TOKEN(1));
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED)->fence_drained.token, TOKEN(1));
    assert_refused(write_by(&fx.control, TOKEN(1)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    /* Said again, late or out of order, it does not come back. */
    link_issue(&fx, &fx.control, TOKEN(1), 0);
    assert_refused(write_by(&fx.control, TOKEN(1)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    assert_untouched();
}

TEST(test_p05_revoked_before_issued, READY) {
    link_revoke(&fx, TOKEN(5));
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED), 1);
    link_issue(&fx, &fx.control, TOKEN(5), 0);
    assert_refused(write_by(&fx.control, TOKEN(5)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
}

TEST(test_p05_expired_token, READY) {
    link_issue(&fx, &fx.control, TOKEN(2), clock_now() - 1);
    assert_refused(write_by(&fx.control, TOKEN(2)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_LEASE_EXPIRED);
    assert_untouched();
    /* Renewed, it goes on. */
    link_issue(&fx, &fx.control, TOKEN(2), clock_now() + 3600 * NS_PER_S);
    assert_ok(write_by(&fx.control, TOKEN(2)));
}

TEST(test_p05_superseded_token, READY) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    link_issue(&fx, &other, TOKEN(2), 0);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED)->fence_drained.token, TOKEN(1));
    assert_refused(write_by(&fx.control, TOKEN(1)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    assert_untouched();
    assert_ok(write_by(&other, TOKEN(2)));
    client_deinit(&other);
}

TEST(test_p05_another_session, READY) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    assert_refused(write_by(&other, TOKEN(1)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_NOT_RIGHTS_HOLDER);
    assert_untouched();
    client_deinit(&other);
}

TEST(test_p05_another_uid, READY) {
    struct client other;

    fixture_grant(&fx, 4711, CAPABILITIES_ALL);
    /* A client that presents the holder's session under another uid. */
    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, 4711, 99);
    memcpy(fx.control.session, other.session, sizeof(other.session));
    fx.control.principal.uid = geteuid();
    link_issue(&fx, &fx.control, TOKEN(2), 0);
    assert_refused(write_by(&other, TOKEN(2)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_NOT_RIGHTS_HOLDER);
    assert_untouched();
    client_deinit(&other);
}

TEST(test_p05_renewal_by_another_session_is_ignored, READY) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    link_issue(&fx, &fx.control, TOKEN(2), clock_now() - 1);
    link_issue(&fx, &other, TOKEN(2), 0);
    assert_refused(write_by(&other, TOKEN(2)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_NOT_RIGHTS_HOLDER);
    assert_refused(write_by(&fx.control, TOKEN(2)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_LEASE_EXPIRED);
    client_deinit(&other);
}

TEST(test_p05_reused_endpoint, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    link_close(&fx, fx.generation);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED), 1);
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    link_open(&fx, 8, "next");
    propose_layout(&fx, false);
    propose_root(&fx);
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    /* The old token does not reach the new occupant, nor does one issued to the old generation. */
    assert_refused(write_by(&fx.control, TOKEN(1)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    fx.generation = 7;
    link_issue(&fx, &fx.control, TOKEN(2), 0);
    fx.generation = 8;
    assert_refused(write_by(&fx.control, TOKEN(2)), VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NONE);
    assert_untouched();
}

static uint8_t mib[MIB];

static void submit_mib(struct client *client) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, mib, sizeof(mib), 0);

    submit_only(client, &frame, mib, NULL);
}

/* DRAINED comes after the write that was under way has ended, not before. */
TEST(test_p05_drained_after_the_write, READY) {
    memset(mib, 0x5a, sizeof(mib));
    pwrite_block();
    submit_mib(&fx.control);
    link_revoke(&fx, TOKEN(1));
    link_revoke(&fx, TOKEN(1)); /* asked twice, answered once */
    ck_assert_int_ge(loop_dispatch(fx.loop, 0), 0);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED), 0);
    pwrite_release();
    wait_answers(&fx.control, 1);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED), 1);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED)->fence_drained.token, TOKEN(1));
    /* It was begun before the revocation reached it, or refused by it: whole or not at all. */
    if (fx.control.journal.frames[0].ack.error != VMIBUS_ERROR_OK) {
        assert_refused(&fx.control.journal.frames[0].ack, VMIBUS_ERROR_STALE_TOKEN,
                       VMIBUS_REASON_REVOKED);
        memset(mib, 0, sizeof(mib));
    }
    ck_assert_mem_eq(fx.vm.ram + DATA_GPA, mib, sizeof(mib));
}

/* Queued behind another: revoked before its turn, it must not execute. */
TEST(test_p05_queued_write_is_refused_at_commit, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    pwrite_block();
    submit_mib(&fx.control);
    submit_only(&fx.control, &frame, NULL, NULL);
    link_revoke(&fx, TOKEN(1));
    pwrite_release();
    wait_answers(&fx.control, 2);
    assert_refused(&fx.control.journal.frames[1].ack, VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    assert_untouched();
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED), 1);
}

/* What is revoked costs nothing more: it is not even translated. */
TEST(test_p09_queue_of_a_revoked_holder_is_not_worked_off, READY) {
    struct vmibus_frame frame = write_frame(&fx, 0, mib, 8192, VMIBUS_MEMWRITE_SRC_PAYLOAD); /* maps nothing */

    pwrite_block();
    submit_mib(&fx.control);
    submit_only(&fx.control, &frame, mib, NULL);
    link_revoke(&fx, TOKEN(1));
    pwrite_release();
    wait_answers(&fx.control, 2);
    assert_refused(&fx.control.journal.frames[1].ack, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED);
}

/* The time to live runs out while the write waits for its turn. */
TEST(test_p05_queued_write_expires, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);
    uint64_t end = clock_now() + 20 * NS_PER_MS;

    link_issue(&fx, &fx.control, TOKEN(1), end);
    pwrite_block();
    submit_mib(&fx.control);
    submit_only(&fx.control, &frame, NULL, NULL);
    while (clock_now() < end)
        ck_assert_int_ge(loop_dispatch(fx.loop, 5), 0);
    pwrite_release();
    wait_answers(&fx.control, 2);
    assert_refused(&fx.control.journal.frames[1].ack, VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_LEASE_EXPIRED);
}

/* The next holder's write waits for nobody, and the last holder's token is dead at once. */
TEST(test_p05_new_token_while_the_old_one_drains, READY) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    pwrite_block();
    submit_mib(&fx.control);
    link_issue(&fx, &other, TOKEN(2), 0);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED), 0);
    assert_refused(write_by(&fx.control, TOKEN(1)), VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    pwrite_release();
    wait_link(&fx, fx.link.n + 1);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED)->fence_drained.token, TOKEN(1));
    assert_ok(write_by(&other, TOKEN(2)));
    client_deinit(&other);
}

/* The same VM under another generation, or another slot, as a bus has it that lost all it knew: it issues at once. */
TEST(test_p05_write_of_an_earlier_occupant_is_waited_for, READY, .iterations = 2) {
    struct vmibus_ack *ack;
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    memset(mib, 0x5a, sizeof(mib));
    pwrite_block();
    submit_mib(&fx.control);
    link_close(&fx, fx.generation);
    fx.slot += (uint32_t)_i;
    link_open(&fx, 8, "vm");
    propose_layout(&fx, false);
    propose_root(&fx);
    link_issue(&fx, &other, TOKEN(2), 0);
    assert_refused(write_by(&other, TOKEN(2)), VMIBUS_ERROR_BUSY, VMIBUS_REASON_REVOKING);
    pwrite_release();
    wait_answers(&fx.control, 1);
    ack = write_by(&other, TOKEN(2));
    assert_ok(ack);
    ck_assert_mem_eq(fx.vm.ram + DATA_GPA, eight, sizeof(eight));
    client_deinit(&other);
}

/* What another VM's occupant left under way concerns nobody else. */
TEST(test_p09_write_of_an_earlier_occupant_holds_up_no_other_vm, READY) {
    struct vm own = fx.vm;

    pwrite_block();
    submit_mib(&fx.control);
    link_close(&fx, fx.generation);
    vm_init(&fx.vm, VM_SEALED, own.levels);
    fx.slot++;
    link_open(&fx, 8, "other");
    propose_layout(&fx, false);
    propose_root(&fx);
    link_issue(&fx, &fx.control, TOKEN(2), 0);
    /* Past the gate, it waits for the pwrite() that the test holds up. */
    pwrite_release();
    assert_ok(write_by(&fx.control, TOKEN(2)));
    vm_deinit(&own);
}

TEST(test_p05_closed_session, READY) {
    link_session_closed(&fx, &fx.control);
    assert_refused(write_by(&fx.control, TOKEN(1)), VMIBUS_ERROR_DENIED,
                   VMIBUS_REASON_BAD_SESSION);
    assert_untouched();
}

/* The client goes while its write is under way: the write ends, its answer is dropped, nothing leaks. */
TEST(test_p08_client_gone_during_write, READY) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    link_issue(&fx, &other, TOKEN(2), 0);
    pwrite_block();
    submit_mib(&other);
    submit_mib(&other);
    ck_assert_uint_gt(fx.ledger.used[RESOURCE_BYTES], 2 * MIB);
    client_deinit(&other);
    link_revoke(&fx, TOKEN(2));
    pwrite_release();
    wait_link(&fx, fx.link.n + 1);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED)->fence_drained.token, TOKEN(2));
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
}

/* Everything is torn down while writes are under way. */
TEST(test_p08_teardown_during_write, .iterations = 2) {
    ready();
    submit_mib(&fx.control);
    submit_mib(&fx.control);
    if (_i)
        link_close(&fx, fx.generation);
    teardown();
}

TEST(test_p08_quota_and_pressure_are_named, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, mib, sizeof(mib), 0);
    struct vmibus_ack *ack;

    fx.control.account->limit[RESOURCE_BYTES] = MIB;
    ack = submit(&fx.control, &frame, mib, NULL);
    assert_refused(ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(ack->value, MIB);
    fx.control.account->limit[RESOURCE_BYTES] = 64 * MIB;
    fx.ledger.limit[RESOURCE_BYTES] = MIB;
    ack = submit(&fx.control, &frame, mib, NULL);
    assert_refused(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(ack->value, MIB);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
}

HARNESS_SUITE("memory: fences", HARNESS_QUICK)
