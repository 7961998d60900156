/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Address spaces of processes in real guests: what is read from their RAM must be, octet by octet, what the guest's
 * /proc/PID/maps says. All kernels here keep a maple tree; the red-black tree of kernels before 6.1 is in tests/guest_lib, and
 * in test_linux_other_kernels if there is such a kernel.
 */
#include "compare.h"
#include "harness.h"

static void compare_all(const struct bed_options *options, const char *gate) {
    struct linux_bed guest;

    linux_bed_boot(&guest, options);
    compare_maps(&guest, gate);
    linux_bed_end(&guest);
}

TEST(test_stock_kernel_with_four_levels, .timeout = 600, .full = true) {
    compare_all(&(struct bed_options){.cpu = "qemu64"}, NULL);
}

TEST(test_stock_kernel_with_five_levels_and_vsyscall, .timeout = 600) {
    compare_all(&(struct bed_options){.cpu = "max", .append = "vsyscall=xonly"}, "[vsyscall]\n");
}

TEST(test_cloud_kernel_with_four_levels, .timeout = 600) {
    compare_all(&(struct bed_options){.cpu = "qemu64", .flavour = "cloud-amd64", .smp = "4", .append = "vsyscall=emulate"},
                "[vsyscall]\n");
}

TEST(test_cloud_kernel_with_five_levels, .timeout = 600, .full = true) {
    compare_all(&(struct bed_options){.cpu = "max", .flavour = "cloud-amd64"}, NULL);
}

HARNESS_SUITE("linux maps", HARNESS_QUICK)
