/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes that fail in the middle: undone where that is possible, told as what they are where not. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"

static struct fixture fx;
static unsigned calls;      /* of pwrite(2) */
static unsigned fail_first; /* the first call that fails, counted from 1 */
static unsigned fail_last;  /* the last one */
static size_t fail_after;   /* octets that the first failing call writes before */

static ssize_t failing_pwrite(int fd, const void *buffer, size_t len, off_t offset) {
    calls++;
    if (calls < fail_first || calls > fail_last)
        return pwrite_really(fd, buffer, len, offset);
    if (calls == fail_first && fail_after)
        return pwrite_really(fd, buffer, fail_after < len ? fail_after : len, offset);
    errno = ENOSPC;
    return -1;
}

static void ready_for(enum vm_kind kind, unsigned first, unsigned last, size_t after) {
    fixture_init(&fx, kind);
    fixture_ready(&fx);
    memset(fx.vm.ram + DATA_GPA, 0xd0, 2 * MIB);
    calls = 0;
    fail_first = first;
    fail_last = last;
    fail_after = after;
    pwrite_hook = failing_pwrite;
}

static void teardown(void) {
    pwrite_hook = NULL;
    fixture_deinit(&fx);
}

static void assert_untouched(void) {
    ck_assert(is_filled(fx.vm.ram + DATA_GPA, 0xd0, 2 * MIB));
}

static const enum vm_kind kinds[] = {VM_SEALED, VM_UNSEALED, VM_PRIVATE};

/* Two pieces, the second fails: small, then on a worker. */
TEST(test_p04_second_piece_fails, .iterations = 4) {
    static uint8_t source[2 * PAGE];
    size_t len = _i < 3 ? 64 : 2 * PAGE;
    struct vmibus_ack *ack;

    memset(source, 0x66, sizeof(source));
    ready_for(_i < 3 ? kinds[_i] : VM_UNSEALED, 2, 2, 0);
    ack = do_write(&fx, SCATTER_GVA + PAGE - 10, source, len, 0);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(ack->value, ENOSPC);
    ck_assert_uint_eq(calls, 3); /* one, one that failed, one that put back */
    assert_untouched();
    teardown();
}

/* One piece over several pages, which ends in the middle. */
TEST(test_p04_one_piece_fails_in_the_middle, .iterations = 2) {
    static uint8_t source[16 * PAGE];
    struct vmibus_ack *ack;

    memset(source, 0x66, sizeof(source));
    ready_for(_i ? VM_UNSEALED : VM_SEALED, 1, 2, 3000);
    ack = do_write(&fx, DATA_GVA + 5, source, _i ? sizeof(source) : 4096, 0);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    assert_untouched();
    teardown();
}

TEST(test_p04_short_write_goes_on) {
    static uint8_t source[16 * PAGE];

    memset(source, 0x66, sizeof(source));
    ready_for(VM_SEALED, 1, 1, 3000);
    assert_ok(do_write(&fx, DATA_GVA + 5, source, sizeof(source), 0));
    ck_assert_mem_eq(fx.vm.ram + DATA_GPA + 5, source, sizeof(source));
    teardown();
}

TEST(test_p04_first_octet_fails) {
    uint8_t source[8] = {1};
    struct vmibus_ack *ack;

    ready_for(VM_SEALED, 1, 1, 0);
    ack = do_write(&fx, DATA_GVA, source, 8, 0);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(ack->value, ENOSPC);
    assert_untouched();
    teardown();
}

/* What cannot be put back is told, octet by octet. */
TEST(test_p04_failed_undo_is_told, .iterations = 2) {
    static uint8_t source[2 * PAGE];
    struct vmibus_ack *ack;
    size_t len = _i ? 2 * PAGE : 64;

    memset(source, 0x66, sizeof(source));
    ready_for(_i ? VM_UNSEALED : VM_SEALED, 2, 1000, 0);
    ack = do_write(&fx, SCATTER_GVA + PAGE - 10, source, len, 0);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(ack->count, 10);
    ck_assert_uint_eq(ack->value, ENOSPC);
    ck_assert_mem_eq(fx.vm.ram + DATA_GPA + 2 * MIB - 10, source, 10);
    pwrite_hook = NULL;
    ck_assert_uint_eq(fx.audit.header->written, 1);
    struct vmibus_audit_record record;
    ck_assert_int_eq(vmibus_audit_read(fx.audit.header, 1, &record), 1);
    ck_assert_uint_eq(record.reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(record.count, 10);
    teardown();
}

HARNESS_SUITE("memory: failing writes", HARNESS_QUICK)
