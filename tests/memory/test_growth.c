/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading does not grow the host: the RAM of another process, most of it never touched, is swept by every reader,
 * and neither its file nor the process has more afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "memory/buffers.h"
#include "memory/fixture.h"
#include "memory/reader.h"
#include "memory/state.h"
#include "util/fds.h"

#define SIZE (32 * MIB)
#define HUGE_PAGE (2 * MIB)

enum backing {
    MEMFD_SHARED,
    MEMFD_SEALED,
    MEMFD_PRIVATE,
    ANONYMOUS,
    SHM_FILE,
    HUGE_SHARED,
    HUGE_PRIVATE,
    N_BACKINGS,
};

static const char *const names[] = {"memfd", "sealed memfd", "memfd, private", "anonymous", "/dev/shm", "huge", "huge, private"};

/* What a sweep must not change. */
struct size {
    uint64_t blocks;        /* of the file */
    uint64_t resident, swapped;
    uint64_t tables;        /* page tables of the process */
};

static struct fixture fx;
static enum backing backing;
static int file = -1;
static pid_t child;
static uint8_t *ram;        /* where the child has it */
static uint8_t *octets;     /* of buffer 1 */
static uint8_t sweep[MIB];

static bool is_huge(void) {
    return backing == HUGE_SHARED || backing == HUGE_PRIVATE;
}

static bool is_private(void) {
    return backing == MEMFD_PRIVATE || backing == ANONYMOUS || backing == HUGE_PRIVATE;
}

/* --- the process ---------------------------------------------------------------------------------- */

/* The process touches a page here and there; one the file has before, and of that the process has its own or not. */
static uint8_t expected(uint64_t gpa) {
    uint64_t step = is_huge() ? HUGE_PAGE : PAGE;

    if (gpa / step == 1 || (gpa >= 24 * MIB && gpa < 24 * MIB + step))
        return 0x5a;
    if (backing != ANONYMOUS && gpa >= 8 * MIB && gpa < 8 * MIB + step)
        return 0x33;
    return 0;
}

static bool make_file(void) {
    uint8_t page[PAGE];
    uint8_t *map;

    if (backing == ANONYMOUS)
        return true;
    if (backing == SHM_FILE)
        file = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    else
        file = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING | (is_huge() ? MFD_HUGETLB : 0u));
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(ftruncate(file, (off_t)SIZE), 0);
    if (backing == MEMFD_SEALED)
        ck_assert_int_eq(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    memset(page, 0x33, sizeof(page));
    if (!is_huge()) {
        ck_assert_int_eq(pwrite_really(file, page, sizeof(page), (off_t)(8 * MIB)), PAGE);
        return true;
    }
    map = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)(8 * MIB));
    if (map == MAP_FAILED)
        return false;
    memset(map, 0x33, HUGE_PAGE);
    munmap(map, HUGE_PAGE);
    return true;
}

static void live(int to_parent) {
    int flags = (is_private() ? MAP_PRIVATE : MAP_SHARED) | (backing == ANONYMOUS ? MAP_ANONYMOUS : 0) | MAP_NORESERVE;
    uint8_t *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, file, 0);
    uint64_t step = is_huge() ? HUGE_PAGE : PAGE;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (map != MAP_FAILED) {
        (void)madvise(map, SIZE, MADV_NOHUGEPAGE);
        memset(map + step, 0x5a, step);
        memset(map + 24 * MIB, 0x5a, step);
    }
    if (write(to_parent, &map, sizeof(map)) < 0)
        _exit(1);
    for (;;)
        pause();
}

static void start_process(void) {
    int ends[2];

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        live(ends[1]);
    ck_assert_int_eq(read(ends[0], &ram, sizeof(ram)), sizeof(ram));
    ck_assert_ptr_ne(ram, MAP_FAILED);
    close(ends[0]);
    close(ends[1]);
}

/* The number behind a word at the beginning of a line. */
static uint64_t value_in(const char *path, const char *word) {
    char line[256];
    uint64_t value = UINT64_MAX;
    FILE *text = fopen(path, "re");

    ck_assert_ptr_nonnull(text);
    while (value == UINT64_MAX && fgets(line, sizeof(line), text))
        if (strncmp(line, word, strlen(word)) == 0)
            value = strtoull(line + strlen(word), NULL, 10);
    fclose(text);
    return value;
}

static struct size measure(void) {
    struct size size = {};
    struct stat st = {};
    char path[64];

    if (file >= 0)
        ck_assert_int_eq(fstat(file, &st), 0);
    size.blocks = (uint64_t)st.st_blocks;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)child);
    size.resident = value_in(path, "Rss:");
    size.swapped = value_in(path, "Swap:");
    snprintf(path, sizeof(path), "/proc/%d/status", (int)child);
    size.tables = value_in(path, "VmPTE:");
    return size;
}

static void assert_not_grown(const struct size *before, const char *reader) {
    const struct size after = measure();

    ck_assert_msg(after.blocks <= before->blocks, "%s: %s made blocks: %" PRIu64 " were %" PRIu64, names[backing], reader,
                  after.blocks, before->blocks);
    ck_assert_msg(after.resident + after.swapped <= before->resident + before->swapped,
                  "%s: %s made the process grow: %" PRIu64 " kB were %" PRIu64, names[backing], reader,
                  after.resident + after.swapped, before->resident + before->swapped);
    ck_assert_msg(after.tables <= before->tables, "%s: %s made page tables: %" PRIu64 " kB were %" PRIu64, names[backing],
                  reader, after.tables, before->tables);
}

static void assert_octets(const uint8_t *found, uint64_t gpa, size_t len, const char *reader) {
    for (size_t i = 0; i < len; i += PAGE)
        ck_assert_msg(found[i] == expected(gpa + i), "%s: %s read %02x at 0x%" PRIx64 ", not %02x", names[backing], reader,
                      found[i], gpa + i, expected(gpa + i));
}

/* --- the readers ---------------------------------------------------------------------------------- */

static void read_mediated(uint64_t portion, const char *reader) {
    for (uint64_t gpa = 0; gpa < SIZE; gpa += portion) {
        assert_ok(buffer_read(&fx, &fx.control, gpa, portion, 1, VMIBUS_MEMREAD_PHYSICAL));
        assert_octets(octets, gpa, portion, reader);
    }
}

static void by_small_reads(void) {
    read_mediated(PAGE, "MEM_READ of a page");
}

static void by_long_reads(void) {
    read_mediated(MIB, "MEM_READ of 1 MiB");
}

/* As translations and canaries are read: eight octets at a time, by loads where these are allowed. */
static void by_walks(void) {
    struct memory_reader context;
    struct vmibus_guest_reader reader =
        memory_reader_init(&context, authority_slot(fx.authority, fx.slot)->current, true, 1);
    uint64_t entry;

    for (uint64_t gpa = 0; gpa < SIZE; gpa += PAGE) {
        ck_assert_int_eq(reader.read(reader.context, gpa, &entry, sizeof(entry)), 0);
        ck_assert_uint_eq(entry & 0xff, expected(gpa));
    }
}

/* The view that a sensor, or a control with descriptors, has of the RAM. */
static struct vmibus_guest_ram *attached_ram(void) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_ATTACH);
    const struct vmibus_ack *ack = submit(&fx.sensor, &frame, NULL, NULL);
    const struct journal *journal = &fx.sensor.journal;
    struct vmibus_guest_ram *view;

    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack->reason, is_private() ? VMIBUS_REASON_PRIVATE_RAM : VMIBUS_REASON_NONE);
    ck_assert_uint_eq(journal->n_fds, is_private() ? 2 : 1);
    ck_assert_int_eq(vmibus_guest_ram_new_unmapped(&view, journal->tails[journal->n - 1], ack->count, journal->fds, 1,
                                                   is_private() ? journal->fds[1] : -1),
                     0);
    ck_assert_int_eq(fcntl(journal->fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
    return view;
}

static void by_descriptors(void) {
    struct vmibus_guest_ram *view = attached_ram();

    for (uint64_t gpa = 0; gpa < SIZE; gpa += MIB) {
        ck_assert_int_eq(vmibus_guest_ram_read(view, gpa, sweep, MIB), 0);
        for (size_t i = 0; i < MIB; i += PAGE)
            /* Of a file that a process has privately, the process's own pages only. */
            ck_assert(sweep[i] == expected(gpa + i) || (is_private() && expected(gpa + i) == 0x33));
    }
    vmibus_guest_ram_free(view);
}

/* The root finder sweeps what holds data, and finds no kernel. */
static void by_search(void) {
    struct vmibus_guest_ram *view = attached_ram();
    struct vmibus_guest_kernel kernel;
    uint64_t gpa = 0, len, sum = 0;

    ck_assert_int_eq(vmibus_guest_find_linux(view, NULL, &kernel), VMIBUS_GUEST_NOT_FOUND);
    for (; vmibus_guest_ram_next_data(view, &gpa, &len) == 0; gpa += len)
        sum += len;
    ck_assert_uint_ge(sum, 2 * PAGE);
    /* hugetlbfs knows no holes: all is data, and reading it makes nothing. */
    ck_assert_uint_lt(sum, backing == HUGE_SHARED ? SIZE + 1 : SIZE / 2);
    vmibus_guest_ram_free(view);
}

/* --- the test ------------------------------------------------------------------------------------- */

static void propose(void) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    const struct vmibus_layout_range range = {.len = SIZE, .location = (uintptr_t)ram, .object = 0xffff};

    frame.header.tail_length = sizeof(range);
    frame.mem_layout.range_count = 1;
    frame.mem_layout.pid = (uint32_t)child;
    frame.mem_layout.start_time = start_time_of(child);
    assert_ok(submit(&fx.sensor, &frame, &range, NULL));
}

static bool has_huge_pages(void) {
    return value_in("/proc/meminfo", "HugePages_Free:") >= SIZE / HUGE_PAGE &&
           value_in("/proc/meminfo", "Hugepagesize:") == HUGE_PAGE / 1024;
}

TEST(test_p11_no_reader_grows_the_host, .iterations = N_BACKINGS) {
    static void (*const readers[])(void) = {by_small_reads, by_long_reads, by_walks, by_descriptors, by_search};
    static const char *const called[] = {"small reads", "long reads", "walks", "descriptors", "the search"};
    struct size before;

    backing = (enum backing)_i;
    if (is_huge() && !has_huge_pages())
        test_skip("no free huge pages of 2 MiB");
    fixture_init(&fx, VM_SEALED);
    if (!make_file())
        test_skip("no huge page to be had");
    start_process();
    propose();
    assert_ok(buffer_allocate(&fx, &fx.control, MIB));
    octets = mmap(NULL, MIB, PROT_READ, MAP_SHARED, fx.control.journal.fds[0], 0);
    ck_assert_ptr_ne(octets, MAP_FAILED);
    before = measure();
    for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
        readers[i]();
        assert_not_grown(&before, called[i]);
    }
    munmap(octets, MIB);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    fixture_deinit(&fx);
    fd_close(file);
}

HARNESS_SUITE("growth", HARNESS_QUICK)
