/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bounds of writing: their words, and what several rules come to. */
#include "harness.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "policy/write_bounds.h"

static struct write_stretch stretch(uint64_t gva, uint64_t gpa, uint64_t len) {
    return (struct write_stretch){.is_virtual = true, .gva = gva, .gpa = gpa, .len = len};
}

static void set_ranges(struct write_ranges *ranges, const char *text) {
    ck_assert_int_eq(write_ranges_parse(ranges, text), 0);
}

TEST(test_ranges_from_words) {
    struct write_ranges ranges;

    ck_assert_int_eq(write_ranges_parse(&ranges, " 0x1000-0x1fff,4096-4096\t0-0xffffffffffffffff "), 0);
    ck_assert_uint_eq(ranges.n, 3);
    ck_assert_uint_eq(ranges.at[0].first, 0x1000);
    ck_assert_uint_eq(ranges.at[0].last, 0x1fff);
    ck_assert_uint_eq(ranges.at[1].first, ranges.at[1].last);
    ck_assert_uint_eq(ranges.at[2].last, UINT64_MAX);
}

TEST(test_ranges_that_are_none) {
    static const char *const wrong[] = {"", " ", "0x1000", "0x1000-", "-0x1000", "2-1", "1-2-3", "1-x", "x-1", "1--2", "1 - 2",
                                        "0-0x10000000000000000", "1-2;3-4", "1-2 nonsense"};
    struct write_ranges ranges;
    char many[8 * WRITE_RANGES + 16] = "";

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        ck_assert_msg(write_ranges_parse(&ranges, wrong[i]) == -EINVAL, "'%s'", wrong[i]);
    for (size_t i = 0; i <= WRITE_RANGES; i++)
        strcat(many, "1-2 ");
    ck_assert_int_eq(write_ranges_parse(&ranges, many), -E2BIG);
    many[4 * WRITE_RANGES] = '\0';
    ck_assert_int_eq(write_ranges_parse(&ranges, many), 0);
}

TEST(test_protection_from_words) {
    uint32_t protect;

    ck_assert_int_eq(write_protection_parse(&protect, "kernel-text"), 0);
    ck_assert_uint_eq(protect, PROTECT_KERNEL_TEXT);
    ck_assert_int_eq(write_protection_parse(&protect, "page-tables, kernel-text"), 0);
    ck_assert_uint_eq(protect, PROTECT_KERNEL_TEXT | PROTECT_PAGE_TABLES);
    ck_assert_int_eq(write_protection_parse(&protect, ""), -EINVAL);
    ck_assert_int_eq(write_protection_parse(&protect, "kernel"), -EINVAL);
    ck_assert_int_eq(write_protection_parse(&protect, "kernel-texts"), -EINVAL);
}

TEST(test_a_rule_without_bounds_frees_from_all) {
    struct write_bounds bounded = {.size = 8, .rate = 8, .place.protect = PROTECT_KERNEL_TEXT}, free_of_all = {};
    const struct write_bounds *bounds[] = {&bounded, &free_of_all};
    struct write_allowance *allowance;
    uint32_t protect = 0;
    struct write_stretch any = stretch(1, 2, 3);

    set_ranges(&bounded.place.gpa, "0-1");
    ck_assert_int_eq(write_allowance_new(&allowance, bounds, 2), 0);
    ck_assert_ptr_null(allowance);
    ck_assert_int_eq(write_allowance_permits(allowance, &any, &protect), 0);
    ck_assert_uint_eq(protect, 0);
    ck_assert_int_eq(write_allowance_new(&allowance, bounds, 0), 0);
    ck_assert_ptr_null(allowance);
}

TEST(test_the_largest_size_and_rate_hold) {
    struct write_bounds one = {.size = 8, .rate = 100}, other = {.size = 16}, third = {.size = 4, .rate = 1000};
    const struct write_bounds *bounds[] = {&one, &other, &third};
    struct write_allowance *allowance, *second;

    ck_assert_int_eq(write_allowance_new(&allowance, bounds, 3), 0);
    ck_assert_uint_eq(allowance->size, 16);
    ck_assert_uint_eq(allowance->rate, 0);
    ck_assert_uint_eq(allowance->n_places, 0);
    allowance = write_allowance_unref(allowance);
    bounds[1] = &third;
    ck_assert_int_eq(write_allowance_new(&allowance, bounds, 2), 0);
    ck_assert_uint_eq(allowance->size, 8);
    ck_assert_uint_eq(allowance->rate, 1000);
    second = write_allowance_ref(allowance);
    allowance = write_allowance_unref(allowance);
    ck_assert_ptr_null(allowance);
    ck_assert_uint_eq(second->rate, 1000);
    second = write_allowance_unref(second);
}

TEST(test_a_stretch_keeps_to_one_place) {
    struct write_bounds low = {}, both = {};
    const struct write_bounds *bounds[] = {&low, &both};
    struct write_allowance *allowance;
    uint32_t protect = 0;
    struct {
        struct write_stretch stretch;
        int expected;
    } cases[] = {
        {stretch(0x100, 0x1000, 0x10), 0},                  /* low */
        {stretch(0x1f0, 0x1000, 0x10), 0},                  /* to its last octet */
        {stretch(0x1f1, 0x1000, 0x10), WRITE_FORBIDDEN},    /* one too far */
        {stretch(0xff, 0x1000, 1), WRITE_FORBIDDEN},
        {stretch(0x8000, 0x5000, 0x10), 0},                 /* both */
        {stretch(0x8000, 0x6000, 0x10), WRITE_FORBIDDEN},   /* virtual right, physical wrong */
        {stretch(0x9000, 0x5000, 0x10), WRITE_FORBIDDEN},   /* the other way round */
        {stretch(0x8ff0, 0x5ff0, 0x11), WRITE_FORBIDDEN},
        {{.is_virtual = false, .gpa = 0x100, .len = 1}, WRITE_FORBIDDEN}, /* no virtual address, so within none */
    };

    set_ranges(&low.place.gva, "0x100-0x1ff");
    set_ranges(&both.place.gva, "0x8000-0x8fff");
    set_ranges(&both.place.gpa, "0x5000-0x5fff");
    ck_assert_int_eq(write_allowance_new(&allowance, bounds, 2), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        ck_assert_msg(write_allowance_permits(allowance, &cases[i].stretch, &protect) == cases[i].expected, "case %zu", i);
    ck_assert_uint_eq(protect, 0);
    allowance = write_allowance_unref(allowance);
}

TEST(test_the_place_that_protects_least_is_taken) {
    struct write_bounds careful = {.place.protect = PROTECT_KERNEL_TEXT | PROTECT_PAGE_TABLES};
    struct write_bounds here = {.place.protect = PROTECT_PAGE_TABLES};
    const struct write_bounds *bounds[] = {&careful, &here};
    struct write_allowance *allowance;
    struct write_stretch inside = {.gpa = 0x1000, .len = 1}, outside = {.gpa = 0x2000, .len = 1};
    uint32_t protect = 0;

    set_ranges(&here.place.gpa, "0x1000-0x1fff");
    ck_assert_int_eq(write_allowance_new(&allowance, bounds, 2), 0);
    ck_assert_int_eq(write_allowance_permits(allowance, &inside, &protect), 0);
    ck_assert_uint_eq(protect, PROTECT_PAGE_TABLES);
    ck_assert_int_eq(write_allowance_permits(allowance, &outside, &protect), 0);
    ck_assert_uint_eq(protect, PROTECT_KERNEL_TEXT | PROTECT_PAGE_TABLES);
    allowance = write_allowance_unref(allowance);
}

HARNESS_SUITE("write bounds", HARNESS_QUICK)
