/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes, threads, open files and sockets of real guests, read from their RAM alone, against the guests' own /proc: kernels of
 * several flavours, both paging depths, RAM below and above 4 GiB, with and without page-table isolation, one vCPU and four.
 * Each guest is booted once and asked for everything.
 */
#include <stdint.h>
#include <string.h>

#include "compare.h"
#include "harness.h"

static const struct {
    const char *flavour;
    const char *cpu;
    const char *memory;
    const char *smp;
    const char *append;
    uint8_t levels;
} guests[] = {
    {"amd64", "max", "512M", "1", "pti=off", 5},
    {"amd64", "qemu64", "5G", "4", "pti=on", 4},
    {"cloud-amd64", "max", "5G", "1", "pti=on", 5},
    {"cloud-amd64", "qemu64", "512M", "4", "pti=off", 4},
    {"rt-amd64", "max", "512M", "4", "pti=on", 5},
};

TEST(test_p12_what_is_read_is_what_the_guest_says, .timeout = 600, .iterations = (int)(sizeof(guests) / sizeof(guests[0]))) {
    const struct bed_options options = {
        .flavour = guests[_i].flavour, .cpu = guests[_i].cpu, .memory = guests[_i].memory, .smp = guests[_i].smp,
        .append = guests[_i].append,
    };
    struct linux_bed guest;
    uint32_t crowd;

    linux_bed_boot(&guest, &options);
    ck_assert_uint_eq(guest.root.root.levels, guests[_i].levels);
    crowd = compare_tasks(&guest);
    compare_task_memory(&guest, crowd);
    compare_files(&guest, crowd);
    compare_files(&guest, 1);
    compare_sockets(&guest, crowd);
    linux_bed_end(&guest);
}

HARNESS_SUITE("linux tasks", HARNESS_QUICK)
