/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scanning for patterns, and scatter reads: vmibus_guest_scan_…(), vmibus_guest_read_scatter(). */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_guest.h"

#define PAGES 256
#define SIZE (PAGES * FAKE_PAGE)
#define LOW UINT64_C(0x00007f1234560000)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ROOM 4096

static _Alignas(4096) uint8_t memory[SIZE];
static struct fake_guest guest;
static struct vmibus_guest_reader reader;
static struct vmibus_guest_root root;
static uint64_t found[ROOM];
static size_t n_found;

static void set_up(void) {
    memset(memory, 0, sizeof(memory));
    guest = (struct fake_guest){.memory = memory, .len = sizeof(memory), .next_table = FAKE_PAGE};
    reader = fake_guest_reader(&guest);
    root = (struct vmibus_guest_root){.cr3 = fake_guest_page(&guest), .levels = 4};
}

static void put(uint64_t gpa, const char *text) {
    memcpy(memory + gpa, text, strlen(text));
}

static struct vmibus_guest_pattern pattern_of(const char *text) {
    return (struct vmibus_guest_pattern){.octets = (const uint8_t *)text, .len = strlen(text)};
}

/* Runs a scan to its end, some octets and one or more matches at a time. */
static void run(struct vmibus_guest_scan *scan, uint64_t octets, size_t room) {
    unsigned int progress = 0;
    uint64_t position = 0;
    int r;

    n_found = 0;
    do {
        size_t n;

        r = vmibus_guest_scan_step(scan, octets, found + n_found,
                                   room < ROOM - n_found ? room : ROOM - n_found, &n);
        /* What is found lies before where the scan goes on, and not before where it went on. */
        for (size_t i = n_found; i < n_found + n; i++)
            ck_assert(found[i] >= position && (r == 0 || found[i] < vmibus_guest_scan_get_position(scan)));
        position = r == 0 ? position : vmibus_guest_scan_get_position(scan);
        n_found += n;
        ck_assert_uint_ge(vmibus_guest_scan_get_progress(scan), progress);
        progress = vmibus_guest_scan_get_progress(scan);
        ck_assert_uint_le(progress, 10000);
        ck_assert_uint_lt(n_found, ROOM);
    } while (r == VMIBUS_GUEST_UNFINISHED);
    ck_assert_int_eq(r, 0);
    ck_assert_uint_eq(progress, 10000);
    vmibus_guest_scan_free(scan);
}

static void scan_virtual(const struct vmibus_guest_pattern *pattern, uint64_t from, uint64_t last) {
    struct vmibus_guest_scan *scan;

    ck_assert_int_eq(vmibus_guest_scan_new(&scan, &reader, &root, pattern, from, last), 0);
    run(scan, UINT64_C(1) << 20, 64);
}

static void scan_ranges(const struct vmibus_guest_pattern *pattern, uint64_t from, uint64_t last,
                        uint64_t octets, size_t room) {
    static const struct vmibus_ram_range ranges[] = {
        {.gpa = 64 * FAKE_PAGE, .len = 64 * FAKE_PAGE},
        {.gpa = 0, .len = 32 * FAKE_PAGE},
        {.gpa = 128 * FAKE_PAGE, .len = 64 * FAKE_PAGE + 100},
    };
    struct vmibus_guest_scan *scan;

    ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, ranges, COUNT(ranges), pattern, from, last), 0);
    run(scan, octets, room);
}

static void expect(const uint64_t *addresses, size_t n) {
    ck_assert_uint_eq(n_found, n);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(found[i] == addresses[i], "match %zu: %lx, not %lx", i, found[i], addresses[i]);
}

/* --- physical --------------------------------------------------------------------------------- */

TEST(test_physical_matches_span_ranges_that_adjoin_only, .setup = set_up) {
    static const uint64_t expected[] = {0, 31 * FAKE_PAGE, 128 * FAKE_PAGE - 3, 192 * FAKE_PAGE + 94};
    struct vmibus_guest_pattern pattern = pattern_of("needle");

    put(0, "needle");
    put(31 * FAKE_PAGE, "needle");
    put(32 * FAKE_PAGE - 3, "needle"); /* its end is not RAM */
    put(64 * FAKE_PAGE - 3, "needle"); /* its beginning is not */
    put(128 * FAKE_PAGE - 3, "needle");
    put(192 * FAKE_PAGE + 94, "needle"); /* the last octets there are */
    put(192 * FAKE_PAGE + 97, "needle");
    memcpy(memory + 192 * FAKE_PAGE + 94, "needle", 6);
    scan_ranges(&pattern, 0, UINT64_MAX, UINT64_MAX, 64);
    expect(expected, COUNT(expected));
    scan_ranges(&pattern, 0, UINT64_MAX, 1, 1);
    expect(expected, COUNT(expected));
    scan_ranges(&pattern, 1, 128 * FAKE_PAGE + 2, 1, 1);
    expect(expected + 1, 2);
    scan_ranges(&pattern, 1, 128 * FAKE_PAGE + 1, 1, 1);
    expect(expected + 1, 1);
    scan_ranges(&pattern, UINT64_MAX, UINT64_MAX, 1, 1);
    expect(NULL, 0);
}

TEST(test_overlapping_matches_all_come, .setup = set_up) {
    struct vmibus_guest_pattern pattern = pattern_of("aaaa");

    memset(memory + 16 * FAKE_PAGE - 50, 'a', 100);
    for (size_t room = 1; room < 40; room += 13) {
        scan_ranges(&pattern, 0, UINT64_MAX, UINT64_MAX, room);
        ck_assert_uint_eq(n_found, 97);
        for (size_t i = 0; i < n_found; i++)
            ck_assert_uint_eq(found[i], 16 * FAKE_PAGE - 50 + i);
    }
    pattern.align = 8;
    scan_ranges(&pattern, 0, UINT64_MAX, UINT64_MAX, 3);
    ck_assert_uint_eq(n_found, 12);
    for (size_t i = 0; i < n_found; i++)
        ck_assert_uint_eq(found[i] % 8, 0);
}

/* By one look after the other, without any of the code that looks for more at a time. */
static size_t count_simply(const struct vmibus_guest_pattern *pattern, uint64_t *addresses) {
    size_t n = 0;

    for (uint64_t at = 0; at + pattern->len <= 32 * FAKE_PAGE; at++) {
        bool same = at % (pattern->align ? pattern->align : 1) == 0;

        for (size_t i = 0; same && i < pattern->len; i++) {
            uint8_t mask = pattern->mask ? pattern->mask[i] : 0xff;

            same = (memory[at + i] & mask) == (pattern->octets[i] & mask);
        }
        if (same && n < ROOM)
            addresses[n++] = at;
    }
    return n;
}

TEST(test_random_patterns_are_found_as_by_looking_at_each_place, .iterations = 20) {
    static uint64_t expected[ROOM];
    uint8_t octets[40], mask[40];

    srand((unsigned int)_i);
    set_up();
    for (uint64_t at = 0; at < 32 * FAKE_PAGE; at++)
        memory[at] = (uint8_t)(rand() % (_i % 2 ? 3 : 256));
    for (unsigned int round = 0; round < 20; round++) {
        struct vmibus_guest_pattern pattern = {.octets = octets, .align = UINT64_C(1) << rand() % 4};
        size_t from = (size_t)(rand() % (32 * (int)FAKE_PAGE - 40)), n;

        pattern.len = 1 + (size_t)(rand() % 40);
        pattern.mask = rand() % 2 ? mask : NULL;
        for (size_t i = 0; i < pattern.len; i++) {
            octets[i] = memory[from + i];
            mask[i] = (uint8_t)(rand() % 3 ? 0xff : rand());
        }
        mask[0] |= 1;
        n = count_simply(&pattern, expected);
        if (n == ROOM)
            continue;
        scan_ranges(&pattern, 0, 32 * FAKE_PAGE - 1, UINT64_C(1) << rand() % 20, 1 + (size_t)(rand() % 100));
        expect(expected, n);
    }
}

TEST(test_p12_patterns_that_mean_nothing_are_refused, .setup = set_up) {
    static const uint8_t octets[VMIBUS_GUEST_PATTERN_MAX + 1], nothing[4];
    static const struct vmibus_guest_pattern patterns[] = {
        {.octets = octets, .len = 0},
        {.octets = octets, .len = VMIBUS_GUEST_PATTERN_MAX + 1},
        {.octets = octets, .len = SIZE_MAX},
        {.octets = octets, .len = 4, .mask = nothing},
        {.octets = octets, .len = 4, .align = 3},
        {.octets = octets, .len = 4, .align = UINT64_MAX},
    };
    struct vmibus_guest_pattern good = pattern_of("x");
    const struct vmibus_ram_range overlapping[] = {{.gpa = 0, .len = 2}, {.gpa = 1, .len = 2}};
    const struct vmibus_ram_range empty = {.gpa = 0};
    struct vmibus_guest_scan *scan = (void *)&scan;

    for (size_t i = 0; i < COUNT(patterns); i++) {
        ck_assert_msg(vmibus_guest_scan_new(&scan, &reader, &root, &patterns[i], 0, UINT64_MAX) == -EINVAL,
                      "pattern %zu", i);
        ck_assert_ptr_null(scan);
    }
    ck_assert_int_eq(vmibus_guest_scan_new(&scan, &reader, &root, &good, 1, 0), -EINVAL);
    ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, NULL, 0, &good, 0, 1), -EINVAL);
    ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, overlapping, 2, &good, 0, 1), -EINVAL);
    ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, &empty, 1, &good, 0, 1), -EINVAL);
    root.levels = 3;
    ck_assert_int_eq(vmibus_guest_scan_new(&scan, &reader, &root, &good, 0, 1), -EINVAL);
    ck_assert_ptr_null(scan);
}

/* --- virtual ---------------------------------------------------------------------------------- */

TEST(test_virtual_matches_span_pages_that_adjoin_there, .iterations = 2) {
    static const uint64_t gpas[] = {0x3a000, 0x31000, 0x3c000};
    uint64_t expected[] = {LOW + 0xffd, LOW + 0x1ffa, LOW + 0x2ffa};
    struct vmibus_guest_pattern pattern = pattern_of("needle");

    set_up();
    root.levels = 4 + (uint8_t)_i;
    for (size_t i = 0; i < COUNT(gpas); i++)
        fake_guest_map(&guest, root, LOW + i * FAKE_PAGE, gpas[i], 1, 0);
    put(0x3affd, "nee");
    put(0x31000, "dle");
    put(0x31ffa, "needle");
    put(0x3cffa, "needle");
    put(0x3b000, "needle"); /* mapped nowhere */
    put(0x30ffd, "nee");    /* nor does this adjoin */
    scan_virtual(&pattern, 0, UINT64_MAX);
    expect(expected, 3);
    scan_virtual(&pattern, LOW + 0xffe, LOW + 0x2fff);
    expect(expected + 1, 2);
    scan_virtual(&pattern, LOW + 0xffe, LOW + 0x2ffe);
    expect(expected + 1, 1);
}

TEST(test_both_halves_and_the_last_octet_are_scanned, .iterations = 2) {
    uint64_t expected[] = {0x400000, UINT64_C(0x00007fffffffffff), UINT64_C(0xffff800000000000), UINT64_MAX};
    struct vmibus_guest_pattern pattern = pattern_of("x");

    set_up();
    if (_i) {
        root.levels = 5;
        expected[1] = UINT64_C(0x00ffffffffffffff);
        expected[2] = UINT64_C(0xff00000000000000);
    }
    for (size_t i = 0; i < COUNT(expected); i++) {
        uint64_t gpa = (128 + i) * FAKE_PAGE;

        fake_guest_map(&guest, root, expected[i], gpa, 1, 0);
        memory[gpa + expected[i] % FAKE_PAGE] = 'x';
    }
    scan_virtual(&pattern, 0, UINT64_MAX);
    expect(expected, COUNT(expected));
    scan_virtual(&pattern, UINT64_MAX, UINT64_MAX);
    expect(expected + 3, 1);
}

TEST(test_large_pages_and_what_is_no_ram, .setup = set_up) {
    uint64_t gva = UINT64_C(0xffff888000000000), expected[] = {gva, gva + 0x80000, gva + SIZE - 6};
    struct vmibus_guest_pattern pattern = pattern_of("needle");

    put(0, "needle");
    put(0x80000, "needle");
    put(SIZE - 6, "needle");
    fake_guest_map(&guest, root, gva, 0, 2, 0); /* 2 MiB, of which 1 is RAM */
    fake_guest_map(&guest, root, gva + (2 << 20), UINT64_C(1) << 40, 2, 0);
    *fake_guest_entry(&guest, root, gva + (4 << 20), 2) = ENTRY_PRESENT | ENTRY_LARGE | 0x2000; /* reserved */
    *fake_guest_entry(&guest, root, gva + (6 << 20), 2) = UINT64_C(0xfffffffff0000) | ENTRY_TABLE;
    scan_virtual(&pattern, 0, UINT64_MAX);
    expect(expected, 3);
}

TEST(test_what_is_not_mapped_costs_few_reads, .setup = set_up) {
    struct vmibus_guest_pattern pattern = pattern_of("needle");

    fake_guest_map(&guest, root, LOW, 0x80000, 1, 0);
    guest.reads = 0;
    scan_virtual(&pattern, 0, UINT64_MAX);
    ck_assert_uint_le(guest.reads, 16);
}

/* --- hostile tables --------------------------------------------------------------------------- */

TEST(test_p09_steps_over_tables_that_loop_end, .iterations = 2) {
    struct vmibus_guest_pattern pattern = pattern_of("a pattern that no table has");
    struct vmibus_guest_scan *scan;
    size_t n, before;

    set_up();
    root.levels = 4 + (uint8_t)_i;
    for (unsigned int i = 0; i < 512; i++)
        ((uint64_t *)(void *)(memory + root.cr3))[i] = root.cr3 | ENTRY_TABLE;
    ck_assert_int_eq(vmibus_guest_scan_new(&scan, &reader, &root, &pattern, 0, UINT64_MAX), 0);
    for (unsigned int i = 0; i < 100; i++) {
        before = guest.reads;
        ck_assert_int_eq(vmibus_guest_scan_step(scan, 1 << 20, found, ROOM, &n), VMIBUS_GUEST_UNFINISHED);
        ck_assert_uint_eq(n, 0);
        ck_assert_uint_le(guest.reads - before, 1024);
    }
    vmibus_guest_scan_free(scan);
}

/* Nothing is mapped, but each table is there, as one: looking for what is takes more than a step. */
TEST(test_p09_steps_over_empty_tables_go_on, .setup = set_up) {
    struct vmibus_guest_pattern pattern = pattern_of("needle");
    uint64_t gva = UINT64_C(0x3ffffff000), pdpt = fake_guest_page(&guest), pd = fake_guest_page(&guest);
    uint64_t empty = fake_guest_page(&guest);
    struct vmibus_guest_scan *scan;

    fake_guest_map(&guest, root, 0, 0x80000, 1, 0);
    fake_guest_map(&guest, root, gva + (UINT64_C(2) << 39), 0x90000, 1, 0);
    put(0x90000, "needle");
    for (unsigned int i = 0; i < 512; i++) {
        ((uint64_t *)(void *)(memory + pdpt))[i] = pd | ENTRY_TABLE;
        ((uint64_t *)(void *)(memory + pd))[i] = empty | ENTRY_TABLE;
    }
    ((uint64_t *)(void *)(memory + root.cr3))[1] = pdpt | ENTRY_TABLE;
    ck_assert_int_eq(vmibus_guest_scan_new(&scan, &reader, &root, &pattern, 0, UINT64_MAX), 0);
    run(scan, UINT64_C(1) << 24, 1);
    ck_assert_uint_eq(n_found, 1);
    ck_assert_uint_eq(found[0], gva + (UINT64_C(2) << 39));
}

TEST(test_p09_memory_that_nearly_matches_is_work, .setup = set_up) {
    static uint8_t octets[VMIBUS_GUEST_PATTERN_MAX];
    struct vmibus_guest_pattern pattern = {.octets = octets, .len = sizeof(octets)};
    static const struct vmibus_ram_range range = {.len = SIZE};
    struct vmibus_guest_scan *scan;
    unsigned int steps = 0;
    size_t n;

    memset(memory, 'a', sizeof(memory));
    memset(octets, 'a', sizeof(octets));
    octets[2048] = 'b';
    pattern.mask = NULL;
    memory[SIZE - 1] = 'b';
    /* The two octets that are looked for stand wherever the one that does not stand is not among them. */
    ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, &range, 1, &pattern, 0, UINT64_MAX), 0);
    while (vmibus_guest_scan_step(scan, 1 << 17, found, ROOM, &n) == VMIBUS_GUEST_UNFINISHED)
        steps++;
    ck_assert_uint_ge(steps, 7);
    vmibus_guest_scan_free(scan);
}

TEST(test_errors_are_passed_on, .setup = set_up) {
    struct vmibus_guest_pattern pattern = pattern_of("needle");
    struct vmibus_guest_scan *scan;
    size_t n;

    fake_guest_map(&guest, root, LOW, 0x80000, 1, 0);
    for (int at = 1; at <= 5; at++) {
        guest.reads = 0;
        guest.fail_at_read = at;
        guest.failure = -ESTALE;
        ck_assert_int_eq(vmibus_guest_scan_new(&scan, &reader, &root, &pattern, 0, UINT64_MAX), 0);
        ck_assert_int_eq(vmibus_guest_scan_step(scan, 1 << 20, found, ROOM, &n), -ESTALE);
        vmibus_guest_scan_free(scan);
    }
}

/* --- in RAM that is mapped -------------------------------------------------------------------- */

static blkcnt_t blocks_of(int fd) {
    struct stat status;

    ck_assert_int_eq(fstat(fd, &status), 0);
    return status.st_blocks;
}

TEST(test_p11_scanning_mapped_ram_finds_all_and_fills_no_hole, .iterations = 2) {
    static const off_t places[] = {0, (5 << 20) - 3, (9 << 20) + 17, (64 << 20) - 6};
    const struct vmibus_ram_range range = {.len = 64 << 20};
    struct vmibus_guest_pattern pattern = pattern_of("needle");
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct vmibus_guest_scan *scan;
    struct vmibus_guest_ram *ram;
    blkcnt_t before;
    static char data[1 << 20];

    ck_assert_int_eq(ftruncate(fd, (off_t)range.len), 0);
    if (_i)
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    memset(data, '.', sizeof(data));
    ck_assert_int_eq(pwrite(fd, data, sizeof(data), 9 << 20), sizeof(data));
    for (size_t i = 0; i < COUNT(places); i++)
        ck_assert_int_eq(pwrite(fd, "needle", 6, places[i]), 6);
    before = blocks_of(fd);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, &range, 1, &fd, 1), 0);
    reader = vmibus_guest_ram_reader(ram);
    for (size_t octets = 1; octets < (1 << 30); octets = octets << 12) {
        ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, NULL, 0, &pattern, 0, UINT64_MAX), 0);
        run(scan, octets, 1);
        ck_assert_uint_eq(n_found, COUNT(places));
        for (size_t i = 0; i < n_found; i++)
            ck_assert_uint_eq(found[i], (uint64_t)places[i]);
    }
    /* What begins in a hole, and what ends in one. */
    pattern = (struct vmibus_guest_pattern){.octets = (const uint8_t *)"\0\0..\0.", .len = 3};
    ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, NULL, 0, &pattern, 0, UINT64_MAX), 0);
    run(scan, 1 << 20, 7);
    ck_assert_uint_eq(n_found, 1);
    ck_assert_uint_eq(found[0], (9 << 20) - 2);
    pattern = (struct vmibus_guest_pattern){.octets = (const uint8_t *)"..\0\0\0", .len = 5};
    ck_assert_int_eq(vmibus_guest_scan_new_physical(&scan, &reader, NULL, 0, &pattern, 0, UINT64_MAX), 0);
    run(scan, 1 << 20, 7);
    ck_assert_uint_eq(n_found, 1);
    ck_assert_uint_eq(found[0], (10 << 20) - 2);
    ck_assert_int_eq(blocks_of(fd), before);
    vmibus_guest_ram_free(ram);
    close(fd);
}

/* --- scatter ---------------------------------------------------------------------------------- */

TEST(test_one_scattered_read_that_fails_does_not_stop_the_others, .setup = set_up) {
    char buffers[4][8] = {};
    struct vmibus_guest_scatter reads[] = {
        {.gva = LOW, .buffer = buffers[0], .len = 6},
        {.gva = LOW + FAKE_PAGE - 3, .buffer = buffers[1], .len = 6},
        {.gva = UINT64_C(1) << 60, .buffer = buffers[2], .len = 1},
        {.gva = LOW + 2, .buffer = buffers[3], .len = 4},
    };

    fake_guest_map(&guest, root, LOW, 0x80000, 1, 0);
    put(0x80000, "needle");
    put(0x80ffd, "end");
    ck_assert_uint_eq(vmibus_guest_read_scatter(&reader, &root, reads, COUNT(reads)), 2);
    ck_assert_int_eq(reads[0].result, 0);
    ck_assert_uint_eq(reads[0].done, 6);
    ck_assert_str_eq(buffers[0], "needle");
    ck_assert_int_eq(reads[1].result, VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_uint_eq(reads[1].done, 3);
    ck_assert_mem_eq(buffers[1], "end", 3);
    ck_assert_int_eq(reads[2].result, VMIBUS_GUEST_NON_CANONICAL);
    ck_assert_uint_eq(reads[2].done, 0);
    ck_assert_int_eq(reads[3].result, 0);
    ck_assert_str_eq(buffers[3], "edle");
    ck_assert_uint_eq(vmibus_guest_read_scatter(&reader, &root, reads, 0), 0);
}

HARNESS_SUITE("scan", HARNESS_QUICK)
