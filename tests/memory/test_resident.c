/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which writes keep a copy of what they overwrite, and what a failure in the middle of each comes to: it is put back, or told
 * as PARTIAL where every page was there before and no copy was kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "memory/backing.h"
#include "memory/buffer.h"
#include "memory/buffers.h"
#include "memory/fixture.h"
#include "memory/table.h"

#define LEN (64 * PAGE)     /* of most writes: one piece for each of 16 pages */
#define PIECES (LEN / WRITE_PIECE)
#define BEFORE 0xd0
#define AFTER 0x66

static struct fixture fx;
static struct table table;
static uint8_t source[LEN];
static unsigned calls;      /* of pwrite(2), one for each portion */
static unsigned failing;    /* the one call that fails, counted from 1 */
static size_t portion;      /* octets */

/* As the kernel does: what went before the failure is told by a short write, the failure by the next one. */
static ssize_t failing_pwrite(int fd, const void *buffer, size_t len, off_t offset) {
    size_t done = 0;

    while (done < len && (done == 0 || calls + 1 != failing)) {
        size_t n = len - done < portion ? len - done : portion;

        if (++calls == failing) {
            errno = ENOMEM;
            return -1;
        }
        ck_assert_int_eq(pwrite_really(fd, (const uint8_t *)buffer + done, n, offset + (off_t)done), (ssize_t)n);
        done += n;
    }
    return (ssize_t)done;
}

/* The kernel tells of a file's pages from 6.5 on. */
static bool kernel_tells(enum vm_kind kind) {
    const uint64_t range[2] = {0, PAGE};
    uint64_t state[5];
    int fd;
    bool tells;

    if (kind == VM_PRIVATE)
        return true;
    fd = memfd_create("asked", MFD_CLOEXEC);
    tells = syscall(451, fd, range, state, 0) == 0;
    close(fd);
    return tells;
}

static void ready_for(enum vm_kind kind, unsigned call) {
    fixture_init(&fx, kind);
    fixture_ready(&fx);
    memset(fx.vm.ram + DATA_GPA, BEFORE, 2 * MIB);
    memset(source, AFTER, sizeof(source));
    table_reset(&table);
    calls = 0;
    failing = call;
    portion = WRITE_PIECE;
    pwrite_hook = failing_pwrite;
}

static void finish(void) {
    pwrite_hook = NULL;
    table_reset(&table);
    fixture_deinit(&fx);
}

/* What stays is told, and that is all that there is. */
static void assert_partial(const struct vmibus_ack *ack, uint64_t written) {
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(ack->value, ENOMEM);
    ck_assert_uint_eq(ack->count, written);
    ck_assert(is_filled(fx.vm.ram + DATA_GPA, AFTER, written));
    ck_assert(is_filled(fx.vm.ram + DATA_GPA + written, BEFORE, 2 * MIB - written));
}

/* Put back, but for pages that were not there: these hold zeros. */
static void assert_undone(const struct vmibus_ack *ack, uint64_t missing, uint64_t n_missing) {
    uint64_t end = (missing + n_missing) * PAGE;

    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(ack->value, ENOMEM);
    if (missing)
        ck_assert(is_filled(fx.vm.ram + DATA_GPA, BEFORE, missing * PAGE));
    if (n_missing)
        ck_assert(is_filled(fx.vm.ram + DATA_GPA + missing * PAGE, 0, n_missing * PAGE));
    ck_assert(is_filled(fx.vm.ram + DATA_GPA + end, BEFORE, 2 * MIB - end));
}

static const enum vm_kind kinds[] = {VM_SEALED, VM_PRIVATE};

/* --- all of it is there ---------------------------------------------------------------------------- */

/* Fails at the first piece, in the middle, at the last one. */
TEST(test_p04_failure_in_resident_memory_is_told, .iterations = 6) {
    const enum vm_kind kind = kinds[_i % 2];
    const unsigned at[] = {1, 2, PIECES};
    const unsigned call = at[_i / 2];
    struct vmibus_ack *ack;

    if (!kernel_tells(kind))
        test_skip("the kernel does not tell which pages of a file are there");
    ready_for(kind, call);
    ack = do_write(&fx, DATA_GVA, source, LEN, 0);
    if (call > 1)
        assert_partial(ack, (call - 1) * WRITE_PIECE);
    else
        assert_undone(ack, 0, 0);
    ck_assert_uint_eq(calls, call); /* nothing was put back */
    assert_ok(do_write(&fx, DATA_GVA, source, LEN, 0));
    ck_assert(is_filled(fx.vm.ram + DATA_GPA, AFTER, LEN));
    finish();
}

/* To the octet, wherever in a piece that is; and what lies in one stretch is written at once. */
TEST(test_p04_failure_amidst_a_piece_is_told, .iterations = 8) {
    const enum vm_kind kind = kinds[_i % 2];
    const size_t portions[] = {1000, 65535, 65537, 100000};
    struct vmibus_ack *ack;

    if (!kernel_tells(kind))
        test_skip("the kernel does not tell which pages of a file are there");
    ready_for(kind, 3);
    portion = portions[_i / 2];
    ack = do_write(&fx, DATA_GVA, source, LEN, 0);
    assert_partial(ack, 2 * portion);
    ck_assert_uint_eq(calls, 3);
    portion = LEN;
    assert_ok(do_write(&fx, DATA_GVA, source, LEN, 0));
    ck_assert_uint_eq(calls, 4);
    finish();
}

/* Each extent says how much of it stays. */
TEST(test_p04_failure_in_resident_memory_is_told_by_extent, .iterations = 2) {
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    if (!kernel_tells(kinds[_i]))
        test_skip("the kernel does not tell which pages of a file are there");
    ready_for(kinds[_i], 3);
    for (unsigned i = 0; i < 4; i++)
        table_add(&table, DATA_GVA + i * 2 * PAGE, PAGE);
    ack = table_submit(&fx, &table);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(ack->count, 2 * PAGE);
    results = table_results(&fx, &table, ack);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(results[i].written, i < 2 ? PAGE : 0);
        ck_assert_uint_eq(results[i].reason, i < 2    ? VMIBUS_REASON_PARTIAL
                                             : i == 2 ? VMIBUS_REASON_NONE
                                                      : VMIBUS_REASON_OTHER_EXTENT);
        ck_assert(is_filled(fx.vm.ram + DATA_GPA + i * 2 * PAGE, i < 2 ? (uint8_t)(table.fill + i) : BEFORE, PAGE));
    }
    finish();
}

/* Extents that lie one after the other are written at once, and are told of each for itself all the same. */
TEST(test_p04_failure_in_adjacent_extents_is_told_by_extent, .iterations = 4) {
    const enum vm_kind kind = kinds[_i % 2];
    const struct vmibus_extent_result *results;
    struct vmibus_ack *ack;

    if (!kernel_tells(kind))
        test_skip("the kernel does not tell which pages of a file are there");
    ready_for(kind, 2);
    portion = _i / 2 ? 2 * PAGE : 2 * PAGE + 10; /* the failure is between two extents, or in one */
    for (unsigned i = 0; i < 4; i++)
        table_add(&table, DATA_GVA + i * PAGE, PAGE);
    ack = table_submit(&fx, &table);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    ck_assert_uint_eq(ack->count, portion);
    results = table_results(&fx, &table, ack);
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *page = fx.vm.ram + DATA_GPA + i * PAGE;

        ck_assert_uint_eq(results[i].written, i < 2 ? PAGE : i == 2 ? portion - 2 * PAGE : 0);
        ck_assert_uint_eq(page[PAGE - 1], i < 2 ? table.fill + i : BEFORE);
        if (results[i].written)
            ck_assert(is_filled(page, (uint8_t)(table.fill + i), results[i].written));
    }
    ck_assert_uint_eq(results[3].reason, VMIBUS_REASON_OTHER_EXTENT);
    finish();
}

/* What is short, or is compared, is copied in no time, or anyway. */
TEST(test_p04_failure_after_a_copy_is_undone, .iterations = 6) {
    static uint8_t both[2 * LEN];
    struct vmibus_ack *ack;

    ready_for(kinds[_i % 2], 2);
    memset(both, BEFORE, LEN);
    memset(both + LEN, AFTER, LEN);
    if (_i < 2) {
        for (unsigned i = 0; i < 4; i++)
            table_add(&table, DATA_GVA + i * PAGE, 1000); /* where it is received */
        ack = table_submit(&fx, &table);
    } else if (_i < 4) {
        for (unsigned i = 0; i < 64; i++)
            table_add(&table, DATA_GVA + i * PAGE, 100);
        ack = table_submit(&fx, &table);
    } else {
        struct vmibus_frame frame = write_frame(&fx, DATA_GVA, both, LEN, VMIBUS_MEMWRITE_EXPECT);

        frame.header.tail_length = sizeof(both);
        ack = submit(&fx.control, &frame, both, NULL);
    }
    assert_undone(ack, 0, 0);
    finish();
}

/* --- some of it is not ----------------------------------------------------------------------------- */

/* A page that has to be made: the first, one in the middle, the last. */
TEST(test_p04_failure_beside_a_hole_is_undone, .iterations = 6) {
    const uint64_t holes[] = {0, 33, LEN / PAGE - 1};

    ready_for(kinds[_i % 2], 3);
    vm_forget(&fx.vm, DATA_GPA + holes[_i / 2] * PAGE, PAGE);
    assert_undone(do_write(&fx, DATA_GVA, source, LEN, 0), holes[_i / 2], 1);
    ck_assert_uint_eq(calls, 5); /* two, one that failed, two that put back */
    finish();
}

/* A hole beside the octets, in no page of theirs, does not matter. */
TEST(test_p04_hole_beside_the_write_keeps_no_copy, .iterations = 4) {
    const enum vm_kind kind = kinds[_i % 2];
    const struct vmibus_ack *ack;

    if (!kernel_tells(kind))
        test_skip("the kernel does not tell which pages of a file are there");
    ready_for(kind, 2);
    vm_forget(&fx.vm, DATA_GPA + (_i < 2 ? 0 : LEN), PAGE);
    ack = do_write(&fx, DATA_GVA + PAGE + 5, source, LEN - PAGE - 5, 0);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_PARTIAL);
    finish();
}

/* The page of zeros, which all share that have only read: it is present, but another one has to be made to write to it. */
TEST(test_p04_failure_beside_the_page_of_zeros_is_undone) {
    ready_for(VM_PRIVATE, 2);
    vm_forget(&fx.vm, DATA_GPA + 7 * PAGE, PAGE);
    ck_assert_uint_eq(*(volatile uint8_t *)(fx.vm.ram + DATA_GPA + 7 * PAGE), 0);
    assert_undone(do_write(&fx, DATA_GVA, source, LEN, 0), 7, 1);
    finish();
}

/* A page that parent and child have in common since a fork: the same. */
TEST(test_p04_failure_in_a_page_shared_by_fork_is_undone) {
    int ends[2];
    uint8_t octet;
    pid_t pid;

    ready_for(VM_PRIVATE, 2);
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        close(ends[1]);
        _exit(read(ends[0], &octet, 1) < 0);
    }
    close(ends[0]);
    assert_undone(do_write(&fx, DATA_GVA, source, LEN, 0), 0, 0);
    close(ends[1]);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    finish();
}

/* A file that can be cut off, whatever it has. */
TEST(test_p04_failure_in_an_unsealed_file_is_undone) {
    ready_for(VM_UNSEALED, 2);
    assert_undone(do_write(&fx, DATA_GVA, source, LEN, 0), 0, 0);
    finish();
}

/* The source can fail too: a buffer from which its owner has punched a hole, or that it never filled. */
TEST(test_p04_failure_of_a_sparse_source_is_undone, .iterations = 4) {
    const enum vm_kind kind = kinds[_i % 2];
    struct vmibus_memwrite_source from = {};
    struct vmibus_frame frame;
    struct vmibus_ack *ack;
    int fd;

    if (!kernel_tells(VM_SEALED))
        test_skip("the kernel does not tell which pages of a file are there");
    ready_for(kind, 2);
    from.offset = PAGE;
    from.buffer = (uint32_t)buffer_allocate(&fx, &fx.control, LEN + PAGE)->value;
    fd = fx.control.journal.fds[0];
    ck_assert_int_eq(pwrite_really(fd, source, LEN, PAGE), LEN); /* its first page is a hole, and not asked for */
    if (_i >= 2)
        ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, LEN, PAGE), 0);
    frame = frame_make(&fx, VMIBUS_KIND_CMD_MEMWRITE);
    frame.cmd_memwrite.gva = DATA_GVA;
    frame.cmd_memwrite.len = LEN;
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_BUFFER;
    frame.cmd_memwrite.token = fx.token;
    frame.cmd_memwrite.epoch = fx.epoch;
    memcpy(frame.cmd_memwrite.data, &from, sizeof(from));
    ack = submit(&fx.control, &frame, NULL, NULL);
    if (_i < 2)
        assert_partial(ack, WRITE_PIECE);
    else
        assert_undone(ack, 0, 0);
    finish();
}

/* --- the question itself --------------------------------------------------------------------------- */

/* One piece of one range of one object. */
static struct ram_object object;
static struct vmibus_ram_range range;
static uint64_t address;
static struct memctx memctx;
static struct write_piece piece;
static struct write write_of_it;

static void plan_for(const struct ram_object *what, uint64_t skip, uint32_t len) {
    object = *what;
    range = (struct vmibus_ram_range){.len = RAM_SIZE};
    address = UINT64_C(0x7f0000000000);
    memctx = (struct memctx){
        .pagemap_fd = -1, .ranges = &range, .addresses = &address, .n_ranges = 1, .objects = &object, .n_objects = 1};
    piece = (struct write_piece){.skip = skip, .len = len};
    write_of_it = (struct write){.memctx = &memctx, .pieces = &piece, .n_pieces = 1, .len = len};
}

/* What the kernel says of the pages of a process, one bit after the other made up. */
TEST(test_p04_private_page_must_be_owned) {
    const uint64_t owned = UINT64_C(1) << 63 | UINT64_C(1) << 56;
    static const unsigned others[] = {57, 61, 62}; /* watched, of a file, swapped out */
    uint64_t words[3] = {owned, owned, owned};
    off_t at;

    plan_for(&(struct ram_object){.fd = -1}, 100, 2 * PAGE);
    ck_assert(!backing_cannot_fail(&write_of_it)); /* no pagemap */
    memctx.pagemap_fd = memfd_create("pagemap", MFD_CLOEXEC);
    at = (off_t)(address / PAGE * sizeof(*words));
    ck_assert(!backing_cannot_fail(&write_of_it)); /* it says nothing: the process is gone */
    ck_assert_int_eq(pwrite_really(memctx.pagemap_fd, words, sizeof(words), at), sizeof(words));
    ck_assert(backing_cannot_fail(&write_of_it));
    for (unsigned i = 0; i < 3; i++) {
        uint64_t bad[] = {0, UINT64_C(1) << 63, UINT64_C(1) << 56, owned | UINT64_C(1) << 57, owned | UINT64_C(1) << 61,
                          UINT64_C(1) << others[2] | UINT64_C(1) << 56};

        for (size_t j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
            ck_assert_int_eq(pwrite_really(memctx.pagemap_fd, &bad[j], 8, at + 8 * (off_t)i), 8);
            ck_assert(!backing_cannot_fail(&write_of_it));
        }
        ck_assert_int_eq(pwrite_really(memctx.pagemap_fd, &owned, 8, at + 8 * (off_t)i), 8);
        ck_assert(backing_cannot_fail(&write_of_it));
    }
    close(memctx.pagemap_fd);
}

/* A file that may not be written, has huge pages, can be cut off, or whose owner has sealed it against writing. */
TEST(test_p04_file_must_be_sure) {
    struct ram_object sure = {.is_file = true, .writable = true, .sealed = true};

    if (!kernel_tells(VM_SEALED))
        test_skip("the kernel does not tell which pages of a file are there");
    sure.fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(sure.fd, RAM_SIZE), 0);
    ck_assert_int_eq(fallocate(sure.fd, 0, PAGE, 4 * PAGE), 0);
    plan_for(&sure, PAGE, 4 * PAGE);
    ck_assert(backing_cannot_fail(&write_of_it));
    plan_for(&sure, PAGE + 1, 4 * PAGE);
    ck_assert(!backing_cannot_fail(&write_of_it));
    plan_for(&sure, PAGE - 1, 4 * PAGE);
    ck_assert(!backing_cannot_fail(&write_of_it));
    plan_for(&sure, PAGE, WRITE_SMALL);
    ck_assert(!backing_cannot_fail(&write_of_it));
    plan_for(&sure, PAGE, 4 * PAGE);
    object.sealed = false;
    ck_assert(!backing_cannot_fail(&write_of_it));
    plan_for(&sure, PAGE, 4 * PAGE);
    object.writable = false;
    ck_assert(!backing_cannot_fail(&write_of_it));
    plan_for(&sure, PAGE, 4 * PAGE);
    object.huge = true;
    ck_assert(!backing_cannot_fail(&write_of_it));
    plan_for(&sure, PAGE, 4 * PAGE);
    ck_assert_int_eq(fcntl(sure.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
    ck_assert(!backing_cannot_fail(&write_of_it));
    close(sure.fd);
}

HARNESS_SUITE("memory: writes that keep no copy", HARNESS_QUICK)
