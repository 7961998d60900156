/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CMD_MEMWRITE with a table of extents: executed as one write, answered extent by extent. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "memory/table.h"
#include "util/clock.h"

static struct fixture fx;
static struct table table;

static void ready(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
    table_reset(&table);
}

static void teardown(void) {
    table_reset(&table);
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown

static uint8_t *data_at(uint64_t skip) {
    return fx.vm.ram + DATA_GPA + skip;
}

static void assert_result(const struct vmibus_extent_result *result, enum vmibus_error error,
                          enum vmibus_reason reason, uint64_t value) {
    ck_assert_uint_eq(result->error, error);
    ck_assert_uint_eq(result->reason, reason);
    ck_assert_uint_eq(result->value, value);
    ck_assert_uint_eq(result->written, 0);
}

/* Small, on a worker; at addresses that lie apart, backwards, across pages; virtual and physical. */
TEST(test_p04_table_is_one_write, READY, .iterations = 4) {
    const uint32_t len = _i % 2 ? 3000 : 100;
    const uint64_t skips[] = {PAGE - 50, 40 * PAGE + 7, 20 * PAGE, 9};
    struct authority_counters counters;
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    table.flags = _i < 2 ? 0 : VMIBUS_MEMWRITE_PHYSICAL;
    for (unsigned i = 0; i < 4; i++)
        table_add(&table, (_i < 2 ? DATA_GVA : DATA_GPA) + skips[i], len);
    ack = table_submit(&fx, &table);
    assert_ok(ack);
    ck_assert_uint_eq(ack->count, 4 * len);
    results = table_results(&fx, &table, ack);
    ck_assert_ptr_nonnull(results);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(results[i].gpa, DATA_GPA + skips[i]);
        ck_assert_uint_eq(results[i].written, len);
        ck_assert_uint_eq(results[i].error, 0);
        ck_assert_uint_eq(results[i].reason, 0);
    }
    for (unsigned i = 0; i < 3; i++)
        ck_assert(is_filled(data_at(skips[i]), (uint8_t)(0x10 + i), i ? len : 1));
    ck_assert(is_filled(data_at(9), 0x13, len));
    authority_get_counters(fx.authority, &counters);
    ck_assert_uint_eq(counters.writes, 1);
    ck_assert_uint_eq(counters.bytes_written, 4 * len);
}

TEST(test_table_of_one, READY) {
    struct vmibus_ack *ack;

    table_add(&table, DATA_GVA + 5, 1);
    ack = table_submit(&fx, &table);
    assert_ok(ack);
    ck_assert_uint_eq(table_results(&fx, &table, ack)->gpa, DATA_GPA + 5);
    ck_assert_uint_eq(*data_at(5), 0x10);
}

/* As many as there may be, each in another page, and the pages backwards. */
TEST(test_table_of_1024, READY) {
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    for (uint32_t i = 0; i < VMIBUS_EXTENTS_BOUND; i++)
        table_add(&table, DATA_GVA + (255 - i % 256) * PAGE + 16 + i / 256 * 100, 1 + i % 90);
    ack = table_submit(&fx, &table);
    assert_ok(ack);
    ck_assert_uint_eq(ack->count, table.len);
    results = table_results(&fx, &table, ack);
    for (uint32_t i = 0; i < VMIBUS_EXTENTS_BOUND; i++) {
        ck_assert_uint_eq(results[i].written, 1 + i % 90);
        ck_assert_uint_eq(results[i].gpa, table.extents[i].gva - DATA_GVA + DATA_GPA);
        ck_assert(is_filled(fx.vm.ram + results[i].gpa, (uint8_t)(0x10 + i), 1 + i % 90));
    }
}

/* The later one wins where they overlap. */
TEST(test_table_extents_overlap, READY, .iterations = 2) {
    uint32_t len = _i ? 40000 : 200;
    struct vmibus_ack *ack;

    table_add(&table, DATA_GVA + 100, len);
    table_add(&table, DATA_GVA + 100 + len / 2, len);
    table_add(&table, DATA_GVA + 100 + len / 4, len / 2);
    ack = table_submit(&fx, &table);
    assert_ok(ack);
    ck_assert_uint_eq(ack->count, table.len);
    ck_assert(is_filled(data_at(100), 0x10, len / 4));
    ck_assert(is_filled(data_at(100 + len / 4), 0x12, len / 2));
    ck_assert(is_filled(data_at(100 + len / 4 * 3), 0x11, len / 4 * 3));
    ck_assert_uint_eq(*data_at(100 + len / 2 * 3), 0);
}

/* --- refusals: each extent says what is wrong with it ------------------------------------------- */

TEST(test_p04_every_wrong_extent_is_told, READY, .iterations = 2) {
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    table_add(&table, DATA_GVA, 8);
    table_add(&table, EMPTY_GVA + 3, 8);
    table_add(&table, READ_ONLY_GVA, 8);
    table_add(&table, DATA_GVA + MIB - 4, 8); /* its second page is not there */
    table_add(&table, RESERVED_GVA, 8);
    table_add(&table, OUTSIDE_GVA + 8, 8);
    table_add(&table, ROM_GVA, 8);
    table_add(&table, UINT64_C(0x0000800000000000), 8);
    if (_i) /* more than what is executed where it is received */
        for (unsigned i = 0; i < 8; i++)
            table_add(&table, DATA_GVA + 4096, 8);
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
    ck_assert_uint_eq(ack->value, EMPTY_GVA + 3);
    ck_assert_uint_eq(ack->level, 2);
    results = table_results(&fx, &table, ack);
    assert_result(&results[0], VMIBUS_ERROR_OK, VMIBUS_REASON_OTHER_EXTENT, 0);
    ck_assert_uint_eq(results[0].gpa, DATA_GPA);
    assert_result(&results[1], VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, EMPTY_GVA + 3);
    ck_assert_uint_eq(results[1].level, 2);
    ck_assert_uint_eq(results[1].gpa, 0);
    assert_result(&results[2], VMIBUS_ERROR_READ_ONLY_PAGE, VMIBUS_REASON_NONE, READ_ONLY_GVA);
    assert_result(&results[3], VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, DATA_GVA + MIB);
    ck_assert_uint_eq(results[3].gpa, DATA_GPA + MIB - 4);
    assert_result(&results[4], VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_RESERVED_BITS, RESERVED_GVA);
    assert_result(&results[5], VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM, OUTSIDE_GVA + 8);
    assert_result(&results[6], VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_ROM, ROM_GVA);
    assert_result(&results[7], VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS,
                  UINT64_C(0x0000800000000000));
    ck_assert(is_filled(data_at(0), 0, 2 * PAGE));
}

TEST(test_p04_table_expects, READY, .iterations = 2) {
    const struct vmibus_extent_result *results;
    uint32_t len = _i ? 9000 : 50;
    struct vmibus_ack *ack;

    memset(data_at(0), 0xee, MIB);
    table.flags = VMIBUS_MEMWRITE_EXPECT;
    table.expect = 0xee;
    table_add(&table, DATA_GVA + 10, len);
    table_add(&table, DATA_GVA + 5 * PAGE, len);
    table_add(&table, DATA_GVA + 9 * PAGE, len);
    data_at(5 * PAGE)[len - 1] = 1;
    data_at(9 * PAGE)[7] = 1;
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
    ck_assert_uint_eq(ack->value, len - 1);
    results = table_results(&fx, &table, ack);
    assert_result(&results[0], VMIBUS_ERROR_OK, VMIBUS_REASON_OTHER_EXTENT, 0);
    assert_result(&results[1], VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED, len - 1);
    assert_result(&results[2], VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED, 7);
    ck_assert(is_filled(data_at(10), 0xee, len));
    data_at(5 * PAGE)[len - 1] = data_at(9 * PAGE)[7] = 0xee;
    assert_ok(table_submit(&fx, &table));
    ck_assert(is_filled(data_at(9 * PAGE), 0x12, len));
    ck_assert_uint_eq(*data_at(9), 0xee);
}

TEST(test_p04_table_expects_gpa, READY, .iterations = 2) {
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    table.flags = VMIBUS_MEMWRITE_EXPECT_GPA | (_i ? VMIBUS_MEMWRITE_PHYSICAL : 0u);
    table_add(&table, (_i ? DATA_GPA : DATA_GVA) + 10, 30);
    table_add(&table, _i ? DATA_GPA + 2 * MIB - 4 * PAGE : SCATTER_GVA + 3 * PAGE, 30);
    table.extents[0].gpa = DATA_GPA + 10;
    table.extents[1].gpa = DATA_GPA + 2 * MIB - 3 * PAGE; /* is the page behind */
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_MOVED);
    ck_assert_uint_eq(ack->value, DATA_GPA + 2 * MIB - 4 * PAGE);
    results = table_results(&fx, &table, ack);
    assert_result(&results[0], VMIBUS_ERROR_OK, VMIBUS_REASON_OTHER_EXTENT, 0);
    assert_result(&results[1], VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_MOVED,
                  DATA_GPA + 2 * MIB - 4 * PAGE);
    ck_assert(is_filled(data_at(0), 0, PAGE));
    table.extents[1].gpa = DATA_GPA + 2 * MIB - 4 * PAGE;
    assert_ok(table_submit(&fx, &table));
    ck_assert(is_filled(data_at(10), 0x10, 30));
}

TEST(test_p04_dry_run_of_a_table, READY) {
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    table.flags = VMIBUS_MEMWRITE_DRY_RUN | VMIBUS_MEMWRITE_EXPECT | VMIBUS_MEMWRITE_EXPECT_GPA;
    table_add(&table, DATA_GVA, 300);
    table_add(&table, DATA_GVA + PAGE - 1, 9000);
    table.extents[0].gpa = DATA_GPA;
    table.extents[1].gpa = DATA_GPA + PAGE - 1;
    ack = table_submit(&fx, &table);
    assert_ok(ack);
    ck_assert_uint_eq(ack->count, 0);
    results = table_results(&fx, &table, ack);
    ck_assert_uint_eq(results[1].gpa, DATA_GPA + PAGE - 1);
    ck_assert_uint_eq(results[1].written, 0);
    ck_assert_uint_eq(results[1].error, 0);
    ck_assert(is_filled(data_at(0), 0, 4 * PAGE));
    *data_at(200) = 1;
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
    ck_assert_uint_eq(ack->value, 200);
    table.extents[1].gpa++;
    assert_refused(table_submit(&fx, &table), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_MOVED);
}

TEST(test_table_into_read_only_pages, READY) {
    struct vmibus_ack *ack;

    table_add(&table, DATA_GVA, 8);
    table_add(&table, READ_ONLY_GVA, 8);
    assert_refused(table_submit(&fx, &table), VMIBUS_ERROR_READ_ONLY_PAGE, VMIBUS_REASON_NONE);
    table.flags = VMIBUS_MEMWRITE_READ_ONLY_PAGE;
    assert_ok(table_submit(&fx, &table));
    ck_assert(is_filled(data_at(MIB), 0x11, 8));
    fixture_grant(&fx, geteuid(), VMIBUS_CAP_MEM_WRITE);
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    ck_assert_uint_eq(ack->value, VMIBUS_CAP_WRITE_READ_ONLY);
    ck_assert_ptr_null(table_results(&fx, &table, ack)); /* nothing was looked at */
}

/* --- hostile tables ----------------------------------------------------------------------------- */

static void expect_malformed(struct vmibus_frame *frame, enum vmibus_reason reason) {
    struct vmibus_ack *ack = submit(&fx.control, frame, table.tail + 1, NULL);

    assert_refused(ack, VMIBUS_ERROR_VALIDATION, reason);
    ck_assert_ptr_null(table_results(&fx, &table, ack));
    ck_assert(is_filled(data_at(0), 0, PAGE));
}

static struct vmibus_frame frame_with(uint32_t extents) {
    struct vmibus_frame frame = table_frame(&fx, &table);
    struct vmibus_memwrite_source source = {.extents = extents};

    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    return frame;
}

TEST(test_p09_table_counts, READY) {
    struct vmibus_frame frame;
    static const uint32_t counts[] = {0, 1, 3, VMIBUS_EXTENTS_BOUND, VMIBUS_EXTENTS_BOUND + 1, UINT32_MAX / 24 + 2,
                                      UINT32_MAX};

    table_add(&table, DATA_GVA, 24);
    table_add(&table, DATA_GVA, 24);
    for (unsigned i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        frame = frame_with(counts[i]);
        expect_malformed(&frame, VMIBUS_REASON_BAD_LENGTH);
    }
    frame = frame_with(2);
    assert_ok(submit(&fx.control, &frame, table.tail + 1, NULL));
}

TEST(test_p09_table_lengths, READY) {
    struct vmibus_frame frame;

    table_add(&table, DATA_GVA, 8);
    table_add(&table, DATA_GVA + 8, 8);
    frame = table_frame(&fx, &table);
    frame.header.tail_length++; /* an octet too many */
    expect_malformed(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame.header.tail_length -= 2;
    expect_malformed(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame = table_frame(&fx, &table);
    frame.cmd_memwrite.len--;
    frame.header.tail_length--;
    expect_malformed(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame = table_frame(&fx, &table);
    frame.cmd_memwrite.len = 0;
    expect_malformed(&frame, VMIBUS_REASON_BAD_LENGTH);
    table.extents[0].len = 0;
    table.extents[1].len = 16;
    frame = table_frame(&fx, &table);
    expect_malformed(&frame, VMIBUS_REASON_BAD_LENGTH);
    /* Lengths whose sum in 32 bits is what the frame says. */
    table.extents[0].gva = 0;
    table.extents[0].len = UINT32_MAX - 7;
    table.extents[1].len = 24;
    memcpy(table.tail + 1, table.extents, 2 * sizeof(*table.extents));
    expect_malformed(&frame, VMIBUS_REASON_BAD_LENGTH);
}

TEST(test_p09_table_addresses_wrap, READY) {
    struct vmibus_ack *ack;

    table_add(&table, DATA_GVA, 8);
    table_add(&table, UINT64_MAX - 6, 8);
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS);
    ck_assert_uint_eq(ack->value, UINT64_MAX - 6);
    ck_assert_uint_eq(*data_at(0), 0);
    table.extents[1].gva = UINT64_MAX - 7; /* ends with the last address: is looked at */
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
    ck_assert_ptr_nonnull(table_results(&fx, &table, ack));
}

TEST(test_p09_table_flags_and_fields, READY) {
    struct vmibus_frame frame;
    struct vmibus_memwrite_source source;

    table_add(&table, DATA_GVA, 8);
    frame = table_frame(&fx, &table);
    frame.cmd_memwrite.flags &= ~VMIBUS_MEMWRITE_SRC_PAYLOAD;
    expect_malformed(&frame, VMIBUS_REASON_BAD_FLAGS);
    frame = write_frame(&fx, DATA_GVA, "12345678", 8, VMIBUS_MEMWRITE_EXPECT_GPA);
    expect_malformed(&frame, VMIBUS_REASON_BAD_FLAGS);
    frame = table_frame(&fx, &table);
    frame.cmd_memwrite.gva = DATA_GVA;
    expect_malformed(&frame, VMIBUS_REASON_BAD_FIELD);
    frame = table_frame(&fx, &table);
    memcpy(&source, frame.cmd_memwrite.data, sizeof(source));
    source.buffer = 1;
    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    expect_malformed(&frame, VMIBUS_REASON_BAD_FIELD);
    source.buffer = 0;
    source.offset = 1;
    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    expect_malformed(&frame, VMIBUS_REASON_BAD_FIELD);
    /* Reserved ones do not matter: table_frame() fills them. */
    assert_ok(table_submit(&fx, &table));
}

/* --- between receipt and commit ------------------------------------------------------------------ */

/* Fills the worker with a long write that waits, and queues a table behind it. Returns which answer is the table's. */
static size_t queue_table(void) {
    static uint8_t source[64 * 1024];
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA + 32 * PAGE, source, sizeof(source), 0);
    size_t n = fx.control.journal.n;

    pwrite_block();
    submit_only(&fx.control, &frame, source, NULL);
    table_add(&table, DATA_GVA, 3000);
    table_add(&table, DATA_GVA + 4 * PAGE, 3000);
    frame = table_frame(&fx, &table);
    frame.header.deadline_us = 60000000;
    submit_only(&fx.control, &frame, table.tail + 1, NULL);
    ck_assert_uint_eq(fx.control.journal.n, n);
    return n + 1;
}

static void expect_refusal_of(size_t answer, enum vmibus_error error, enum vmibus_reason reason) {
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    pwrite_release();
    wait_answers(&fx.control, answer + 1);
    pwrite_hook = NULL;
    ack = &fx.control.journal.frames[answer].ack;
    assert_refused(ack, error, reason);
    results = table_results(&fx, &table, ack);
    ck_assert_ptr_nonnull(results);
    for (unsigned i = 0; i < 2; i++)
        assert_result(&results[i], error, reason, 0);
    ck_assert(is_filled(data_at(0), 0, 8 * PAGE));
}

TEST(test_p05_revoked_before_the_table_commits, READY) {
    size_t answer = queue_table();

    link_revoke(&fx, fx.token);
    expect_refusal_of(answer, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED);
}

TEST(test_p06_epoch_ends_before_the_table_commits, READY) {
    size_t answer = queue_table();
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_END);

    frame.mem_end.epoch = fx.epoch;
    frame.mem_end.reason = VMIBUS_REASON_RESET;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    expect_refusal_of(answer, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_RESET);
}

TEST(test_p06_busy_before_the_table_commits, READY) {
    size_t answer = queue_table();
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_BUSY);

    frame.mem_busy.busy = 1;
    frame.mem_busy.reason = VMIBUS_REASON_MIGRATION;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    expect_refusal_of(answer, VMIBUS_ERROR_BUSY, VMIBUS_REASON_MIGRATION);
}

TEST(test_p06_deadline_before_the_table_commits, READY) {
    static uint8_t source[64 * 1024];
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA + 32 * PAGE, source, sizeof(source), 0);
    uint64_t end;

    pwrite_block();
    submit_only(&fx.control, &frame, source, NULL);
    table_add(&table, DATA_GVA, 3000);
    table_add(&table, DATA_GVA + 4 * PAGE, 3000);
    frame = table_frame(&fx, &table);
    frame.header.deadline_us = 1000000;
    submit_only(&fx.control, &frame, table.tail + 1, NULL);
    if (fx.control.journal.n)
        test_skip("the machine took a second to get here");
    end = frame.header.timestamp + 1000 * NS_PER_MS;
    while (clock_now() <= end)
        ck_assert_int_ge(loop_dispatch(fx.loop, 100), 0);
    expect_refusal_of(1, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE);
}

/* The canary changes while the table waits. */
TEST(test_p06_guest_changes_before_the_table_commits, READY) {
    size_t answer = queue_table();

    fx.vm.ram[NOTE_GPA] ^= 1;
    expect_refusal_of(answer, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_CANARY);
}

/* A page goes while the table waits. */
TEST(test_p04_page_goes_before_the_table_commits, READY) {
    const struct vmibus_extent_result *results;
    size_t answer = queue_table();
    struct vmibus_ack *ack;

    vm_map(&fx.vm, DATA_GVA + 4 * PAGE, 0, 0, 1);
    pwrite_release();
    wait_answers(&fx.control, answer + 1);
    pwrite_hook = NULL;
    ack = &fx.control.journal.frames[answer].ack;
    assert_refused(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
    results = table_results(&fx, &table, ack);
    assert_result(&results[0], VMIBUS_ERROR_OK, VMIBUS_REASON_OTHER_EXTENT, 0);
    assert_result(&results[1], VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, DATA_GVA + 4 * PAGE);
    ck_assert(is_filled(data_at(0), 0, 8 * PAGE));
}

TEST(test_p08_table_is_charged, READY) {
    struct vmibus_ack *ack;

    table_add(&table, DATA_GVA, 65536);
    table_add(&table, DATA_GVA + 65536, 65536);
    fx.control.account->limit[RESOURCE_BYTES] = 131072;
    ack = table_submit(&fx, &table);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
    fx.control.account->limit[RESOURCE_BYTES] = MIB;
    assert_ok(table_submit(&fx, &table));
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
}

HARNESS_SUITE("memory: tables", HARNESS_QUICK)
