/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* RAM over ranges and descriptors: vmibus_guest_ram_…(). */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/guest.h>

#define PAGE 4096
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int make_file(off_t len) {
    int fd = memfd_create("ram", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, len), 0);
    return fd;
}

static void put(int fd, off_t offset, const void *octets, size_t len) {
    ck_assert_int_eq(pwrite(fd, octets, len, offset), (ssize_t)len);
}

static void put_page(int fd, off_t offset, char octet) {
    char page[PAGE];

    memset(page, octet, sizeof(page));
    put(fd, offset, page, sizeof(page));
}

static struct vmibus_guest_ram *make_ram(const struct vmibus_ram_range *ranges, size_t n_ranges,
                                         const int *fds, size_t n_fds) {
    struct vmibus_guest_ram *ram;

    ck_assert_int_eq(vmibus_guest_ram_new(&ram, ranges, n_ranges, fds, n_fds), 0);
    return ram;
}

static blkcnt_t blocks_of(int fd) {
    struct stat status;

    ck_assert_int_eq(fstat(fd, &status), 0);
    return status.st_blocks;
}

/* --- reading ---------------------------------------------------------------------------------- */

TEST(test_read_finds_its_range_and_file) {
    /* Out of order; the second and third adjoin in the guest and lie in different files. */
    const struct vmibus_ram_range ranges[] = {
        {.gpa = UINT64_C(0x100000000), .len = 2 * PAGE, .offset = PAGE, .object = 0},
        {.gpa = 0, .len = PAGE, .offset = 0, .object = 0},
        {.gpa = PAGE, .len = 3 * PAGE, .offset = PAGE, .object = 1},
    };
    int fds[] = {make_file(3 * PAGE), make_file(4 * PAGE)};
    struct vmibus_guest_ram *ram;
    char buffer[16];

    put(fds[0], PAGE - 4, "abcd", 4);
    put(fds[1], PAGE, "efgh", 4);
    put(fds[0], 3 * PAGE - 4, "ijkl", 4);
    ram = make_ram(ranges, COUNT(ranges), fds, COUNT(fds));
    ck_assert_int_eq(vmibus_guest_ram_read(ram, PAGE - 4, buffer, 8), 0);
    ck_assert_mem_eq(buffer, "abcdefgh", 8);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, UINT64_C(0x100002000) - 4, buffer, 4), 0);
    ck_assert_mem_eq(buffer, "ijkl", 4);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, PAGE, buffer, 4), 0);
    ck_assert_mem_eq(buffer, "efgh", 4);
    vmibus_guest_ram_free(ram);
    close(fds[0]);
    close(fds[1]);
}

TEST(test_read_outside_of_ranges_is_told) {
    const struct vmibus_ram_range ranges[] = {
        {.gpa = 4 * PAGE, .len = PAGE, .offset = 0},
        {.gpa = 8 * PAGE, .len = PAGE, .offset = PAGE},
    };
    int fd = make_file(4 * PAGE);
    struct vmibus_guest_ram *ram = make_ram(ranges, COUNT(ranges), &fd, 1);
    static const struct {
        uint64_t gpa;
        size_t len;
        int result;
    } cases[] = {
        {0, 1, VMIBUS_GUEST_OUTSIDE_RAM},
        {4 * PAGE - 1, 2, VMIBUS_GUEST_OUTSIDE_RAM},
        {4 * PAGE, PAGE, 0},
        {5 * PAGE - 1, 2, VMIBUS_GUEST_OUTSIDE_RAM},
        {6 * PAGE, 1, VMIBUS_GUEST_OUTSIDE_RAM},
        {8 * PAGE, PAGE, 0},
        {9 * PAGE - 1, 1, 0},
        {9 * PAGE, 1, VMIBUS_GUEST_OUTSIDE_RAM},
        {UINT64_MAX, 1, VMIBUS_GUEST_OUTSIDE_RAM},
        {UINT64_MAX - 1, 4, VMIBUS_GUEST_OUTSIDE_RAM},
        {UINT64_C(1) << 63, 4, VMIBUS_GUEST_OUTSIDE_RAM},
        {9 * PAGE, 0, 0},
    };
    char buffer[PAGE];

    for (size_t i = 0; i < COUNT(cases); i++)
        ck_assert_msg(vmibus_guest_ram_read(ram, cases[i].gpa, buffer, cases[i].len) ==
                          cases[i].result,
                      "case %zu", i);
    vmibus_guest_ram_free(ram);
    close(fd);
}

TEST(test_view_outlives_the_descriptors_it_was_made_from) {
    const struct vmibus_ram_range range = {.len = PAGE};
    int fd = make_file(PAGE);
    struct vmibus_guest_reader reader;
    struct vmibus_guest_ram *ram;
    char octet;

    put(fd, 7, "x", 1);
    ram = make_ram(&range, 1, &fd, 1);
    close(fd);
    reader = vmibus_guest_ram_reader(ram);
    ck_assert_int_eq(reader.read(reader.context, 7, &octet, 1), 0);
    ck_assert_int_eq(octet, 'x');
    ck_assert_ptr_null(vmibus_guest_ram_free(ram));
    ck_assert_ptr_null(vmibus_guest_ram_free(NULL));
}

TEST(test_p11_reading_holes_does_not_grow_the_host) {
    const struct vmibus_ram_range range = {.len = 1024 * PAGE};
    int fd = make_file(1024 * PAGE);
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_kernel kernel;
    static char buffer[64 * PAGE];
    blkcnt_t before;
    uint64_t gpa = 0, len;

    put(fd, 500 * PAGE + 10, "x", 1);
    before = blocks_of(fd);
    ram = make_ram(&range, 1, &fd, 1);
    for (uint64_t at = 0; at < 1024 * PAGE; at += sizeof(buffer)) {
        ck_assert_int_eq(vmibus_guest_ram_read(ram, at, buffer, sizeof(buffer)), 0);
        for (size_t i = 0; i < sizeof(buffer); i++)
            ck_assert_int_eq(buffer[i], at + i == 500 * PAGE + 10 ? 'x' : 0);
    }
    while (vmibus_guest_ram_next_data(ram, &gpa, &len) == 0)
        gpa += len;
    ck_assert_int_eq(vmibus_guest_find_linux(ram, NULL, &kernel), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(blocks_of(fd), before);
    vmibus_guest_ram_free(ram);
    close(fd);
}

TEST(test_p09_truncation_under_the_reader_is_told) {
    const struct vmibus_ram_range range = {.len = 16 * PAGE};
    int fd = make_file(16 * PAGE);
    struct vmibus_guest_ram *ram = make_ram(&range, 1, &fd, 1);
    static char buffer[16 * PAGE];
    uint64_t gpa = 0, len;

    for (int i = 0; i < 16; i++)
        put_page(fd, i * PAGE, 'x');
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 0, buffer, sizeof(buffer)), 0);
    ck_assert_int_eq(ftruncate(fd, 8 * PAGE + 100), 0);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 0, buffer, sizeof(buffer)), VMIBUS_GUEST_TRUNCATED);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 8 * PAGE, buffer, 100), 0);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 8 * PAGE, buffer, 101), VMIBUS_GUEST_TRUNCATED);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 15 * PAGE, buffer, 1), VMIBUS_GUEST_TRUNCATED);
    ck_assert_int_eq(vmibus_guest_ram_next_data(ram, &gpa, &len), 0);
    ck_assert_uint_eq(gpa, 0);
    ck_assert_uint_le(len, 9 * PAGE);
    gpa = 12 * PAGE;
    ck_assert_int_eq(vmibus_guest_ram_next_data(ram, &gpa, &len), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    gpa = 0;
    ck_assert_int_eq(vmibus_guest_ram_next_data(ram, &gpa, &len), VMIBUS_GUEST_NOT_FOUND);
    vmibus_guest_ram_free(ram);
    close(fd);
}

/* --- what is refused -------------------------------------------------------------------------- */

TEST(test_p12_unsound_layouts_are_refused) {
    static const struct vmibus_ram_range layouts[][2] = {
        {{.gpa = 0, .len = 2 * PAGE}, {.gpa = PAGE, .len = PAGE}},
        {{.gpa = PAGE, .len = PAGE}, {.gpa = 0, .len = PAGE + 1}},
        {{.gpa = 0, .len = PAGE}, {.gpa = 0, .len = PAGE}},
        {{.gpa = 0, .len = PAGE}, {.gpa = PAGE, .len = 0}},
        {{.gpa = 0, .len = PAGE}, {.gpa = PAGE, .len = PAGE, .object = 1}},
        {{.gpa = 0, .len = PAGE}, {.gpa = PAGE, .len = PAGE, .object = UINT16_MAX}},
        {{.gpa = 0, .len = PAGE}, {.gpa = UINT64_MAX - PAGE + 1, .len = 2 * PAGE}},
        {{.gpa = 0, .len = PAGE}, {.gpa = PAGE, .len = UINT64_MAX}},
        {{.gpa = 0, .len = PAGE}, {.gpa = UINT64_C(1) << 52, .len = PAGE}},
        {{.gpa = 0, .len = PAGE}, {.gpa = (UINT64_C(1) << 52) - PAGE, .len = PAGE + 1}},
        {{.gpa = 0, .len = PAGE}, {.gpa = PAGE, .len = PAGE, .offset = UINT64_MAX}},
        {{.gpa = 0, .len = PAGE}, {.gpa = PAGE, .len = PAGE, .offset = INT64_MAX}},
    };
    struct vmibus_guest_ram *ram = (void *)&ram;
    int fd = make_file(4 * PAGE);

    for (size_t i = 0; i < COUNT(layouts); i++) {
        ck_assert_msg(vmibus_guest_ram_new(&ram, layouts[i], 2, &fd, 1) == -EINVAL, "layout %zu",
                      i);
        ck_assert_ptr_null(ram);
    }
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, layouts[0], 0, &fd, 1), -EINVAL);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, layouts[0], 1, &fd, 0), -EINVAL);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, layouts[0], SIZE_MAX / 8, &fd, 1), -EINVAL);
    close(fd);
}

TEST(test_last_page_of_the_address_space_is_allowed) {
    const struct vmibus_ram_range range = {.gpa = (UINT64_C(1) << 52) - PAGE, .len = PAGE};
    int fd = make_file(PAGE);
    struct vmibus_guest_ram *ram = make_ram(&range, 1, &fd, 1);
    char octet;

    ck_assert_int_eq(vmibus_guest_ram_read(ram, (UINT64_C(1) << 52) - 1, &octet, 1), 0);
    vmibus_guest_ram_free(ram);
    close(fd);
}

TEST(test_bad_descriptor_is_refused_and_none_leaks) {
    const struct vmibus_ram_range range = {.len = PAGE};
    struct vmibus_guest_ram *ram;
    int fds[] = {make_file(PAGE), -1};

    ck_assert_int_eq(vmibus_guest_ram_new(&ram, &range, 1, fds, 2), -EBADF);
    ck_assert_ptr_null(ram);
    close(fds[0]);
}

/* --- data ------------------------------------------------------------------------------------- */

TEST(test_next_data_clamps_to_the_ranges) {
    /* In the file: data in pages 1, 2, 3, 6 and 9. */
    static const int pages[] = {1, 2, 3, 6, 9};
    const struct vmibus_ram_range ranges[] = {
        {.gpa = 0x100000, .len = 3 * PAGE, .offset = 0},
        {.gpa = 0x200000, .len = 5 * PAGE, .offset = 3 * PAGE},
        {.gpa = 0x300000, .len = PAGE, .offset = 8 * PAGE},
    };
    static const struct {
        uint64_t from, gpa, len; /* len 0: none */
    } cases[] = {
        {0, 0x101000, 2 * PAGE},        {0x101800, 0x101800, 2 * PAGE - 0x800},
        {0x103000, 0x200000, PAGE},     {0x201000, 0x203000, PAGE},
        {0x203001, 0x203001, PAGE - 1}, {0x204000, 0, 0},
        {0x300000, 0, 0},               {UINT64_MAX, 0, 0},
    };
    int fd = make_file(16 * PAGE);
    struct vmibus_guest_ram *ram = make_ram(ranges, COUNT(ranges), &fd, 1);

    for (size_t i = 0; i < COUNT(pages); i++)
        put_page(fd, pages[i] * PAGE, 'x');
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint64_t gpa = cases[i].from, len = 0;
        int r = vmibus_guest_ram_next_data(ram, &gpa, &len);

        ck_assert_msg(r == (cases[i].len ? 0 : VMIBUS_GUEST_NOT_FOUND), "case %zu", i);
        if (cases[i].len == 0)
            continue;
        ck_assert_msg(gpa == cases[i].gpa && len == cases[i].len, "case %zu", i);
    }
    vmibus_guest_ram_free(ram);
    close(fd);
}

TEST(test_all_is_data_where_no_holes_are_known) {
    /* This file does not know SEEK_DATA. */
    int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    static char page[PAGE];
    const struct vmibus_ram_range range = {.len = PAGE, .offset = (uintptr_t)page};
    struct vmibus_guest_ram *ram = make_ram(&range, 1, &fd, 1);
    uint64_t gpa = 16, len = 0;

    ck_assert_int_eq(vmibus_guest_ram_next_data(ram, &gpa, &len), 0);
    ck_assert_uint_eq(gpa, 16);
    ck_assert_uint_eq(len, PAGE - 16);
    vmibus_guest_ram_free(ram);
    close(fd);
}

TEST(test_errors_of_the_file_are_passed_on) {
    int fds[2];
    const struct vmibus_ram_range range = {.len = PAGE};
    struct vmibus_guest_ram *ram;
    uint64_t gpa = 0, len;
    char octet;

    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    ram = make_ram(&range, 1, &fds[0], 1);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 0, &octet, 1), -ESPIPE);
    ck_assert_int_eq(vmibus_guest_ram_next_data(ram, &gpa, &len), -ESPIPE);
    vmibus_guest_ram_free(ram);
    close(fds[0]);
    close(fds[1]);
}

HARNESS_SUITE("ram", HARNESS_QUICK)
