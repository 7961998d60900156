/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A real Linux guest, and the library's view of its kernel: straight from QEMU's memory file, with no bus between.
 *
 * The guest is a q35 with its RAM in a memfd.
 */
#ifndef TESTS_QEMU_LINUX_BED_H
#define TESTS_QEMU_LINUX_BED_H

#include <stdint.h>

#include <vmibus/guest_linux.h>

#include "bed.h"

#define LINUX_BED_ANSWER_MS 120000

struct linux_bed {
    struct bed *bed;
    int ram_fd;
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_kernel root;
    struct vmibus_linux *kernel;
};

/**
 * Boots until the agent is ready, and opens the kernel. Skips the test where there is no guest, or no kernel of the flavour,
 * to be had.
 * @param options their memory must be NULL (512 MiB) or a number of MiB or GiB with its M or G
 */
void linux_bed_boot(struct linux_bed *self, const struct bed_options *options);

/** Ends everything. */
void linux_bed_end(struct linux_bed *self);

/** Asks the agent. The answer is the caller's to free; a test fails that gets none. */
char *linux_bed_ask(struct linux_bed *self, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Stops the guest's vCPUs, and lets them go on. */
void linux_bed_stop(struct linux_bed *self);
void linux_bed_continue(struct linux_bed *self);

#endif
