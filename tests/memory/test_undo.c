/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tables and long writes that fail in the middle: undone, and where that fails too, told extent by extent. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "memory/table.h"

static struct fixture fx;
static struct table table;
static unsigned calls;      /* of pwrite(2) */
static unsigned fail_first; /* the first call that fails, counted from 1 */
static unsigned fail_last;  /* the last one */
static size_t fail_after;   /* octets that the first failing call writes before */
static void (*before_first)(void);
static void (*at_failure)(void);

static ssize_t failing_pwrite(int fd, const void *buffer, size_t len, off_t offset) {
    calls++;
    if (calls == 1 && before_first)
        before_first();
    if (calls < fail_first || calls > fail_last)
        return pwrite_really(fd, buffer, len, offset);
    if (calls == fail_first && fail_after)
        return pwrite_really(fd, buffer, fail_after < len ? fail_after : len, offset);
    if (at_failure)
        at_failure();
    errno = ENOSPC;
    return -1;
}

/*
 * Every octet of the data is another than its neighbour, so that one that comes back to the wrong place is seen. One page is
 * not there: of memory that is all there no copy need be kept (backing.h).
 */
#define MISSING 1
static uint8_t original(uint64_t at) {
    return at / PAGE == MISSING ? 0 : (uint8_t)(at * 7 + at / 251);
}

static void ready_for(enum vm_kind kind, unsigned first, unsigned last, size_t after) {
    fixture_init(&fx, kind);
    fixture_ready(&fx);
    for (uint64_t i = 0; i < 2 * MIB; i++)
        fx.vm.ram[DATA_GPA + i] = original(i);
    vm_forget(&fx.vm, DATA_GPA + MISSING * PAGE, PAGE);
    table_reset(&table);
    calls = 0;
    fail_first = first;
    fail_last = last;
    fail_after = after;
    before_first = at_failure = NULL;
    pwrite_hook = failing_pwrite;
}

static void finish(void) {
    pwrite_hook = NULL;
    table_reset(&table);
    fixture_deinit(&fx);
}

static uint64_t first_touched(uint64_t end) {
    for (uint64_t i = 0; i < end; i++)
        if (fx.vm.ram[DATA_GPA + i] != original(i))
            return i;
    return end;
}

static void assert_untouched(void) {
    ck_assert_uint_eq(first_touched(2 * MIB), 2 * MIB);
}

static const enum vm_kind kinds[] = {VM_SEALED, VM_UNSEALED, VM_PRIVATE};

/* Extents that overlap each other; each of their pieces fails once, before its first octet or after some. */
TEST(test_p04_overlapping_extents_are_undone, .iterations = 36) {
    const enum vm_kind kind = kinds[_i % 3];
    const unsigned failing = 1 + (unsigned)_i / 3 % 3;
    const size_t after = _i / 9 % 2 ? 33 : 0;
    const uint32_t len = _i / 18 ? 3000 : 600; /* on a worker, or where it is received */
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    /* After a short write the writer tries again, and that fails. */
    ready_for(kind, failing, after ? failing + 1 : failing, after);
    table_add(&table, DATA_GVA + 1000, len);
    table_add(&table, DATA_GVA + 1000 + len / 2, len);
    table_add(&table, DATA_GVA + 1000 - len / 4, len);
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(ack->value, ENOSPC);
    results = table_results(&fx, &table, ack);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(results[i].written, 0);
        if (i + 1 == failing)
            ck_assert_uint_eq(results[i].error, VMIBUS_ERROR_IO);
        else
            ck_assert_uint_eq(results[i].reason, VMIBUS_REASON_OTHER_EXTENT);
    }
    assert_untouched();
    finish();
}

/* So long that it is copied while it moves; fails at the first piece, in the middle, at the last one. */
TEST(test_p04_long_write_is_undone, .iterations = 12) {
    static uint8_t source[MIB - PAGE];
    const enum vm_kind kind = kinds[_i % 2]; /* private memory of this process goes by another call */
    const unsigned at[] = {1, 2, 9, 16};
    const unsigned failing = at[_i / 2 % 4];
    struct vmibus_ack *ack;

    memset(source, 0x66, sizeof(source));
    ready_for(kind, failing, failing + (_i >= 8), _i >= 8 ? 3000 : 0);
    ack = do_write(&fx, DATA_GVA + 11, source, sizeof(source), 0);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(ack->value, ENOSPC);
    assert_untouched();
    pwrite_hook = NULL;
    assert_ok(do_write(&fx, DATA_GVA + 11, source, sizeof(source), 0));
    ck_assert(is_filled(fx.vm.ram + DATA_GPA + 11, 0x66, sizeof(source)));
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA + 10], original(10));
    finish();
}

/* A long table whose extents overlap, copied ahead: what was first there comes back. */
TEST(test_p04_long_overlapping_table_is_undone, .iterations = 8) {
    ready_for(VM_SEALED, 3 + (unsigned)_i * 2, 3 + (unsigned)_i * 2, 0);
    for (unsigned i = 0; i < 24; i++)
        table_add(&table, DATA_GVA + i % 5 * 30000, 40000);
    assert_refused(table_submit(&fx, &table), VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    assert_untouched();
    finish();
}

/* Nothing can be put back: each extent says how much of it stays. */
TEST(test_p04_failed_undo_is_told_by_extent, .iterations = 2) {
    const uint32_t len = _i ? 3000 : 300;
    const struct vmibus_extent_result *results;
    struct vmibus_audit_record record;
    struct vmibus_ack *ack;

    ready_for(VM_SEALED, 3, 1000, 0);
    for (unsigned i = 0; i < 4; i++)
        table_add(&table, DATA_GVA + i * 2 * PAGE, len);
    ack = table_submit(&fx, &table);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(ack->count, 2 * len);
    ck_assert_uint_eq(ack->value, ENOSPC);
    results = table_results(&fx, &table, ack);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(results[i].written, len);
        ck_assert_uint_eq(results[i].error, VMIBUS_ERROR_IO);
        ck_assert_uint_eq(results[i].reason, VMIBUS_REASON_PARTIAL);
        ck_assert(is_filled(fx.vm.ram + DATA_GPA + i * 2 * PAGE, (uint8_t)(0x10 + i), len));
    }
    ck_assert_uint_eq(results[2].written, 0);
    ck_assert_uint_eq(results[2].error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(results[2].reason, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(results[3].error, 0);
    ck_assert_uint_eq(results[3].reason, VMIBUS_REASON_OTHER_EXTENT);
    pwrite_hook = NULL;
    ck_assert_int_eq(vmibus_audit_read(fx.audit.header, 1, &record), 1);
    ck_assert_uint_eq(record.reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(record.count, 2 * len);
    finish();
}

/* The undo fails for one extent and goes on with those before it. */
TEST(test_p04_undo_goes_on_after_a_failure) {
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    ready_for(VM_SEALED, 3, 4, 0); /* the third extent, and putting back the second */
    for (unsigned i = 0; i < 3; i++)
        table_add(&table, DATA_GVA + i * 2 * PAGE, 100);
    ack = table_submit(&fx, &table);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(ack->count, 100);
    results = table_results(&fx, &table, ack);
    ck_assert_uint_eq(results[0].written, 0);
    ck_assert_uint_eq(results[1].written, 100);
    ck_assert_uint_eq(first_touched(2 * PAGE), 2 * PAGE);
    finish();
}

/* --- without any injection: real memory that goes ------------------------------------------------ */

static void unmap_tenth_page(void) {
    munmap(fx.vm.ram + DATA_GPA + 10 * PAGE, PAGE);
}

/* A page of the process is unmapped after the first piece: the pages before it are as they were. */
TEST(test_p04_unmapped_in_the_middle, .iterations = 2) {
    static uint8_t source[300 * 1024];
    struct vmibus_ack *ack;

    ready_for(VM_PRIVATE, 1, 0, 0);
    before_first = unmap_tenth_page;
    if (_i == 0) {
        for (unsigned i = 0; i < 12; i++)
            table_add(&table, DATA_GVA + i * PAGE + 8, 200);
        ack = table_submit(&fx, &table);
        ck_assert_uint_eq(table_results(&fx, &table, ack)[10].error, ack->error);
    } else {
        memset(source, 0x66, sizeof(source));
        unmap_tenth_page();
        ack = do_write(&fx, DATA_GVA + 8, source, sizeof(source), 0);
    }
    ck_assert_uint_ne(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack->count, 0);
    ck_assert_uint_eq(first_touched(10 * PAGE), 10 * PAGE);
    finish();
}

static off_t cut_to;

static void cut_file(void) {
    ck_assert_int_eq(ftruncate(fx.vm.fd, cut_to), 0);
}

/* QEMU cuts its RAM file off while a write is under way: it does not grow again. */
TEST(test_p04_file_cut_off_in_the_middle) {
    struct vmibus_ack *ack;
    struct stat st;

    ready_for(VM_UNSEALED, 1, 0, 0);
    cut_to = (off_t)(DATA_GPA + 8 * PAGE);
    before_first = cut_file;
    for (unsigned i = 0; i < 12; i++)
        table_add(&table, DATA_GVA + i * PAGE + 8, 200);
    ack = table_submit(&fx, &table);
    assert_refused(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_BACKING_CHANGED);
    ck_assert_uint_eq(table_results(&fx, &table, ack)[1].reason, VMIBUS_REASON_BACKING_CHANGED);
    pwrite_hook = NULL;
    for (uint64_t i = 0; i < 8 * PAGE; i++)
        ck_assert_uint_eq(fx.vm.ram[DATA_GPA + i], original(i));
    ck_assert_int_eq(fstat(fx.vm.fd, &st), 0);
    ck_assert_int_eq(st.st_size, cut_to);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED)->memctx_invalidated.reason,
                      VMIBUS_REASON_BACKING_CHANGED);
    finish();
}

/* What was there went with the end of the file: nothing is put back behind it. */
TEST(test_p04_file_cut_off_before_the_undo) {
    struct vmibus_ack *ack;
    struct stat st;

    ready_for(VM_UNSEALED, 6, 6, 0);
    cut_to = (off_t)(DATA_GPA + 3 * PAGE);
    at_failure = cut_file;
    for (unsigned i = 0; i < 8; i++)
        table_add(&table, DATA_GVA + i * PAGE + 8, 200);
    ack = table_submit(&fx, &table);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(ack->count, 2 * 200);
    ck_assert_int_eq(fstat(fx.vm.fd, &st), 0);
    ck_assert_int_eq(st.st_size, cut_to);
    ck_assert_uint_eq(first_touched(3 * PAGE), 3 * PAGE);
    finish();
}

HARNESS_SUITE("memory: undone writes", HARNESS_QUICK)
