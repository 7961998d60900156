/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hostile and vanishing backings: files that shrink, processes that die, holes that must stay holes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "util/clock.h"
#include "util/fds.h"

static struct fixture fx;

static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static off_t size_of(int fd) {
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_size;
}

/* --- promise 9: files that shrink -------------------------------------------------------------- */

/* Cut behind the tables, in them, before them, to nothing: refused, not grown, and no SIGBUS. */
TEST(test_p09_truncated_file_is_not_grown, .iterations = 8) {
    static const off_t sizes[] = {DATA_GPA + 100, 0x22000, 0x1000, 0};
    static uint8_t source[8192];
    off_t size = sizes[_i % 4];
    uint64_t epoch;

    fixture_init(&fx, VM_UNSEALED);
    fixture_ready(&fx);
    epoch = fx.epoch;
    ck_assert_int_eq(ftruncate(fx.vm.fd, size), 0);
    assert_refused(do_write(&fx, DATA_GVA + 4 * PAGE, source, _i < 4 ? 8 : 8192, 0),
                   VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_BACKING_CHANGED);
    ck_assert_int_eq(size_of(fx.vm.fd), size);
    ck_assert_uint_eq(
        last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED)->memctx_invalidated.epoch, epoch);
    ck_assert_uint_eq(
        last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED)->memctx_invalidated.reason,
        VMIBUS_REASON_BACKING_CHANGED);
    fixture_deinit(&fx);
}

TEST(test_p09_truncated_file_is_not_grown_by_physical_writes) {
    fixture_init(&fx, VM_UNSEALED);
    assert_ok(propose_layout(&fx, false));
    link_issue(&fx, &fx.control, 1, 0);
    ck_assert_int_eq(ftruncate(fx.vm.fd, PAGE), 0);
    assert_refused(do_write(&fx, DATA_GPA, eight, 8, VMIBUS_MEMWRITE_PHYSICAL),
                   VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_BACKING_CHANGED);
    ck_assert_int_eq(size_of(fx.vm.fd), PAGE);
    fixture_deinit(&fx);
}

/* Nobody writes, but somebody relies on it: noticed all the same. */
TEST(test_p09_truncation_is_noticed_by_itself) {
    fixture_init(&fx, VM_UNSEALED);
    fixture_ready(&fx);
    ck_assert_int_eq(ftruncate(fx.vm.fd, DATA_GPA), 0);
    wait_link(&fx, 3);
    ck_assert_uint_eq(
        last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED)->memctx_invalidated.reason,
        VMIBUS_REASON_BACKING_CHANGED);
    fixture_deinit(&fx);
}

TEST(test_p09_truncated_before_the_root_is_proven) {
    fixture_init(&fx, VM_UNSEALED);
    assert_ok(propose_layout(&fx, false));
    struct vmibus_frame frame = root_frame(&fx);
    ck_assert_int_eq(ftruncate(fx.vm.fd, 0), 0);
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_UNSUPPORTED,
                   VMIBUS_REASON_ROOT_UNPROVEN);
    fixture_deinit(&fx);
}

/* --- promise 9: processes that die ------------------------------------------------------------- */

/* A child that has the fixture's private memory, and ends when told. */
struct child {
    pid_t pid;
    int release;
};

static void child_start(struct child *child) {
    int ends[2];

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    child->pid = fork();
    ck_assert_int_ge(child->pid, 0);
    if (child->pid == 0) {
        char octet;

        close(ends[1]);
        _exit(read(ends[0], &octet, 1) == 1 ? 0 : 1);
    }
    close(ends[0]);
    child->release = ends[1];
}

static void child_end(struct child *child) {
    ck_assert_int_eq(write(child->release, "x", 1), 1);
    child->release = fd_close(child->release);
    ck_assert_int_eq(waitpid(child->pid, NULL, 0), child->pid);
}

static struct vmibus_ack *propose_child(const struct child *child, uint64_t start_time) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    struct vmibus_layout_range range = {
        .len = RAM_SIZE,
        .location = (uintptr_t)fx.vm.ram,
        .object = 0xffff,
    };

    frame.header.tail_length = sizeof(range);
    frame.mem_layout.range_count = 1;
    frame.mem_layout.pid = (uint32_t)child->pid;
    frame.mem_layout.start_time = start_time;
    return submit(&fx.sensor, &frame, &range, NULL);
}

static void read_child(const struct child *child, uint64_t gpa, void *buffer, size_t len) {
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/mem", (int)child->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, buffer, len, (off_t)((uintptr_t)fx.vm.ram + gpa)), (ssize_t)len);
    fd_close(fd);
}

TEST(test_p09_private_memory_of_a_process_that_dies) {
    static uint8_t source[8192], there[8192];
    struct child child;

    memset(source, 0x44, sizeof(source));
    fixture_init(&fx, VM_PRIVATE);
    child_start(&child);
    assert_ok(propose_child(&child, start_time_of(child.pid)));
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.access,
                      VMIBUS_ACCESS_MEDIATED | VMIBUS_ACCESS_WRITE);
    assert_ok(propose_root(&fx));
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    read_child(&child, DATA_GPA, there, 8);
    ck_assert_mem_eq(there, eight, 8);
    assert_ok(do_write(&fx, DATA_GVA + 77, source, sizeof(source), 0));
    read_child(&child, DATA_GPA + 77, there, sizeof(there));
    ck_assert_mem_eq(there, source, sizeof(source));
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], 0); /* the copy here is another's */
    child_end(&child);
    /* Before the loop has heard of the exit: what is held reaches that address space or none. */
    assert_refused(do_write(&fx, DATA_GVA, eight, 8, 0), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_EXIT);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED), 1);
    fixture_deinit(&fx);
}

/* A pid that was given to another process: the start time tells. */
TEST(test_p09_recycled_pid_is_another_process) {
    struct child child;

    fixture_init(&fx, VM_PRIVATE);
    child_start(&child);
    assert_refused(propose_child(&child, start_time_of(child.pid) - 1), VMIBUS_ERROR_GONE,
                   VMIBUS_REASON_EXIT);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.state,
                      VMIBUS_MEMCTX_STATE_NONE);
    child_end(&child);
    fixture_deinit(&fx);
}

static unsigned opened;
static unsigned dies_at;

/* The process dies, and its pid is recycled, while the layout is being proven. */
static int count_and_die(void) {
    return ++opened >= dies_at ? -ESRCH : 0;
}

static int dying_maps(const struct opener *opener, const struct opener_process *process) {
    return count_and_die() ? -ESRCH : opener_local()->open_maps(opener, process);
}

static int dying_process(const struct opener *opener, const struct opener_process *process) {
    return count_and_die() ? -ESRCH : opener_local()->open_process(opener, process);
}

static int dying_memory(const struct opener *opener, const struct opener_process *process) {
    return count_and_die() ? -ESRCH : opener_local()->open_memory(opener, process);
}

static int dying_pagemap(const struct opener *opener, const struct opener_process *process) {
    return count_and_die() ? -ESRCH : opener_local()->open_pagemap(opener, process);
}

TEST(test_p09_process_dies_during_the_proof, .iterations = 6) {
    fixture_init(&fx, VM_PRIVATE);
    fx.opener.open_maps = dying_maps;
    fx.opener.open_process = dying_process;
    fx.opener.open_memory = dying_memory;
    fx.opener.open_pagemap = dying_pagemap;
    opened = 0;
    dies_at = (unsigned)_i + 1;
    struct vmibus_ack *ack = propose_layout(&fx, true);
    if (_i < 5)
        assert_refused(ack, VMIBUS_ERROR_GONE, VMIBUS_REASON_EXIT);
    else
        assert_ok(ack);
    fixture_deinit(&fx);
}

/* The mapping goes while its process lives. */
TEST(test_p09_unmapped_private_memory) {
    fixture_init(&fx, VM_PRIVATE);
    fixture_ready(&fx);
    munmap(fx.vm.ram + DATA_GPA, MIB);
    struct vmibus_ack *ack = do_write(&fx, DATA_GVA, eight, 8, 0);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    munmap(fx.vm.ram, DATA_GPA);
    assert_refused(do_write(&fx, DATA_GVA, eight, 8, 0), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_BACKING_CHANGED);
    fixture_deinit(&fx);
}

/* --- promise 9: descriptors with a will of their own ------------------------------------------- */

TEST(test_p09_appending_descriptor_does_not_append) {
    fixture_init(&fx, VM_UNSEALED);
    ck_assert_int_eq(fcntl(fx.vm.fd, F_SETFL, O_APPEND), 0);
    fixture_ready(&fx);
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    ck_assert_mem_eq(fx.vm.ram + DATA_GPA, eight, 8);
    ck_assert_int_eq(size_of(fx.vm.fd), (off_t)(RAM_SIZE + ROM_SIZE));
    fixture_deinit(&fx);
}

static bool is_memory(int fd) {
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

TEST(test_p09_what_is_no_memory_file_is_refused) {
    struct vmibus_frame frame;
    struct vmibus_layout_range range = {.len = PAGE};
    int ends[2], directory, fd;
    char path[] = "/var/tmp/vmibus-XXXXXX";

    fixture_init(&fx, VM_SEALED);
    frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    frame.header.tail_length = sizeof(range);
    frame.header.fd_count = 1;
    frame.mem_layout.range_count = 1;
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    assert_refused(submit(&fx.sensor, &frame, &range, &ends[0]), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FDS);
    directory = open("/", O_RDONLY | O_CLOEXEC);
    assert_refused(submit(&fx.sensor, &frame, &range, &directory), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FDS);
    fd = mkostemp(path, O_CLOEXEC);
    unlink(path);
    if (fd >= 0 && !is_memory(fd)) {
        ck_assert_int_eq(ftruncate(fd, PAGE), 0);
        assert_refused(submit(&fx.sensor, &frame, &range, &fd), VMIBUS_ERROR_UNSUPPORTED,
                       VMIBUS_REASON_BAD_FDS);
    }
    fd_close(fd);
    fd_close(directory);
    fd_close(ends[0]);
    fd_close(ends[1]);
    fixture_deinit(&fx);
}

/* --- promise 11 -------------------------------------------------------------------------------- */

/* Everything but a write that succeeds leaves the file's blocks as they are. */
TEST(test_p11_walks_and_refusals_allocate_nothing, .iterations = 2) {
    static uint8_t both[16384];
    struct vmibus_frame frame;
    uint64_t blocks;

    fixture_init(&fx, _i ? VM_UNSEALED : VM_SEALED);
    memset(both, 1, sizeof(both));
    blocks = vm_blocks(&fx.vm);
    fixture_ready(&fx);
    for (unsigned round = 0; round < 2; round++) {
        /* Tables in a hole. */
        frame = write_frame(&fx, DATA_GVA, eight, 8, 0);
        frame.cmd_memwrite.cr3 = DATA_GPA + MIB + round * PAGE;
        assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_TRANSLATION,
                       VMIBUS_REASON_NOT_PRESENT);
        do_write(&fx, EMPTY_GVA, eight, 8, 0);
        do_write(&fx, READ_ONLY_GVA, eight, 8, 0);
        do_write(&fx, RESERVED_GVA, eight, 8, 0);
        do_write(&fx, OUTSIDE_GVA, eight, 8, 0);
        assert_ok(do_write(&fx, DATA_GVA, both, 4096, VMIBUS_MEMWRITE_DRY_RUN));
        assert_ok(do_write(&fx, DATA_GVA + 3, both, 8192, VMIBUS_MEMWRITE_DRY_RUN));
        assert_refused(do_write(&fx, DATA_GVA, both, 8, VMIBUS_MEMWRITE_EXPECT),
                       VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
        assert_refused(do_write(&fx, SCATTER_GVA, both, 8192, VMIBUS_MEMWRITE_EXPECT),
                       VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_TARGET_CHANGED);
        frame = root_frame(&fx);
        frame.mem_root.cr3 = DATA_GPA + MIB;
        submit(&fx.sensor, &frame, NULL, NULL);
        frame.mem_root.cr3 = PGD_GPA;
        frame.mem_root.note = DATA_GPA + 8 * PAGE;
        submit(&fx.sensor, &frame, NULL, NULL);
    }
    ck_assert_uint_eq(vm_blocks(&fx.vm), blocks);
    /* The test can fail: a write does allocate. */
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    ck_assert_uint_eq(vm_blocks(&fx.vm), blocks + PAGE / 512);
    fixture_deinit(&fx);
}

/* A page of tables that the guest gives back after it was read stays given back, once its time is over. */
TEST(test_p11_page_given_back_stays_so) {
    uint64_t table = DATA_GPA + MIB, blocks, end;
    struct vmibus_frame frame;

    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
    memcpy(fx.vm.ram + table, fx.vm.ram + PGD_GPA, PAGE);
    frame = write_frame(&fx, DATA_GVA, eight, 8, 0);
    frame.cmd_memwrite.cr3 = table;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    ck_assert_int_eq(fallocate(fx.vm.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               (off_t)table, PAGE),
                     0);
    blocks = vm_blocks(&fx.vm);
    end = clock_now() + 150 * NS_PER_MS;
    while (clock_now() < end)
        ck_assert_int_ge(loop_dispatch(fx.loop, 10), 0);
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_TRANSLATION,
                   VMIBUS_REASON_NOT_PRESENT);
    ck_assert_uint_eq(vm_blocks(&fx.vm), blocks);
    fixture_deinit(&fx);
}

HARNESS_SUITE("memory: backings", HARNESS_QUICK)
