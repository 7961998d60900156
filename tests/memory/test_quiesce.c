/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CMD_MEMWRITE with QUIESCE: what is asked of the bus, and what becomes of the writes that wait for it. */
#include <semaphore.h>
#include <string.h>

#include "harness.h"
#include "memory/fixture.h"

static struct fixture fx;

static void begin(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void end(void) {
    fixture_deinit(&fx);
}

static uint8_t *data_at(uint64_t skip) {
    return fx.vm.ram + DATA_GPA + skip;
}

/* A write of one octet, which waits. */
static void write_still(struct client *client, uint64_t skip, uint8_t octet, uint32_t flags) {
    struct vmibus_frame frame =
        write_frame(&fx, DATA_GVA + skip, &octet, 1, VMIBUS_MEMWRITE_QUIESCE | flags);

    submit_only(client, &frame, NULL, NULL);
}

static size_t begun(void) {
    return count_of(&fx.link, VMIBUS_KIND_QUIESCE_BEGIN);
}

static size_t ended(void) {
    return count_of(&fx.link, VMIBUS_KIND_QUIESCE_END);
}

static uint64_t name_of_hold(void) {
    return last_of(&fx.link, VMIBUS_KIND_QUIESCE_BEGIN)->header.correlation;
}

static void tell_state(uint64_t name, enum vmibus_error error) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_QUIESCE_STATE);

    frame.header.correlation = name;
    frame.quiesce_state.error = (uint16_t)error;
    frame.quiesce_state.reason = error ? VMIBUS_REASON_QUIESCE_FAILED : VMIBUS_REASON_NONE;
    authority_hear_link(fx.authority, &frame, NULL);
}

static const struct vmibus_ack *answer(size_t index) {
    size_t n = 0;

    for (size_t i = 0; i < fx.control.journal.n; i++)
        if (fx.control.journal.frames[i].header.kind == VMIBUS_KIND_ACK && n++ == index)
            return &fx.control.journal.frames[i].ack;
    ck_abort_msg("there is no answer %zu", index);
}

TEST(test_p04_quiesced_write_waits_for_the_guest, .setup = begin, .teardown = end) {
    size_t before = fx.control.journal.n;
    const uint8_t octet = 5;

    write_still(&fx.control, 0, 7, 0);
    ck_assert_uint_eq(begun(), 1);
    ck_assert_uint_ne(name_of_hold(), 0);
    /* One without the flag goes by the worker too, and overtakes it. */
    assert_ok(do_write(&fx, DATA_GVA + 8, &octet, 1, 0));
    ck_assert_uint_eq(fx.control.journal.n, ++before);
    ck_assert_uint_eq(*data_at(0), 0);
    ck_assert_uint_eq(ended(), 0);
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    wait_answers(&fx.control, before + 1);
    assert_ok(answer(before));
    ck_assert_uint_eq(*data_at(0), 7);
    ck_assert_uint_eq(begun(), 1);
    ck_assert_uint_eq(ended(), 1);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_QUIESCE_END)->header.correlation, name_of_hold());
}

/* They go in order, under one hold, also those that come while it is in force. */
TEST(test_p04_nested_quiesced_writes, .setup = begin, .teardown = end) {
    size_t before = fx.control.journal.n;

    for (uint8_t i = 1; i <= 5; i++)
        write_still(&fx.control, 0, i, 0);
    ck_assert_uint_eq(begun(), 1);
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    for (uint8_t i = 6; i <= 9; i++)
        write_still(&fx.control, 0, i, 0);
    wait_answers(&fx.control, before + 9);
    for (size_t i = 0; i < 9; i++)
        assert_ok(answer(before + i));
    ck_assert_uint_eq(*data_at(0), 9);
    ck_assert_uint_eq(begun(), 1);
    ck_assert_uint_eq(ended(), 1);
    /* The next has a hold of its own, under a name of its own. */
    write_still(&fx.control, 0, 10, 0);
    ck_assert_uint_eq(begun(), 2);
    ck_assert_uint_ne(name_of_hold(), last_of(&fx.link, VMIBUS_KIND_QUIESCE_END)->header.correlation);
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    wait_answers(&fx.control, before + 10);
}

TEST(test_p04_guest_that_cannot_be_held, .setup = begin, .teardown = end) {
    size_t before = fx.control.journal.n;
    uint64_t name;

    write_still(&fx.control, 0, 7, 0);
    write_still(&fx.control, 1, 8, 0);
    name = name_of_hold();
    tell_state(name + 1, VMIBUS_ERROR_OK); /* of another hold */
    ck_assert_uint_eq(fx.control.journal.n, before);
    tell_state(name, VMIBUS_ERROR_BUSY);
    wait_answers(&fx.control, before + 2);
    assert_refused(answer(before), VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED);
    assert_refused(answer(before + 1), VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED);
    ck_assert_uint_eq(*data_at(0), 0);
    ck_assert_uint_eq(ended(), 0); /* it is over already */
    tell_state(name, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(*data_at(0), 0);
}

/* What waits for the guest holds up nobody else. */
static sem_t arrived, released;

static ssize_t pwrite_in_the_middle(int fd, const void *buffer, size_t len, off_t offset) {
    sem_post(&arrived);
    while (sem_wait(&released) < 0)
        continue;
    sem_post(&released);
    return pwrite_really(fd, buffer, len, offset);
}

/* The guest goes on in the middle of a write: it may have seen half of it. */
TEST(test_p04_guest_that_goes_on_too_early, .setup = begin, .teardown = end) {
    static uint8_t source[MIB];
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, source, sizeof(source), VMIBUS_MEMWRITE_QUIESCE);
    size_t before = fx.control.journal.n;

    sem_init(&arrived, 0, 0);
    sem_init(&released, 0, 0);
    pwrite_hook = pwrite_in_the_middle;
    submit_only(&fx.control, &frame, source, NULL);
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    while (sem_wait(&arrived) < 0)
        continue;
    tell_state(name_of_hold(), VMIBUS_ERROR_BUSY);
    sem_post(&released);
    wait_answers(&fx.control, before + 1);
    ck_assert_uint_eq(answer(before)->error, VMIBUS_ERROR_BUSY);
    ck_assert_uint_eq(answer(before)->reason, VMIBUS_REASON_QUIESCE_FAILED);
    ck_assert_uint_eq(answer(before)->count, sizeof(source));
}

TEST(test_p09_other_writes_do_not_wait, .setup = begin, .teardown = end) {
    struct client other;
    struct vmibus_frame frame;
    const uint8_t octet = 9;

    write_still(&fx.control, 0, 7, 0);
    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, fx.control.principal.uid, 99);
    link_issue(&fx, &other, fx.token + 1, 0);
    frame = write_frame(&fx, DATA_GVA + 8, &octet, 1, 0);
    frame.cmd_memwrite.token = fx.token;
    assert_ok(submit(&other, &frame, NULL, NULL));
    ck_assert_uint_eq(*data_at(8), 9);
    /* The fence that it waited under is gone: it is not executed, and the fence drains then. */
    ck_assert_ptr_null(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED));
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    wait_answers(&fx.control, fx.control.journal.n + 1);
    assert_refused(&last_of(&fx.control.journal, VMIBUS_KIND_ACK)->ack, VMIBUS_ERROR_STALE_TOKEN,
                   VMIBUS_REASON_REVOKED);
    ck_assert_uint_eq(*data_at(0), 0);
    ck_assert_ptr_nonnull(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED));
    ck_assert_uint_eq(ended(), 1);
    client_deinit(&other);
}

TEST(test_p09_endpoint_goes_while_a_write_waits, .setup = begin, .teardown = end) {
    size_t before = fx.control.journal.n;

    write_still(&fx.control, 0, 7, 0);
    link_close(&fx, fx.generation);
    wait_answers(&fx.control, before + 1);
    assert_refused(answer(before), VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN);
    ck_assert_uint_eq(ended(), 0);
    ck_assert_ptr_nonnull(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED));
}

/* Only the first one waits to be let go. */
static ssize_t pwrite_first_waits(int fd, const void *buffer, size_t len, off_t offset) {
    pwrite_hook = NULL;
    return pwrite_in_the_middle(fd, buffer, len, offset);
}

/* The next occupant, another VM, goes on, though a write of the one before has not come back. */
TEST(test_p09_write_of_an_earlier_occupant_holds_nobody, .setup = begin, .teardown = end) {
    size_t before = fx.control.journal.n;
    struct vm earlier = fx.vm;

    sem_init(&arrived, 0, 0);
    sem_init(&released, 0, 0);
    pwrite_hook = pwrite_first_waits;
    write_still(&fx.control, 0, 7, 0);
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    while (sem_wait(&arrived) < 0)
        continue;
    link_close(&fx, fx.generation);
    vm_init(&fx.vm, VM_SEALED, earlier.levels);
    link_open(&fx, fx.generation + 1, "vm");
    assert_ok(propose_layout(&fx, false));
    assert_ok(propose_root(&fx));
    link_issue(&fx, &fx.control, fx.token + 1, 0);
    write_still(&fx.control, 1, 8, 0);
    ck_assert_uint_eq(begun(), 2);
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    wait_answers(&fx.control, before + 1);
    assert_ok(answer(before));
    ck_assert_uint_eq(ended(), 1);
    sem_post(&released);
    wait_answers(&fx.control, before + 2);
    ck_assert_uint_eq(answer(before + 1)->error, VMIBUS_ERROR_STALE_EPOCH);
    ck_assert_uint_eq(ended(), 1);
    vm_deinit(&earlier);
}

TEST(test_p08_client_goes_while_its_write_waits, .setup = begin, .teardown = end) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, fx.control.principal.uid, 99);
    link_issue(&fx, &other, ++fx.token, 0);
    write_still(&other, 0, 7, 0);
    link_session_closed(&fx, &other);
    link_revoke(&fx, fx.token);
    client_deinit(&other);
    tell_state(name_of_hold(), VMIBUS_ERROR_OK);
    while (ended() == 0)
        ck_assert_int_ge(loop_dispatch(fx.loop, 10000), 0);
    ck_assert_uint_eq(*data_at(0), 0);
}

/* Nothing is left when the authority ends with a write that waits; fixture_deinit() asserts it. */
TEST(test_p08_authority_ends_while_a_write_waits, .setup = begin, .teardown = end) {
    write_still(&fx.control, 0, 7, 0);
    ck_assert_uint_eq(begun(), 1);
}

HARNESS_SUITE("memory: writes that hold the guest still", HARNESS_QUICK)
