/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernels that are not installed here: each one of the folder named by VMIBUS_TEST_KERNELS (tests/guest/make-initrd --help), with
 * four levels and with five (if it has them), compared with what its own /proc says.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "harness.h"

#define KERNELS_MAX 64
#define VCPUS 4
#define CR4_LA57 0x1000

static const struct {
    const char *cpu, *memory, *smp, *append;
} shapes[] = {
    {"max", "512M", "1", "pti=off vsyscall=xonly"},
    {"qemu64", "5G", "4", "pti=on vsyscall=xonly"},
};

#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

/* What there is, listed before the tests are; none: one iteration says so. */
static char kernels[KERNELS_MAX][128];
static size_t n_kernels;

/* Asks make-initrd. */
static void list_kernels(void) {
    const char *source = getenv("VMIBUS_SOURCE_DIR");
    char command[4096];
    FILE *list;

    source = source ? source : getenv("top_srcdir");
    if (!getenv("VMIBUS_TEST_KERNELS") || !source)
        return;
    snprintf(command, sizeof(command), "exec '%s/tests/guest/make-initrd' --list", source);
    list = popen(command, "re");
    while (list && n_kernels < KERNELS_MAX && fscanf(list, "%127s", kernels[n_kernels]) == 1)
        n_kernels++;
    if (list)
        pclose(list);
}

/* A guest's root is found by what its vCPUs' registers say, without sweeping, wherever they are. */
static void check_root(struct linux_bed *guest) {
    uint64_t cr3[VCPUS], cr4;
    struct vmibus_guest_hints hints = {.vcpu_cr3 = cr3};
    struct vmibus_guest_kernel kernel;
    char *text, *at;

    CHECK_BED(guest->bed, bed_hmp(guest->bed, "info registers -a", &text));
    for (at = text; (at = strstr(at, "CR3=")); at += 4) {
        ck_assert_uint_lt(hints.n_vcpu_cr3, VCPUS);
        ck_assert_int_eq(sscanf(at, "CR3=%" SCNx64 " CR4=%" SCNx64, &cr3[hints.n_vcpu_cr3++], &cr4), 2);
        ck_assert_uint_eq(guest->root.root.levels, cr4 & CR4_LA57 ? 5 : 4);
    }
    free(text);
    ck_assert_int_eq(vmibus_guest_find_linux(guest->ram, &hints, &kernel), 0);
    ck_assert_uint_eq(kernel.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(kernel.root.cr3, guest->root.root.cr3);
    ck_assert_uint_eq(kernel.swept, 0);
}

TEST(test_p12_what_is_read_is_what_the_guest_says, .timeout = 1200) {
    const char *folder = getenv("VMIBUS_TEST_KERNELS");
    struct bed_options options = {.flavour = kernels[_i / SHAPES], .cpu = shapes[_i % SHAPES].cpu,
                                  .memory = shapes[_i % SHAPES].memory, .smp = shapes[_i % SHAPES].smp,
                                  .append = shapes[_i % SHAPES].append};
    struct linux_bed guest;
    uint32_t crowd;

    if (!folder || !folder[0])
        test_skip("VMIBUS_TEST_KERNELS is not set: no other kernels");
    ck_assert_msg(n_kernels > 0, "there are no kernels in %s", folder);
    printf("%s, CPU %s\n", options.flavour, options.cpu);
    linux_bed_boot(&guest, &options);
    ck_assert_str_eq(guest.root.note.release, options.flavour);
    check_root(&guest);
    compare_symbols(&guest);
    compare_modules(&guest);
    compare_log(&guest);
    compare_facts(&guest);
    crowd = compare_tasks(&guest);
    compare_task_memory(&guest, crowd);
    compare_maps(&guest, "[vsyscall]\n");
    compare_files(&guest, crowd);
    compare_files(&guest, 1);
    compare_sockets(&guest, crowd);
    linux_bed_end(&guest);
}

int main(int argc, char **argv) {
    list_kernels();
    test_p12_what_is_read_is_what_the_guest_says_test.iterations = n_kernels ? (int)(n_kernels * SHAPES) : 1;
    return harness_main("linux other kernels", HARNESS_QUICK, argc, argv);
}
