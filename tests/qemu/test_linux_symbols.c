/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Symbols, modules, log and facts of real Linux kernels, as libvmibus-guest reads them from RAM, against the guest's own
 * /proc: all of them, not samples.
 */
#include "compare.h"
#include "harness.h"

#include "guest/linux/kallsyms.h"

/* What the note tells is found without it too. */
static void check_structure(struct linux_bed *bed) {
    struct kallsyms_places told, found;

    ck_assert_int_eq(kallsyms_find_by_note(bed->kernel, &told), 0);
    ck_assert_int_eq(kallsyms_find_by_structure(bed->kernel, &found), 0);
    ck_assert_uint_eq(found.names, told.names);
    ck_assert_uint_eq(found.n_symbols, told.n_symbols);
    ck_assert_uint_eq(found.token_table, told.token_table);
    ck_assert_uint_eq(found.token_index, told.token_index);
    ck_assert_uint_eq(found.offsets, told.offsets);
    ck_assert_uint_eq(found.relative_base, told.relative_base);
}

static void check_kernel(const struct bed_options *options) {
    struct linux_bed bed;

    linux_bed_boot(&bed, options);
    compare_symbols(&bed);
    check_structure(&bed);
    compare_modules(&bed);
    compare_log(&bed);
    compare_facts(&bed);
    linux_bed_end(&bed);
}

TEST(test_stock_kernel, .timeout = 900) {
    check_kernel(&(struct bed_options){.cpu = "max"});
}

TEST(test_cloud_kernel, .timeout = 900) {
    check_kernel(&(struct bed_options){.flavour = "cloud-amd64", .cpu = "qemu64", .memory = "5G", .smp = "4", .append = "pti=on"});
}

TEST(test_realtime_kernel, .timeout = 900, .full = true) {
    check_kernel(&(struct bed_options){.flavour = "rt-amd64", .cpu = "max", .smp = "2"});
}

HARNESS_SUITE("linux_symbols", HARNESS_QUICK)
