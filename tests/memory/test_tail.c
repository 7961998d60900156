/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes whose octets stay in the tail that they came in: on every way that such a write can end, the tail comes back once, and
 * what was charged is released.
 */
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "memory/table.h"
#include "util/tails.h"

#define LEN 200000u
#define BLOCK (4 * LEN)

static struct fixture fx;
static struct arena arena;
static struct tails *tails;
static uint8_t octets[BLOCK];

static void ready(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
    ck_assert_int_eq(arena_init(&arena, arena_cost(BLOCK, 2)), 0);
    ck_assert_int_eq(tails_new(&tails, &arena, BLOCK, 2), 0);
    memset(octets, 0x5c, sizeof(octets));
}

/* tails_free() asserts that every tail is back. */
static void teardown(void) {
    pwrite_hook = NULL;
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
    tails = tails_free(tails);
    arena_deinit(&arena);
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown

static const uint8_t *data_at(uint64_t skip) {
    return fx.vm.ram + DATA_GPA + skip;
}

/* Hands a frame on as a receiver does. Whether its tail was kept; it is overwritten if it was not. */
static bool offer(struct vmibus_frame *frame, const void *tail) {
    uint8_t *block = tails_take(tails);

    ck_assert_ptr_nonnull(block);
    memcpy(block, tail, frame->header.tail_length);
    tails_offer(tails, block);
    submit_only(&fx.control, frame, block, NULL);
    if (tails_withdraw())
        return true;
    memset(block, 0xee, BLOCK);
    tails_give(tails, block);
    return false;
}

static struct vmibus_frame long_write(void) {
    return write_frame(&fx, DATA_GVA, octets, LEN, VMIBUS_MEMWRITE_SRC_PAYLOAD);
}

/* Begins a write that stays under way. */
static void begin_and_block(void) {
    struct vmibus_frame frame = long_write();

    pwrite_block();
    ck_assert(offer(&frame, octets));
    ck_assert_uint_ge(fx.ledger.used[RESOURCE_BYTES], LEN);
    ck_assert_uint_ne(arena.used, 0);
}

TEST(test_long_write_keeps_its_tail, READY) {
    struct vmibus_frame frame = long_write();
    size_t n = fx.control.journal.n;

    for (unsigned i = 0; i < 5; i++) {
        memset(octets, 0x20 + (int)i, LEN);
        ck_assert(offer(&frame, octets));
        wait_answers(&fx.control, n + i + 1);
        ck_assert_uint_eq(fx.control.journal.frames[n + i].ack.count, LEN);
        ck_assert(is_filled(data_at(0), (uint8_t)(0x20 + i), LEN));
        ck_assert_uint_eq(arena.used, 0);
    }
}

/* It is charged for what it keeps as it would be for a copy. */
TEST(test_p08_kept_tail_costs_what_a_copy_does, READY) {
    struct vmibus_frame frame = long_write();
    size_t n = fx.control.journal.n;
    uint64_t kept;

    pwrite_block();
    ck_assert(offer(&frame, octets));
    kept = fx.ledger.used[RESOURCE_BYTES];
    submit_only(&fx.control, &frame, octets, NULL);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 2 * kept);
    pwrite_release();
    wait_answers(&fx.control, n + 2);
}

/* Behind a table, with octets to expect before them. */
TEST(test_p04_table_in_a_kept_tail, READY, .iterations = 2) {
    static struct table table;
    size_t n = fx.control.journal.n;
    struct vmibus_frame frame;

    memset(fx.vm.ram + DATA_GPA, 0x11, MIB);
    table_reset(&table);
    table.fill = 0x40;
    table.expect = _i ? 0x12 : 0x11;
    table.flags = VMIBUS_MEMWRITE_EXPECT;
    for (unsigned i = 0; i < 3; i++)
        table_add(&table, DATA_GVA + i * 100000, 50000);
    frame = table_frame(&fx, &table);
    ck_assert(offer(&frame, table.tail + 1));
    wait_answers(&fx.control, n + 1);
    for (unsigned i = 0; i < 3; i++)
        ck_assert(is_filled(data_at(i * 100000), _i ? 0x11 : (uint8_t)(0x40 + i), 50000));
    table_reset(&table);
}

/* What is short is copied, and what is executed at once needs nothing. */
TEST(test_short_write_leaves_its_tail, READY) {
    static const uint32_t lengths[] = {100, 5000, 65535};
    size_t n = fx.control.journal.n;

    for (unsigned i = 0; i < 3; i++) {
        struct vmibus_frame frame = write_frame(&fx, DATA_GVA, octets, lengths[i], VMIBUS_MEMWRITE_SRC_PAYLOAD);

        ck_assert(!offer(&frame, octets));
        wait_answers(&fx.control, n + i + 1);
        ck_assert(is_filled(data_at(0), 0x5c, lengths[i]));
    }
}

/* Refused at a gate, it is not kept; refused for what it would hold, it is back at once. */
TEST(test_p08_refused_write_leaves_its_tail, READY) {
    struct vmibus_frame frame = long_write();
    size_t n = fx.control.journal.n;

    frame.cmd_memwrite.token--;
    ck_assert(!offer(&frame, octets));
    frame = long_write();
    fx.control.account->limit[RESOURCE_BYTES] = LEN - 1;
    (void)offer(&frame, octets);
    ck_assert_uint_eq(fx.control.journal.n, n + 2);
    assert_refused(&fx.control.journal.frames[n + 1].ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(arena.used, 0);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
}

TEST(test_p08_client_gone_while_its_tail_is_kept, READY) {
    begin_and_block();
    client_deinit(&fx.control);
    client_init(&fx.control, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    link_revoke(&fx, fx.token);
    pwrite_release();
    wait_link(&fx, fx.link.n + 1);
    ck_assert_ptr_nonnull(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED));
    ck_assert_uint_eq(arena.used, 0);
}

/* One is being executed, one waits behind it. */
TEST(test_p08_endpoint_gone_while_tails_are_kept, READY) {
    struct vmibus_frame frame = long_write();
    size_t n = fx.control.journal.n;

    begin_and_block();
    ck_assert(offer(&frame, octets));
    ck_assert_ptr_null(tails_take(tails));
    link_close(&fx, fx.generation);
    pwrite_release();
    wait_answers(&fx.control, n + 2);
    ck_assert_uint_ne(fx.control.journal.frames[n + 1].ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(arena.used, 0);
}

/* The listener goes first. */
TEST(test_p08_write_outlives_who_received_it, READY) {
    size_t n = fx.control.journal.n;

    begin_and_block();
    tails = tails_free(tails);
    pwrite_release();
    wait_answers(&fx.control, n + 1);
    ck_assert(is_filled(data_at(0), 0x5c, LEN));
    ck_assert_uint_eq(arena.used, 0);
}

/* A worker that does not come back keeps what it reads from; the end waits for it a bounded time, and for nothing else. */
TEST(test_p09_stuck_write_is_left_its_tail, .ignore_fds = true) {
    const uint8_t *block;

    ready();
    begin_and_block();
    block = (const uint8_t *)arena.memory;
    tails = tails_free(tails);
    fixture_deinit(&fx);
    ck_assert(arena.abandoned);
    arena_deinit(&arena);
    ck_assert(is_filled(block, 0x5c, LEN));
}

HARNESS_SUITE("tail", HARNESS_QUICK)
