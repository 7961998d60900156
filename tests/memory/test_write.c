/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CMD_MEMWRITE: every gate, every refusal, and what is in guest RAM afterwards. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "util/clock.h"

static struct fixture fx;

static void ready_sealed(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void teardown(void) {
    fixture_deinit(&fx);
}

#define READY .setup = ready_sealed, .teardown = teardown

static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static uint8_t *data_at(uint64_t skip) {
    return fx.vm.ram + DATA_GPA + skip;
}

TEST(test_write_small, READY) {
    struct vmibus_ack *ack = do_write(&fx, DATA_GVA + 16, eight, 8, 0);
    struct authority_counters counters;

    assert_ok(ack);
    ck_assert_uint_eq(ack->count, 8);
    ck_assert_uint_eq(ack->epoch, fx.epoch);
    ck_assert_uint_ge(ack->finished, ack->received);
    ck_assert_mem_eq(data_at(16), eight, 8);
    authority_get_counters(fx.authority, &counters);
    ck_assert_uint_eq(counters.writes, 1);
    ck_assert_uint_eq(counters.bytes_written, 8);
}

/* Every backing, both depths, across a page boundary, small and on a worker. */
TEST(test_write_every_backing, .iterations = 8) {
    static const enum vm_kind kinds[] = {VM_SEALED, VM_UNSEALED, VM_PRIVATE, VM_SHM};
    uint8_t source[64 * 1024];

    for (size_t i = 0; i < sizeof(source); i++)
        source[i] = (uint8_t)(i * 7 + i / 256);
    fixture_init_levels(&fx, kinds[_i % 4], _i < 4 ? 4 : 5);
    fixture_ready(&fx);
    assert_ok(do_write(&fx, DATA_GVA + PAGE - 3, eight, 8, 0));
    ck_assert_mem_eq(data_at(PAGE - 3), eight, 8);
    assert_ok(do_write(&fx, DATA_GVA + 8 * PAGE + 1, source, 4096, 0));
    ck_assert_mem_eq(data_at(8 * PAGE + 1), source, 4096);
    assert_ok(do_write(&fx, DATA_GVA + 16 * PAGE + 5, source, sizeof(source), 0));
    ck_assert_mem_eq(data_at(16 * PAGE + 5), source, sizeof(source));
    fixture_deinit(&fx);
}

TEST(test_write_by_process_mapping) {
    fixture_init(&fx, VM_UNSEALED);
    assert_ok(propose_layout(&fx, true));
    assert_ok(propose_root(&fx));
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    ck_assert_mem_eq(data_at(0), eight, 8);
    ck_assert(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.evidence &
              VMIBUS_EVIDENCE_LAYOUT_MAPS);
    fixture_deinit(&fx);
}

TEST(test_write_scattered_pages, READY) {
    uint8_t source[3 * PAGE];

    memset(source, 0x11, PAGE);
    memset(source + PAGE, 0x22, PAGE);
    memset(source + 2 * PAGE, 0x33, PAGE);
    assert_ok(do_write(&fx, SCATTER_GVA + 100, source, sizeof(source), 0));
    ck_assert_uint_eq(data_at(2 * MIB - PAGE)[100], 0x11);
    ck_assert_uint_eq(data_at(2 * MIB - 2 * PAGE)[100], 0x22);
    ck_assert_uint_eq(data_at(2 * MIB - 4 * PAGE)[99], 0x33);
    ck_assert_uint_eq(data_at(2 * MIB - 4 * PAGE)[100], 0);
}

TEST(test_write_large_page, READY) {
    assert_ok(do_write(&fx, LARGE_GVA + PAGE - 4, eight, 8, 0));
    ck_assert_mem_eq(fx.vm.ram + 4 * MIB + PAGE - 4, eight, 8);
}

TEST(test_write_explicit_cr3, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    frame.cmd_memwrite.cr3 = PGD_GPA | 0x7; /* a process context identifier does not matter */
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    frame.cmd_memwrite.cr3 = DATA_GPA + 4 * PAGE;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_TRANSLATION,
                   VMIBUS_REASON_NOT_PRESENT);
    frame.cmd_memwrite.cr3 = OUTSIDE_GPA;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_TRANSLATION,
                   VMIBUS_REASON_OUTSIDE_RAM);
}

TEST(test_write_physical, READY) {
    struct vmibus_frame frame;

    assert_ok(do_write(&fx, DATA_GPA + 3, eight, 8, VMIBUS_MEMWRITE_PHYSICAL));
    ck_assert_mem_eq(data_at(3), eight, 8);
    assert_refused(do_write(&fx, OUTSIDE_GPA, eight, 8, VMIBUS_MEMWRITE_PHYSICAL),
                   VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM);
    assert_refused(do_write(&fx, RAM_SIZE - 4, eight, 8, VMIBUS_MEMWRITE_PHYSICAL),
                   VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM);
    assert_refused(do_write(&fx, ROM_GPA, eight, 8, VMIBUS_MEMWRITE_PHYSICAL),
                   VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_ROM);
    ck_assert_uint_eq(fx.vm.ram[RAM_SIZE - 4], 0);
    frame = write_frame(&fx, DATA_GPA, eight, 8, VMIBUS_MEMWRITE_PHYSICAL);
    frame.cmd_memwrite.cr3 = PGD_GPA;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FIELD);
}

TEST(test_write_shapes, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);
    uint8_t source[64] = {};

    frame.cmd_memwrite.flags = 1u << 31;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FLAGS);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD | VMIBUS_MEMWRITE_SRC_BUFFER;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FLAGS);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_TABLE;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FLAGS);
    frame.cmd_memwrite.flags = 0;
    frame.cmd_memwrite.len = 0;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    frame.cmd_memwrite.len = VMIBUS_MEMWRITE_INLINE + 1;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_EXPECT;
    frame.cmd_memwrite.len = VMIBUS_MEMWRITE_INLINE / 2 + 1;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    frame = write_frame(&fx, DATA_GVA, source, sizeof(source), 0);
    frame.cmd_memwrite.len = 63;
    assert_refused(submit(&fx.control, &frame, source, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    frame.cmd_memwrite.len = UINT32_MAX;
    frame.cmd_memwrite.flags |= VMIBUS_MEMWRITE_EXPECT;
    frame.header.tail_length = UINT32_MAX - 1; /* what twice the length is in 32 bits */
    assert_refused(submit(&fx.control, &frame, source, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    frame = write_frame(&fx, DATA_GVA, eight, 8, 0);
    frame.header.fd_count = 1;
    assert_refused(submit(&fx.control, &frame, NULL, &fx.vm.fd), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FDS);
}

TEST(test_write_bad_addresses, READY) {
    assert_refused(do_write(&fx, UINT64_MAX - 3, eight, 8, 0), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_ADDRESS);
    assert_refused(do_write(&fx, UINT64_C(0x0000800000000000), eight, 8, 0),
                   VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS);
    assert_refused(do_write(&fx, UINT64_C(0x00007ffffffffffc), eight, 8, 0),
                   VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
    assert_refused(do_write(&fx, UINT64_MAX - 3, eight, 8, VMIBUS_MEMWRITE_PHYSICAL),
                   VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS);
}

TEST(test_write_translations, READY) {
    struct vmibus_ack *ack = do_write(&fx, EMPTY_GVA + 5, eight, 8, 0);

    assert_refused(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
    ck_assert_uint_eq(ack->value, EMPTY_GVA + 5);
    ck_assert_uint_eq(ack->level, 2);
    assert_refused(do_write(&fx, RESERVED_GVA, eight, 8, 0), VMIBUS_ERROR_TRANSLATION,
                   VMIBUS_REASON_RESERVED_BITS);
    assert_refused(do_write(&fx, OUTSIDE_GVA, eight, 8, 0), VMIBUS_ERROR_TRANSLATION,
                   VMIBUS_REASON_OUTSIDE_RAM);
    assert_refused(do_write(&fx, ROM_GVA, eight, 8, VMIBUS_MEMWRITE_READ_ONLY_PAGE),
                   VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_ROM);
    ck_assert_uint_eq(fx.vm.rom[0], 0);
}

TEST(test_write_read_only_page, READY) {
    assert_refused(do_write(&fx, READ_ONLY_GVA, eight, 8, 0), VMIBUS_ERROR_READ_ONLY_PAGE,
                   VMIBUS_REASON_NONE);
    ck_assert_uint_eq(data_at(MIB)[0], 0);
    assert_ok(do_write(&fx, READ_ONLY_GVA, eight, 8, VMIBUS_MEMWRITE_READ_ONLY_PAGE));
    ck_assert_mem_eq(data_at(MIB), eight, 8);
}

/* The second page of the two is at fault: the first must not have been written. */
TEST(test_p04_nothing_moves_before_all_pages_translate, READY) {
    uint8_t source[2 * PAGE];

    memset(source, 0x55, sizeof(source));
    vm_map(&fx.vm, DATA_GVA + PAGE, 0, 0, 1);
    assert_refused(do_write(&fx, DATA_GVA + PAGE - 4, eight, 8, 0), VMIBUS_ERROR_TRANSLATION,
                   VMIBUS_REASON_NOT_PRESENT);
    assert_refused(do_write(&fx, DATA_GVA + 1, source, sizeof(source), 0),
                   VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
    ck_assert(is_filled(data_at(0), 0, PAGE));
}

TEST(test_p04_dry_run_writes_nothing, READY) {
    struct vmibus_ack *ack = do_write(&fx, DATA_GVA, eight, 8, VMIBUS_MEMWRITE_DRY_RUN);

    assert_ok(ack);
    ck_assert_uint_eq(ack->count, 0);
    ck_assert_uint_eq(data_at(0)[0], 0);
    assert_refused(do_write(&fx, EMPTY_GVA, eight, 8, VMIBUS_MEMWRITE_DRY_RUN),
                   VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
}

TEST(test_p04_expect_compares_first, READY) {
    uint8_t both[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
    struct vmibus_ack *ack;

    assert_ok(do_write(&fx, DATA_GVA, both, 8, VMIBUS_MEMWRITE_EXPECT));
    ck_assert_mem_eq(data_at(0), eight, 8);
    memcpy(both, eight, 8);
    both[5] ^= 1;
    both[9] = 99;
    ack = do_write(&fx, DATA_GVA, both, 8, VMIBUS_MEMWRITE_EXPECT);
    assert_refused(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
    ck_assert_uint_eq(ack->value, 5);
    ck_assert_mem_eq(data_at(0), eight, 8);
}

TEST(test_p04_expect_on_a_worker, READY) {
    static uint8_t both[2 * 8192];

    memset(both + 8192, 0x77, 8192);
    assert_ok(do_write(&fx, SCATTER_GVA + 9, both, 8192, VMIBUS_MEMWRITE_EXPECT));
    ck_assert_uint_eq(data_at(2 * MIB - PAGE)[9], 0x77);
    assert_refused(do_write(&fx, SCATTER_GVA + 9, both, 8192, VMIBUS_MEMWRITE_EXPECT),
                   VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
}

TEST(test_write_needs_capabilities) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
    fixture_grant(&fx, geteuid() + 1, CAPABILITIES_ALL);
    assert_refused(do_write(&fx, DATA_GVA, eight, 8, 0), VMIBUS_ERROR_DENIED,
                   VMIBUS_REASON_NO_GRANT);
    fixture_grant(&fx, geteuid(), VMIBUS_CAP_OBSERVE);
    struct vmibus_ack *ack = do_write(&fx, DATA_GVA, eight, 8, 0);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    ck_assert_uint_eq(ack->value, VMIBUS_CAP_MEM_WRITE);
    fixture_grant(&fx, geteuid(), VMIBUS_CAP_MEM_WRITE);
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    ack = do_write(&fx, DATA_GPA, eight, 8, VMIBUS_MEMWRITE_PHYSICAL);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    ck_assert_uint_eq(ack->value, VMIBUS_CAP_WRITE_PHYSICAL);
    ack = do_write(&fx, READ_ONLY_GVA, eight, 8, VMIBUS_MEMWRITE_READ_ONLY_PAGE);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    ck_assert_uint_eq(ack->value, VMIBUS_CAP_WRITE_READ_ONLY);
    fixture_deinit(&fx);
}

TEST(test_write_deadline, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    frame.header.timestamp = clock_now() - 10 * NS_PER_MS;
    frame.header.deadline_us = 5000;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_EXPIRED,
                   VMIBUS_REASON_NONE);
    frame.header.deadline_us = 60000000;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
}

TEST(test_write_while_busy, READY) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_BUSY);

    frame.mem_busy.busy = 1;
    frame.mem_busy.reason = VMIBUS_REASON_SNAPSHOT;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    assert_refused(do_write(&fx, DATA_GVA, eight, 8, 0), VMIBUS_ERROR_BUSY,
                   VMIBUS_REASON_SNAPSHOT);
    frame.mem_busy.busy = 0;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
}

TEST(test_write_without_root) {
    fixture_init(&fx, VM_SEALED);
    assert_ok(propose_layout(&fx, false));
    link_issue(&fx, &fx.control, 1, 0);
    assert_refused(do_write(&fx, DATA_GVA, eight, 8, 0), VMIBUS_ERROR_TRANSLATION,
                   VMIBUS_REASON_NO_ROOT);
    assert_ok(do_write(&fx, DATA_GPA, eight, 8, VMIBUS_MEMWRITE_PHYSICAL));
    fixture_deinit(&fx);
}

TEST(test_write_gone, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    frame.header.slot = 2;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    frame.header.slot = 0;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    frame.header.slot = UINT32_MAX;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    frame.header.slot = 1;
    frame.header.generation++;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    /* Who may do nothing anywhere does not learn even that. */
    fixture_grant(&fx, geteuid() + 1, CAPABILITIES_ALL);
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_DENIED,
                   VMIBUS_REASON_NO_GRANT);
}

TEST(test_write_no_ack, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    frame.header.flags = VMIBUS_FRAME_NO_ACK;
    /* Answered all the same: whoever passes it on has to know that the command ended. */
    submit_only(&fx.control, &frame, NULL, NULL);
    ck_assert_uint_eq(fx.control.journal.n, 1);
    ck_assert_mem_eq(data_at(0), eight, 8);
    frame.cmd_memwrite.token++;
    submit_only(&fx.control, &frame, NULL, NULL);
    ck_assert_uint_eq(fx.control.journal.n, 2);
}

TEST(test_write_wrong_roles, READY) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_KIND);
    frame = root_frame(&fx);
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_KIND);
}

TEST(test_write_is_audited, READY) {
    struct vmibus_audit_record record;

    do_write(&fx, DATA_GVA + 24, eight, 8, 0);
    do_write(&fx, EMPTY_GVA, eight, 4, 0);
    ck_assert_uint_eq(fx.audit.header->written, 2);
    ck_assert_int_eq(vmibus_audit_read(fx.audit.header, 1, &record), 1);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_CMD_MEMWRITE);
    ck_assert_uint_eq(record.slot, 1);
    ck_assert_uint_eq(record.generation, fx.generation);
    ck_assert_uint_eq(record.uid, geteuid());
    ck_assert_uint_eq(record.token, fx.token);
    ck_assert_uint_eq(record.epoch, fx.epoch);
    ck_assert_uint_eq(record.address, DATA_GVA + 24);
    ck_assert_uint_eq(record.len, 8);
    ck_assert_uint_eq(record.count, 8);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_OK);
    ck_assert_uint_ne(record.finished, 0);
    ck_assert_int_eq(vmibus_audit_read(fx.audit.header, 2, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_TRANSLATION);
    ck_assert_uint_eq(record.reason, VMIBUS_REASON_NOT_PRESENT);
    ck_assert_uint_eq(record.count, 0);
}

/* A small write of the same client does not overtake a long one. */
TEST(test_write_order_is_kept, READY) {
    static uint8_t source[512 * 1024];
    struct vmibus_frame frame;

    memset(source, 0xcc, sizeof(source));
    for (unsigned round = 0; round < 10; round++) {
        size_t n = fx.control.journal.n;

        frame = write_frame(&fx, DATA_GVA, source, sizeof(source), 0);
        submit_only(&fx.control, &frame, source, NULL);
        frame = write_frame(&fx, DATA_GVA + sizeof(source) - 8, eight, 8, 0);
        submit_only(&fx.control, &frame, NULL, NULL);
        wait_answers(&fx.control, n + 2);
        assert_ok(&fx.control.journal.frames[n].ack);
        ck_assert_uint_eq(fx.control.journal.frames[n].ack.count, sizeof(source));
        assert_ok(&fx.control.journal.frames[n + 1].ack);
        ck_assert_mem_eq(data_at(sizeof(source) - 8), eight, 8);
    }
}

HARNESS_SUITE("memory: writes", HARNESS_QUICK)
