/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CMD_MEMWRITE from a buffer, and with QUIESCE: what a hostile client does to its buffer, and what waits for the guest. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"

#define BUFFER_SIZE (2 * MIB)

static struct fixture fx;
static uint8_t *buffer;
static uint32_t number;

static struct vmibus_ack *say_buffer(enum vmibus_buffer_operation operation, uint64_t size) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_BUFFER);

    frame.header.slot = 0;
    frame.header.generation = 0;
    frame.buffer.operation = (uint8_t)operation;
    frame.buffer.size = size;
    frame.buffer.buffer = number;
    return submit(&fx.control, &frame, NULL, NULL);
}

static void ready_for(enum vm_kind kind) {
    struct vmibus_ack *ack;

    fixture_init(&fx, kind);
    fixture_ready(&fx);
    number = 0;
    ack = say_buffer(VMIBUS_BUFFER_OPERATION_ALLOCATE, BUFFER_SIZE);
    assert_ok(ack);
    number = (uint32_t)ack->value;
    ck_assert_uint_eq(fx.control.journal.n_fds, 1);
    buffer = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fx.control.journal.fds[0], 0);
    ck_assert_ptr_ne(buffer, MAP_FAILED);
}

static void ready(void) {
    ready_for(VM_SEALED);
}

static void teardown(void) {
    munmap(buffer, BUFFER_SIZE);
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown

static uint8_t *data_at(uint64_t skip) {
    return fx.vm.ram + DATA_GPA + skip;
}

static struct vmibus_frame buffer_frame(uint64_t gva, uint32_t len, uint64_t offset, uint32_t flags) {
    const struct vmibus_memwrite_source source = {.buffer = number, .offset = offset, .reserved = 0xfeed};
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_CMD_MEMWRITE);

    frame.cmd_memwrite.gva = gva;
    frame.cmd_memwrite.len = len;
    frame.cmd_memwrite.flags = flags | VMIBUS_MEMWRITE_SRC_BUFFER;
    frame.cmd_memwrite.token = fx.token;
    frame.cmd_memwrite.epoch = fx.epoch;
    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    return frame;
}

static struct vmibus_ack *write_buffer(uint64_t gva, uint32_t len, uint64_t offset, uint32_t flags) {
    struct vmibus_frame frame = buffer_frame(gva, len, offset, flags);

    return submit(&fx.control, &frame, NULL, NULL);
}

/* --- digests ------------------------------------------------------------------------------------- */

static enum audit_answer require_nothing(void *context, const struct vmibus_audit_record *record, struct audit_waiter *waiter, int *error) {
    (void)context;
    (void)record;
    (void)waiter;
    (void)error;
    return AUDIT_GO_ON;
}

static void keep_nothing(void *context, struct vmibus_audit_record *record) {
    (void)context;
    (void)record;
}

/* No hash: what was digested is to be seen. */
static void digest_by_copying(const void *octets, size_t len, uint8_t *digest) {
    memset(digest, 0, VMIBUS_AUDIT_HASH);
    memcpy(digest, octets, len < VMIBUS_AUDIT_HASH ? len : VMIBUS_AUDIT_HASH);
}

/* The client changes its buffer at the last moment. */
static ssize_t change_then_write(int fd, const void *octets, size_t len, off_t offset) {
    memset(buffer, 0x66, 8192);
    return pwrite_really(fd, octets, len, offset);
}

TEST(test_p09_digest_is_of_what_was_written, READY, .iterations = 4) {
    static const struct audit_ops ops = {.keep = keep_nothing, .require = require_nothing, .digest = digest_by_copying};
    uint32_t len = _i % 2 ? 8192 : 16; /* here, on a worker */
    const struct vmibus_audit_record *record;

    fx.audit.ops = &ops;
    fx.audit.digest_bound = 8192;
    memset(data_at(0), 0x11, len);
    memset(buffer, 0x22, 8192);
    memset(buffer + len, _i < 2 ? 0x22 : 0x33, 8192);
    memset(buffer, _i < 2 ? 0x22 : 0x11, len); /* with EXPECT: what is there, then what is to be */
    pwrite_hook = change_then_write;
    assert_ok(write_buffer(DATA_GVA, len, 0, _i < 2 ? 0 : VMIBUS_MEMWRITE_EXPECT));
    pwrite_hook = NULL;
    record = &fx.audit.records[(fx.audit.header->written - 1) % fx.audit.header->capacity];
    ck_assert_uint_eq(record->flags, VMIBUS_AUDIT_DIGESTED);
    ck_assert(is_filled(record->digest_old, 0x11, 16));
    ck_assert_mem_eq(record->digest_new, data_at(0), 16);
    ck_assert(is_filled(data_at(0), _i < 2 ? 0x22 : 0x33, len));
    /* Beyond the bound there is none, and the record says so. */
    assert_ok(write_buffer(DATA_GVA, 8193, 0, 0));
    record = &fx.audit.records[(fx.audit.header->written - 1) % fx.audit.header->capacity];
    ck_assert_uint_eq(record->flags, VMIBUS_AUDIT_NO_DIGEST);
    fx.audit.ops = NULL;
}

/* --- buffers ------------------------------------------------------------------------------------ */

TEST(test_write_from_a_buffer, .iterations = 9) {
    static const uint32_t lens[] = {8, 20000, MIB - 100};
    static const enum vm_kind kinds[] = {VM_SEALED, VM_UNSEALED, VM_PRIVATE};
    uint32_t len = lens[_i / 3];
    struct vmibus_ack *ack;

    ready_for(kinds[_i % 3]);
    for (size_t i = 0; i < BUFFER_SIZE; i++)
        buffer[i] = (uint8_t)(i * 7 + i / 251);
    ack = write_buffer(DATA_GVA + 77, len, 4097, 0);
    assert_ok(ack);
    ck_assert_uint_eq(ack->count, len);
    ck_assert_int_eq(memcmp(data_at(77), buffer + 4097, len), 0);
    ck_assert_uint_eq(*data_at(76), 0);
    ck_assert_uint_eq(*data_at(77 + len), 0);
    teardown();
}

TEST(test_p04_expect_from_a_buffer, READY, .iterations = 3) {
    static const uint32_t lens[] = {8, 20000, 300000};
    uint32_t len = lens[_i];
    struct vmibus_ack *ack;

    memset(data_at(0), 0xaa, len);
    memset(buffer + 10, 0xaa, len);
    memset(buffer + 10 + len, 0xbb, len);
    buffer[10 + len - 2] = 1;
    ack = write_buffer(DATA_GVA, len, 10, VMIBUS_MEMWRITE_EXPECT);
    assert_refused(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
    ck_assert_uint_eq(ack->value, len - 2);
    ck_assert(is_filled(data_at(0), 0xaa, len));
    buffer[10 + len - 2] = 0xaa;
    assert_ok(write_buffer(DATA_GVA, len, 10, VMIBUS_MEMWRITE_EXPECT));
    ck_assert(is_filled(data_at(0), 0xbb, len));
}

TEST(test_p09_octets_outside_the_buffer, READY) {
    static const struct {
        uint64_t offset;
        uint32_t len, flags;
    } bad[] = {
        {BUFFER_SIZE, 1, 0},
        {BUFFER_SIZE - 7, 8, 0},
        {UINT64_MAX, 1, 0},
        {UINT64_MAX - 7, 8, 0},
        {0, BUFFER_SIZE + 1, 0},
        {0, UINT32_MAX, 0},
        {0, BUFFER_SIZE / 2 + 1, VMIBUS_MEMWRITE_EXPECT},
        {0, UINT32_MAX, VMIBUS_MEMWRITE_EXPECT},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_refused(write_buffer(DATA_GPA, bad[i].len, bad[i].offset, bad[i].flags | VMIBUS_MEMWRITE_PHYSICAL),
                       VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
    number++;
    assert_refused(write_buffer(DATA_GVA, 8, 0, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
    number = 0;
    assert_refused(write_buffer(DATA_GVA, 8, 0, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
    ck_assert(is_filled(data_at(0), 0, PAGE));
}

TEST(test_table_from_a_buffer, READY, .iterations = 2) {
    const uint32_t len = _i ? 100000 : 200;
    const struct vmibus_write_extent extents[] = {{.gva = DATA_GVA, .len = len}, {.gva = DATA_GVA + 200000, .len = len}};
    const struct vmibus_memwrite_source source = {.buffer = number, .extents = 2, .offset = 5};
    struct vmibus_frame frame = buffer_frame(0, 2 * len, 0, VMIBUS_MEMWRITE_TABLE);
    struct vmibus_ack *ack;

    memset(buffer + 5, 0x31, len);
    memset(buffer + 5 + len, 0x32, len);
    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    frame.header.tail_length = sizeof(extents);
    ack = submit(&fx.control, &frame, extents, NULL);
    assert_ok(ack);
    ck_assert(is_filled(data_at(0), 0x31, len));
    ck_assert(is_filled(data_at(200000), 0x32, len));
    frame.header.tail_length++; /* nothing follows the table */
    assert_refused(submit(&fx.control, &frame, extents, NULL), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
}

/* Freed while a write from it is under way: it stays until that has ended. */
TEST(test_p08_buffer_freed_during_a_write, READY) {
    struct vmibus_frame frame = buffer_frame(DATA_GVA, 500000, 0, 0);
    size_t n = fx.control.journal.n;

    memset(buffer, 0x44, 500000);
    pwrite_block();
    submit_only(&fx.control, &frame, NULL, NULL);
    assert_ok(say_buffer(VMIBUS_BUFFER_OPERATION_FREE, 0));
    ck_assert_uint_ge(fx.ledger.used[RESOURCE_BYTES], BUFFER_SIZE);
    assert_refused(write_buffer(DATA_GVA, 8, 0, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
    pwrite_release();
    wait_answers(&fx.control, n + 3);
    pwrite_hook = NULL;
    ck_assert(is_filled(data_at(0), 0x44, 500000));
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
}

TEST(test_p08_client_gone_during_a_write_from_its_buffer, READY) {
    struct vmibus_frame frame = buffer_frame(DATA_GVA, 500000, 0, 0);

    pwrite_block();
    submit_only(&fx.control, &frame, NULL, NULL);
    client_deinit(&fx.control);
    client_init(&fx.control, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    link_revoke(&fx, fx.token);
    pwrite_release();
    wait_link(&fx, fx.link.n + 1);
    pwrite_hook = NULL;
    ck_assert_ptr_nonnull(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED));
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], 0);
}

static _Atomic bool changing;

static void *change_buffer(void *data) {
    (void)data;
    for (uint8_t i = 0; atomic_load(&changing); i++)
        memset(buffer, i, 65536);
    return NULL;
}

/* What the client changes under the comparison: it ends, and what it tells is within the write. */
TEST(test_p09_expectation_changes_underfoot, READY) {
    pthread_t thread;
    unsigned matched = 0;

    atomic_store(&changing, true);
    ck_assert_int_eq(pthread_create(&thread, NULL, change_buffer, NULL), 0);
    for (unsigned i = 0; i < 300; i++) {
        struct vmibus_ack *ack;

        memset(data_at(0), (int)(i & 0xff), 20000);
        ack = write_buffer(DATA_GVA, 20000, 0, VMIBUS_MEMWRITE_EXPECT | VMIBUS_MEMWRITE_DRY_RUN);
        matched += ack->error == 0;
        if (ack->error) {
            assert_refused(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
            ck_assert_uint_lt(ack->value, 20000);
        }
        if (fx.control.journal.n > FRAMES_MAX - 4) {
            for (size_t j = 0; j < fx.control.journal.n; j++)
                free(fx.control.journal.tails[j]);
            memset(fx.control.journal.tails, 0, sizeof(fx.control.journal.tails));
            fx.control.journal.n = 0;
        }
    }
    atomic_store(&changing, false);
    pthread_join(thread, NULL);
    ck_assert_uint_le(matched, 300);
}

/* --- quiesce ------------------------------------------------------------------------------------ */

static void say_state(uint16_t error) {
    const struct vmibus_frame *begin = last_of(&fx.link, VMIBUS_KIND_QUIESCE_BEGIN);
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_QUIESCE_STATE}};

    ck_assert_ptr_nonnull(begin);
    frame.header.slot = fx.slot;
    frame.header.generation = fx.generation;
    frame.header.correlation = begin->header.correlation;
    frame.quiesce_state.error = error;
    authority_hear_link(fx.authority, &frame, NULL);
}

static size_t submit_quiesced(const uint8_t *eight) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, VMIBUS_MEMWRITE_QUIESCE);
    size_t n = fx.control.journal.n;

    submit_only(&fx.control, &frame, NULL, NULL);
    return n;
}

static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

TEST(test_quiesced_write_waits_for_the_guest, READY) {
    size_t n = submit_quiesced(eight);

    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_QUIESCE_BEGIN), 1);
    ck_assert_uint_eq(fx.control.journal.n, n);
    ck_assert_uint_eq(*data_at(0), 0);
    say_state(VMIBUS_ERROR_OK);
    wait_answers(&fx.control, n + 1);
    assert_ok(&fx.control.journal.frames[n].ack);
    ck_assert_mem_eq(data_at(0), eight, 8);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_QUIESCE_END), 1);
}

TEST(test_p04_guest_that_does_not_stand_still, READY) {
    size_t n = submit_quiesced(eight);

    say_state(VMIBUS_ERROR_BUSY);
    wait_answers(&fx.control, n + 1);
    assert_refused(&fx.control.journal.frames[n].ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED);
    ck_assert_uint_eq(*data_at(0), 0);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_BYTES], BUFFER_SIZE);
}

/* The hold ends while the write is queued behind another one: asked again at commit. */
TEST(test_p04_hold_ends_before_the_commit, READY) {
    struct vmibus_frame frame = buffer_frame(DATA_GVA + PAGE, 500000, 0, 0);
    size_t n = fx.control.journal.n;

    pwrite_block();
    submit_only(&fx.control, &frame, NULL, NULL);
    submit_quiesced(eight);
    say_state(VMIBUS_ERROR_OK);
    say_state(VMIBUS_ERROR_EXPIRED);
    pwrite_release();
    wait_answers(&fx.control, n + 2);
    pwrite_hook = NULL;
    assert_ok(&fx.control.journal.frames[n].ack);
    assert_refused(&fx.control.journal.frames[n + 1].ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED);
    ck_assert_uint_eq(*data_at(0), 0);
}

TEST(test_quiesce_needs_its_capability, READY) {
    struct vmibus_ack *ack;

    fixture_grant(&fx, geteuid(), VMIBUS_CAP_MEM_WRITE);
    ack = do_write(&fx, DATA_GVA, eight, 8, VMIBUS_MEMWRITE_QUIESCE);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    ck_assert_uint_eq(ack->value, VMIBUS_CAP_QUIESCE);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_QUIESCE_BEGIN), 0);
}

TEST(test_p05_revoked_while_waiting_for_the_guest, READY) {
    size_t n = submit_quiesced(eight);

    link_revoke(&fx, fx.token);
    ck_assert_ptr_null(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED));
    say_state(VMIBUS_ERROR_OK);
    wait_answers(&fx.control, n + 1);
    assert_refused(&fx.control.journal.frames[n].ack, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED);
    ck_assert_ptr_nonnull(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED));
    ck_assert_uint_eq(*data_at(0), 0);
}

HARNESS_SUITE("memory: sources and quiesce", HARNESS_QUICK)
