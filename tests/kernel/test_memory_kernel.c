/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the memory authority relies on in the host's kernel, and what it must work around.  A failure
 * here means that a kernel behaves otherwise than the authority was built for, not that it is broken.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "util/fds.h"

#define PAGE 4096
#define ROUNDS 300000u

static int memfd_of(off_t size, unsigned seals) {
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    if (seals)
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static blkcnt_t blocks_of(int fd) {
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_blocks;
}

static off_t size_of(int fd) {
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_size;
}

/* --- tearing ----------------------------------------------------------------------------------- */

struct tearing {
    const _Atomic uint64_t *word;
    _Atomic bool stop;
    uint64_t torn;
    uint64_t changes;
};

/* Both halves of what is written are equal, so a mixture shows. */
static void *watch(void *data) {
    struct tearing *tearing = data;
    uint64_t last = 0, value;

    while (!atomic_load_explicit(&tearing->stop, memory_order_relaxed)) {
        value = atomic_load_explicit(tearing->word, memory_order_relaxed);
        tearing->torn += (uint32_t)value != (uint32_t)(value >> 32);
        tearing->changes += value != last;
        last = value;
    }
    return NULL;
}

static void write_words(int fd, off_t offset) {
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        uint64_t value = (uint64_t)i * 0x9e3779b1u & UINT32_MAX;

        value |= value << 32;
        if (pwrite(fd, &value, sizeof(value), offset) != sizeof(value))
            ck_abort_msg("pwrite: %s", strerror(errno));
    }
}

/* Aligned words were never seen torn; no manual promises it, so this keeps looking. */
TEST(test_kernel_aligned_pwrite_is_not_seen_torn, .iterations = 2) {
    int memfd = memfd_of(PAGE, 0), fd = memfd;
    struct tearing tearing = {};
    off_t offset = 64;
    pthread_t thread;
    uint8_t *map;

    map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    memset(map, 0, PAGE);
    tearing.word = (const _Atomic uint64_t *)(void *)(map + offset);
    if (_i) { /* through the address space */
        fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
        offset += (off_t)(uintptr_t)map;
    }
    ck_assert_int_eq(pthread_create(&thread, NULL, watch, &tearing), 0);
    write_words(fd, offset);
    atomic_store(&tearing.stop, true);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(tearing.torn, 0);
    if (fd != memfd)
        fd_close(fd);
    munmap(map, PAGE);
    fd_close(memfd);
}

/* --- sizes and holes --------------------------------------------------------------------------- */

TEST(test_kernel_pwrite_past_a_truncated_end_grows) {
    int fd = memfd_of(4 * PAGE, 0);

    ck_assert_int_eq(ftruncate(fd, PAGE), 0);
    ck_assert_int_eq(pwrite(fd, "x", 1, 3 * PAGE), 1);
    ck_assert_int_eq(size_of(fd), 3 * PAGE + 1);
    fd_close(fd);
}

TEST(test_kernel_shrink_seal_holds) {
    int fd = memfd_of(4 * PAGE, F_SEAL_SHRINK);

    ck_assert_int_eq(ftruncate(fd, PAGE), -1);
    ck_assert_int_eq(errno, EPERM);
    ck_assert_int_eq(pwrite(fd, "x", 1, 0), 1);
    /* It does not keep pages from being given back. */
    ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
    ck_assert_int_eq(blocks_of(fd), 0);
    fd_close(fd);
}

TEST(test_kernel_reading_holes) {
    int fd = memfd_of(64 * PAGE, 0);
    volatile const uint8_t *map;
    char octet;

    ck_assert_int_eq(pread(fd, &octet, 1, 8 * PAGE), 1);
    ck_assert_int_eq(blocks_of(fd), 0);
    ck_assert_int_eq(lseek(fd, 0, SEEK_DATA), -1);
    ck_assert_int_eq(errno, ENXIO);
    ck_assert_int_eq(blocks_of(fd), 0);
    map = mmap(NULL, 64 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_int_eq(map[8 * PAGE], 0);
    ck_assert_int_gt(blocks_of(fd), 0); /* why holes are never loaded */
    munmap((void *)(uintptr_t)map, 64 * PAGE);
    fd_close(fd);
}

/* --- modes ------------------------------------------------------------------------------------- */

static int reopen_in_foreign_process(int fd) {
    pid_t child = fork();
    int status;

    if (child == 0) {
        char path[64];

        if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
            _exit(99);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        _exit(open(path, O_RDWR) >= 0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status);
}

TEST(test_kernel_mode_decides_reopening) {
    int fd = memfd_of(PAGE, F_SEAL_SEAL), readable;
    char path[64];

    if (geteuid() != 0)
        test_skip("only root can become another uid");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    readable = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(reopen_in_foreign_process(readable), 1);
    ck_assert_int_eq(fchmod(fd, 0600), 0); /* no seal keeps from it */
    ck_assert_int_eq(reopen_in_foreign_process(readable), 0);
    ck_assert_int_eq(fchmod(fd, 0400), 0);
    ck_assert_int_eq(reopen_in_foreign_process(readable), 0);
    fd_close(readable);
    fd_close(fd);
}

/* --- the address space of a process ------------------------------------------------------------ */

TEST(test_kernel_mem_descriptor_dies_with_its_process) {
    uint8_t *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ends[2], fd;
    char path[64], octet = 'x';
    pid_t child;

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    child = fork();
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &octet, 1) == 1);
    }
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)child);
    fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, &octet, 1, (off_t)(uintptr_t)map), 1);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert_int_eq(pwrite(fd, &octet, 1, (off_t)(uintptr_t)map), 0);
    ck_assert_int_eq(pread(fd, &octet, 1, (off_t)(uintptr_t)map), 0);
    fd_close(fd);
    fd_close(ends[0]);
    fd_close(ends[1]);
    munmap(map, PAGE);
}

HARNESS_SUITE("kernel: memory", HARNESS_QUICK)
