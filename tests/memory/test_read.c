/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* MEM_READ: reading guest memory through the authority, whole, in part, or not at all. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "memory/buffers.h"
#include "memory/fixture.h"
#include "util/fds.h"

#define FOREIGN 65534u
#define BUFFER_SIZE (2 * MIB)

static struct fixture fx;
static uint8_t *octets; /* of buffer 1 of the control */

static void ready_kind(enum vm_kind kind) {
    fixture_init(&fx, kind);
    fixture_ready(&fx);
    assert_ok(buffer_allocate(&fx, &fx.control, BUFFER_SIZE));
    octets = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fx.control.journal.fds[0], 0);
    ck_assert_ptr_ne(octets, MAP_FAILED);
}

static void ready(void) {
    ready_kind(VM_SEALED);
}

static void teardown(void) {
    munmap(octets, BUFFER_SIZE);
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown

static const enum vm_kind kinds[] = {VM_SEALED, VM_UNSEALED, VM_PRIVATE, VM_SHM};

#define N_KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))

static struct vmibus_ack *read_at(uint64_t gva, uint64_t len, uint32_t flags) {
    return buffer_read(&fx, &fx.control, gva, len, 1, flags);
}

static void fill(void) {
    for (size_t i = 0; i < 4 * MIB; i++)
        fx.vm.ram[DATA_GPA + i] = (uint8_t)(i * 7 + i / 4096);
}

/* --- what is read -------------------------------------------------------------------------------- */

TEST(test_reads_of_all_lengths, .iterations = 4) {
    static const uint64_t lens[] = {1, 8, 4096, 4097, 16384, 16385, 65536, MIB - 13};

    ready_kind(kinds[_i]);
    fill();
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        memset(octets, 0xee, BUFFER_SIZE);
        ck_assert_uint_eq(read_at(DATA_GVA + 13, lens[i], 0)->count, lens[i]);
        ck_assert_int_eq(memcmp(octets, fx.vm.ram + DATA_GPA + 13, lens[i]), 0);
        ck_assert_uint_eq(octets[lens[i]], 0xee);
        assert_ok(read_at(DATA_GPA + 13, lens[i], VMIBUS_MEMREAD_PHYSICAL));
        ck_assert_int_eq(memcmp(octets, fx.vm.ram + DATA_GPA + 13, lens[i]), 0);
    }
    teardown();
}

/* Pages that lie backwards in the guest's memory. */
TEST(test_scattered_pages, READY) {
    fill();
    assert_ok(read_at(SCATTER_GVA + 100, 16 * PAGE - 100, 0));
    for (size_t i = 100; i < 16 * PAGE; i++)
        ck_assert_uint_eq(octets[i - 100], fx.vm.ram[DATA_GPA + 2 * MIB - (i / PAGE + 1) * PAGE + i % PAGE]);
}

TEST(test_large_pages_rom_and_read_only_pages_are_read, READY) {
    memset(fx.vm.rom, 9, ROM_SIZE);
    assert_ok(read_at(LARGE_GVA + 5, 2 * MIB - 5, 0));
    ck_assert_int_eq(memcmp(octets, fx.vm.ram + 4 * MIB + 5, 2 * MIB - 5), 0);
    assert_ok(read_at(ROM_GVA, PAGE, 0));
    ck_assert_uint_eq(octets[PAGE - 1], 9);
    assert_ok(read_at(ROM_GPA, ROM_SIZE, VMIBUS_MEMREAD_PHYSICAL));
    assert_ok(read_at(READ_ONLY_GVA, 64, 0));
}

TEST(test_octets_go_where_the_offset_says, READY) {
    struct vmibus_frame frame = read_frame(&fx, DATA_GVA, 100, 1, 0);

    fill();
    frame.mem_read.offset = BUFFER_SIZE - 100;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    ck_assert_int_eq(memcmp(octets + BUFFER_SIZE - 100, fx.vm.ram + DATA_GPA, 100), 0);
    ck_assert(is_filled(octets, 0, BUFFER_SIZE - 100));
}

TEST(test_any_root_is_taken, READY) {
    struct vmibus_frame frame = read_frame(&fx, DATA_GVA, 64, 1, 0);

    fill();
    frame.mem_read.cr3 = PGD_GPA;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    ck_assert_int_eq(memcmp(octets, fx.vm.ram + DATA_GPA, 64), 0);
}

/* --- in part ------------------------------------------------------------------------------------- */

static void assert_part(const struct vmibus_ack *ack, uint16_t error, uint16_t reason, uint64_t count, uint64_t address,
                        uint8_t level) {
    ck_assert_uint_eq(ack->error, error);
    ck_assert_uint_eq(ack->reason, reason);
    ck_assert_uint_eq(ack->count, count);
    ck_assert_uint_eq(ack->value, address);
    ck_assert_uint_eq(ack->level, level);
}

TEST(test_what_ends_a_read_is_told, READY) {
    const uint64_t end = DATA_GVA + MIB, ram_end = RAM_SIZE;

    fill();
    assert_part(read_at(end - 100, 200, 0), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, 100, end, 1);
    ck_assert_int_eq(memcmp(octets, fx.vm.ram + DATA_GPA + MIB - 100, 100), 0);
    assert_part(read_at(end - MIB, MIB + PAGE, 0), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, MIB, end, 1);
    assert_part(read_at(EMPTY_GVA + 5, 8, 0), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, 0, EMPTY_GVA + 5, 2);
    assert_part(read_at(OUTSIDE_GVA, 8, 0), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM, 0, OUTSIDE_GVA, 1);
    assert_part(read_at(RESERVED_GVA, 8, 0), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_RESERVED_BITS, 0, RESERVED_GVA, 2);
    assert_part(read_at(ram_end - 8, 16, VMIBUS_MEMREAD_PHYSICAL), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM, 8,
                ram_end, 0);
    assert_part(read_at(UINT64_C(0x0000800000000000), 8, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS, 0,
                UINT64_C(0x0000800000000000), 0);
}

/* --- refused ------------------------------------------------------------------------------------- */

static struct vmibus_ack *read_with(void (*spoil)(struct vmibus_mem_read *read)) {
    struct vmibus_frame frame = read_frame(&fx, DATA_GVA, 64, 1, 0);

    spoil(&frame.mem_read);
    fx.control.journal.n = 0;
    return submit(&fx.control, &frame, NULL, NULL);
}

#define SPOIL(name, change) static void name(struct vmibus_mem_read *read) { change; }

SPOIL(no_length, read->len = 0)
SPOIL(over_bound, read->len = VMIBUS_BUFFER_BOUND + 1)
SPOIL(most_length, read->len = UINT32_MAX)
SPOIL(unknown_flag, read->flags = 2)
SPOIL(all_flags, read->flags = UINT32_MAX)
SPOIL(root_of_physical, (read->flags = VMIBUS_MEMREAD_PHYSICAL, read->cr3 = 0x1000))
SPOIL(wraps, read->gva = UINT64_MAX - 10)
SPOIL(no_such_buffer, read->buffer = 2)
SPOIL(buffer_0, read->buffer = 0)
SPOIL(behind_its_end, read->offset = BUFFER_SIZE - 63)
SPOIL(offset_wraps, read->offset = UINT64_MAX)
SPOIL(other_epoch, read->epoch++)
SPOIL(no_epoch, read->epoch = 0)

TEST(test_hostile_fields_are_refused, READY) {
    const struct {
        void (*spoil)(struct vmibus_mem_read *read);
        enum vmibus_error error;
        enum vmibus_reason reason;
    } cases[] = {
        {no_length, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {over_bound, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {most_length, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {unknown_flag, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS},
        {all_flags, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS},
        {root_of_physical, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD},
        {wraps, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS},
        {no_such_buffer, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER},
        {buffer_0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER},
        {behind_its_end, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER},
        {offset_wraps, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER},
        {other_epoch, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE},
        {no_epoch, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE},
    };

    fill();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct vmibus_ack *ack = read_with(cases[i].spoil);

        assert_refused(ack, cases[i].error, cases[i].reason);
        ck_assert_uint_eq(ack->count, 0);
    }
    ck_assert(is_filled(octets, 0, BUFFER_SIZE));
}

TEST(test_descriptors_and_freed_buffers_are_refused, READY) {
    struct vmibus_frame frame = read_frame(&fx, DATA_GVA, 64, 1, 0);

    frame.header.fd_count = 1;
    assert_refused(submit(&fx.control, &frame, NULL, &fx.vm.fd), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
    assert_ok(buffer_give_back(&fx, &fx.control, 1));
    assert_refused(read_at(DATA_GVA, 8, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
}

TEST(test_a_late_read_is_not_executed, READY) {
    struct vmibus_frame frame = read_frame(&fx, DATA_GVA, 64, 1, 0);

    frame.header.timestamp = 1;
    frame.header.deadline_us = 1;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE);
}

TEST(test_without_a_root_only_physical, .teardown = teardown) {
    fixture_init(&fx, VM_SEALED);
    assert_ok(propose_layout(&fx, false));
    assert_ok(buffer_allocate(&fx, &fx.control, BUFFER_SIZE));
    octets = mmap(NULL, BUFFER_SIZE, PROT_READ, MAP_SHARED, fx.control.journal.fds[0], 0);
    assert_refused(read_at(DATA_GVA, 8, 0), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NO_ROOT);
    assert_ok(read_at(DATA_GPA, 8, VMIBUS_MEMREAD_PHYSICAL));
}

TEST(test_p01_reading_needs_its_capability, READY) {
    struct client other;

    fixture_grant(&fx, geteuid(), CAPABILITIES_ALL);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_RAM_FD | VMIBUS_CAP_MEM_WRITE);
    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, FOREIGN, 12);
    assert_ok(buffer_allocate(&fx, &other, PAGE));
    assert_refused(buffer_read(&fx, &other, DATA_GVA, 8, 1, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    ck_assert_uint_eq(other.journal.frames[0].ack.value, VMIBUS_CAP_MEM_READ);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_MEM_READ);
    assert_ok(buffer_read(&fx, &other, DATA_GVA, 8, 1, 0));
    client_deinit(&other);
}

TEST(test_reads_are_audited_and_counted, READY) {
    struct vmibus_audit_record record;
    struct authority_counters counters;
    uint64_t sequence = fx.audit.header->written;

    assert_ok(read_at(DATA_GVA, 100, 0));
    (void)read_at(DATA_GVA + MIB - 100, 200, 0);
    (void)read_at(EMPTY_GVA, 8, 0);
    ck_assert_int_eq(vmibus_audit_read(fx.audit.header, sequence + 1, &record), 1);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_MEM_READ);
    ck_assert_uint_eq(record.address, DATA_GVA);
    ck_assert_uint_eq(record.len, 100);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(vmibus_audit_read(fx.audit.header, sequence + 3, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_TRANSLATION);
    authority_get_counters(fx.authority, &counters);
    ck_assert_uint_eq(counters.reads, 2);
    ck_assert_uint_eq(counters.bytes_read, 200);
}

/* --- nothing stale ------------------------------------------------------------------------------- */

static void change_root(void) {
    uint64_t *table = (uint64_t *)(void *)(fx.vm.ram + PGD_GPA);

    table[KERNEL_GVA >> 39 & 511] ^= UINT64_C(1) << 40;
}

TEST(test_p06_the_canary_is_looked_at, READY) {
    change_root();
    assert_refused(read_at(DATA_GPA, 8, VMIBUS_MEMREAD_PHYSICAL), VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_CANARY);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED), 1);
}

static void end_epoch(void) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_END);

    frame.mem_end.reason = VMIBUS_REASON_RESET;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
}

/* While a worker is reading, the epoch ends: by word, or by the canary. */
TEST(test_p06_a_read_that_raced_with_the_end_is_stale, READY, .iterations = 2) {
    struct vmibus_frame frame = read_frame(&fx, DATA_GVA, MIB, 1, 0);
    const struct vmibus_ack *ack;

    fx.control.journal.n = 0;
    pread_block();
    submit_only(&fx.control, &frame, NULL, NULL);
    pread_wait_blocked();
    if (_i)
        change_root();
    else
        end_epoch();
    pread_release();
    wait_answers(&fx.control, 1);
    ack = &fx.control.journal.frames[0].ack;
    assert_refused(ack, VMIBUS_ERROR_STALE_EPOCH, _i ? VMIBUS_REASON_CANARY : VMIBUS_REASON_RESET);
    ck_assert_uint_eq(ack->count, 0);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED), 1);
}

/* A small read does not overtake a long one of the same client. */
TEST(test_reads_stay_in_order, READY) {
    struct vmibus_frame slow = read_frame(&fx, DATA_GVA, MIB, 1, 0), quick = read_frame(&fx, DATA_GVA, 8, 1, 0);

    fx.control.journal.n = 0;
    pread_block();
    submit_only(&fx.control, &slow, NULL, NULL);
    pread_wait_blocked();
    submit_only(&fx.control, &quick, NULL, NULL);
    ck_assert_uint_eq(fx.control.journal.n, 0);
    pread_release();
    wait_answers(&fx.control, 2);
    ck_assert_uint_eq(fx.control.journal.frames[0].header.correlation, slow.header.correlation);
    ck_assert_uint_eq(fx.control.journal.frames[1].header.correlation, quick.header.correlation);
}

/* Somebody queues much before another user comes, who waits for no more than what is under way. */
TEST(test_p09_users_take_turns, READY) {
    struct vmibus_frame frame = read_frame(&fx, DATA_GVA, MIB, 1, 0);
    struct client other;

    fixture_grant(&fx, geteuid(), CAPABILITIES_ALL);
    fixture_grant(&fx, FOREIGN, CAPABILITIES_ALL);
    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, FOREIGN, 12);
    assert_ok(buffer_allocate(&fx, &other, MIB));
    fx.control.journal.n = other.journal.n = 0;
    pread_block();
    for (size_t i = 0; i < 8; i++)
        submit_only(&fx.control, &frame, NULL, NULL);
    pread_wait_blocked();
    submit_only(&other, &frame, NULL, NULL);
    submit_only(&other, &frame, NULL, NULL);
    pread_release();
    wait_answers(&fx.control, 8);
    wait_answers(&other, 2);
    ck_assert_uint_lt(other.journal.frames[0].ack.started, fx.control.journal.frames[2].ack.started);
    ck_assert_uint_lt(other.journal.frames[1].ack.started, fx.control.journal.frames[3].ack.started);
    ck_assert_uint_gt(other.journal.frames[1].ack.started, fx.control.journal.frames[1].ack.started);
    client_deinit(&other);
}

/* The client is gone while a worker is reading into its buffer. */
TEST(test_p09_a_client_that_goes_away, READY) {
    struct client other;
    struct vmibus_frame frame;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 12);
    assert_ok(buffer_allocate(&fx, &other, MIB));
    frame = read_frame(&fx, DATA_GVA, MIB, 1, 0);
    pread_block();
    submit_only(&other, &frame, NULL, NULL);
    pread_wait_blocked();
    client_deinit(&other);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BUFFERS], 2);
    pread_release();
    while (fx.ledger.used[RESOURCE_BUFFERS] > 1)
        ck_assert_int_ge(loop_dispatch(fx.loop, -1), 0);
}

/* A RAM file that was cut short is another one: the epoch ends. */
TEST(test_p09_a_truncated_file, .teardown = teardown) {
    ready_kind(VM_UNSEALED);
    ck_assert_int_eq(ftruncate(fx.vm.fd, (off_t)(DATA_GPA + PAGE)), 0);
    assert_refused(read_at(DATA_GPA, 2 * PAGE, VMIBUS_MEMREAD_PHYSICAL), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_BACKING_CHANGED);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED), 1);
}

HARNESS_SUITE("read", HARNESS_QUICK)
