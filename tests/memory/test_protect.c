/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What policy protects, looked for in made-up page tables. */
#include "harness.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "../guest_lib/fake_guest.h"
#include "memory/protect.h"
#include "policy/write_bounds.h"

#define MEMORY_PAGES 64
#define TEXT_GVA UINT64_C(0xffffffff81000000)
#define DATA_GVA UINT64_C(0xffffffff82000000)
#define DIRECT_GVA UINT64_C(0xffff888000000000)
#define USER_GVA UINT64_C(0x0000555500000000)
#define TEXT_GPA UINT64_C(0x1000000)    /* 2 MiB */
#define DATA_GPA UINT64_C(0x2000000)    /* one page */
#define MODULE_GPA UINT64_C(0x2001000)  /* one page, executable */
#define USER_GPA UINT64_C(0x3000000)    /* one page, executable by users */

static _Alignas(4096) uint8_t memory[MEMORY_PAGES * 4096];
static struct fake_guest guest;
static struct vmibus_guest_reader reader;
static struct vmibus_guest_root kernel, process;
static uint64_t hit;

static void set_up(void) {
    memset(memory, 0, sizeof(memory));
    guest = (struct fake_guest){.memory = memory, .len = sizeof(memory), .next_table = FAKE_PAGE};
    reader = fake_guest_reader(&guest);
    kernel = (struct vmibus_guest_root){.cr3 = fake_guest_page(&guest), .levels = 4};
    process = (struct vmibus_guest_root){.cr3 = fake_guest_page(&guest), .levels = 4};
    fake_guest_map(&guest, kernel, TEXT_GVA, TEXT_GPA, 2, 0);
    fake_guest_map(&guest, kernel, DATA_GVA, DATA_GPA, 1, ENTRY_WRITABLE | ENTRY_NX);
    fake_guest_map(&guest, kernel, DATA_GVA + 4096, MODULE_GPA, 1, 0);
    /* The kernel's direct map shows the text again, as data. */
    fake_guest_map(&guest, kernel, DIRECT_GVA, 0, 3, ENTRY_WRITABLE | ENTRY_NX);
    fake_guest_map(&guest, process, USER_GVA, USER_GPA, 1, ENTRY_USER);
}

static int check_in(const struct vmibus_guest_root *named, uint32_t protect, uint64_t gpa, uint64_t len) {
    struct protect_span span = {gpa, len};

    hit = 0;
    return protect_check(&reader, &kernel, named, protect, &span, 1, &hit);
}

static int check(uint32_t protect, uint64_t gpa, uint64_t len) {
    return check_in(&kernel, protect, gpa, len);
}

TEST(test_kernel_text_is_found_by_its_pages, .setup = set_up) {
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, TEXT_GPA, 1), PROTECT_HIT);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, TEXT_GPA + 0x1fffff, 1), PROTECT_HIT);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, TEXT_GPA + 0x200000, 1), 0);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, TEXT_GPA - 8, 8), 0);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, TEXT_GPA - 8, 9), PROTECT_HIT);
    ck_assert_uint_eq(hit, TEXT_GPA);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, DATA_GPA, 4096), 0);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, DATA_GPA, 4097), PROTECT_HIT);
    ck_assert_uint_eq(hit, MODULE_GPA);
}

TEST(test_what_users_execute_is_no_kernel_text, .setup = set_up) {
    ck_assert_int_eq(check_in(&process, PROTECT_KERNEL_TEXT, USER_GPA, 1), 0);
    fake_guest_map(&guest, kernel, USER_GVA, USER_GPA, 1, ENTRY_USER);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, USER_GPA, 1), 0);
}

TEST(test_every_table_is_found, .setup = set_up) {
    for (uint64_t gpa = 0; gpa < guest.next_table; gpa += 4096) {
        bool is_table = gpa >= FAKE_PAGE;
        bool of_process = gpa == process.cr3;

        if (!of_process && check(PROTECT_PAGE_TABLES, gpa + 8, 8) == 0 && is_table)
            of_process = true; /* one of the process's own, below its root */
        ck_assert_int_eq(check_in(&process, PROTECT_PAGE_TABLES, gpa + 8, 8), is_table ? PROTECT_HIT : 0);
        ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, gpa + 8, 8), 0);
    }
    ck_assert_int_eq(check(PROTECT_PAGE_TABLES, process.cr3, 8), 0);
    ck_assert_int_eq(check(PROTECT_PAGE_TABLES, guest.next_table, 8), 0);
    ck_assert_int_eq(check(PROTECT_PAGE_TABLES, TEXT_GPA, 8), 0);
}

/* Tables that point at each other end: a walk is as deep as the levels, and visits so many. */
TEST(test_p09_tables_that_loop, .setup = set_up) {
    uint64_t *top = (uint64_t *)(memory + kernel.cr3);

    for (size_t i = 0; i < 512; i++)
        top[i] = kernel.cr3 | ENTRY_TABLE | ENTRY_NX;
    ck_assert_int_eq(check(PROTECT_PAGE_TABLES, DATA_GPA, 8), PROTECT_HIT);
    ck_assert_uint_eq(hit, DATA_GPA);
    ck_assert_uint_le(guest.reads, PROTECT_TABLES);
}

TEST(test_tables_outside_ram_map_nothing, .setup = set_up) {
    *fake_guest_entry(&guest, kernel, USER_GVA, 4) = UINT64_C(0x7fff00000000) | ENTRY_TABLE;
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT | PROTECT_PAGE_TABLES, DATA_GPA, 8), 0);
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT | PROTECT_PAGE_TABLES, TEXT_GPA, 8), PROTECT_HIT);
}

TEST(test_a_failure_to_read_is_passed_on, .setup = set_up) {
    guest.fail_at_read = 2;
    guest.failure = -EIO;
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, DATA_GPA, 8), -EIO);
    guest.reads = 0;
    guest.failure = VMIBUS_GUEST_TRUNCATED;
    ck_assert_int_eq(check(PROTECT_KERNEL_TEXT, DATA_GPA, 8), VMIBUS_GUEST_TRUNCATED);
}

TEST(test_many_spans_in_any_order, .setup = set_up) {
    struct protect_span spans[] = {
        {DATA_GPA + 64, 8}, {DATA_GPA, 128}, {0x5000000, 4096}, {DATA_GPA + 100, 50}, {0x4fff000, 4096}, {0x4000000, 1},
    };
    size_t n = sizeof(spans) / sizeof(*spans);

    ck_assert_int_eq(protect_check(&reader, &kernel, &kernel, PROTECT_KERNEL_TEXT, spans, n, &hit), 0);
    spans[3] = (struct protect_span){TEXT_GPA + 0x1ffff8, 16};
    ck_assert_int_eq(protect_check(&reader, &kernel, &kernel, PROTECT_KERNEL_TEXT, spans, n, &hit), PROTECT_HIT);
    ck_assert_uint_eq(hit, TEXT_GPA + 0x1ffff8);
    ck_assert_int_eq(protect_check(&reader, &kernel, &kernel, 0, spans, n, &hit), 0);
    ck_assert_int_eq(protect_check(&reader, &kernel, &kernel, PROTECT_KERNEL_TEXT, spans, 0, &hit), 0);
}

HARNESS_SUITE("protect", HARNESS_QUICK)
