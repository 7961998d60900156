/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "linux_bed.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

#define BOOT_MS 240000

#define CHECK_BED(bed, call) ck_assert_msg((call) == 0, "%s: %s", #call, bed_error(bed))

static uint64_t ram_len_of(const struct bed_options *options) {
    char *end;
    uint64_t n = strtoull(options->memory ? options->memory : "512M", &end, 10);

    return n << (*end == 'G' ? 30 : 20);
}

/* What does not fit below 2 GiB lies above 4. */
static void open_kernel(struct linux_bed *self, uint64_t len) {
    const uint64_t low = UINT64_C(2) << 30;
    const struct vmibus_ram_range ranges[] = {
        {.len = len < low ? len : low},
        {.gpa = 2 * low, .len = len - low, .offset = low},
    };
    struct vmibus_guest_reader reader;

    ck_assert_int_eq(vmibus_guest_ram_new(&self->ram, ranges, len > low ? 2 : 1, &self->ram_fd, 1), 0);
    ck_assert_int_eq(vmibus_guest_find_linux(self->ram, NULL, &self->root), 0);
    reader = vmibus_guest_ram_reader(self->ram);
    ck_assert_int_eq(vmibus_linux_new(&self->kernel, &reader, &self->root.root, self->root.note.gpa), 0);
}

void linux_bed_boot(struct linux_bed *self, const struct bed_options *options) {
    const char *reason;
    int r;

    *self = (struct linux_bed){.ram_fd = -1};
    if (options->flavour ? !bed_flavour_available(options->flavour, &reason) : !bed_available(false, &reason))
        test_skip("%s", reason);
    r = bed_start(&self->bed, options);
    ck_assert_msg(r == 0, "bed_start: %s", bed_error(NULL));
    CHECK_BED(self->bed, bed_wait_serial(self->bed, "READY", (int)harness_scale(BOOT_MS), NULL));
    self->ram_fd = bed_open_ram(self->bed, ram_len_of(options));
    ck_assert_msg(self->ram_fd >= 0, "QEMU has no memfd of the guest's size");
    open_kernel(self, ram_len_of(options));
}

void linux_bed_end(struct linux_bed *self) {
    self->kernel = vmibus_linux_free(self->kernel);
    self->ram = vmibus_guest_ram_free(self->ram);
    if (self->ram_fd >= 0)
        close(self->ram_fd);
    self->ram_fd = -1;
    self->bed = bed_stop(self->bed);
}

char *linux_bed_ask(struct linux_bed *self, const char *format, ...) {
    char command[512], *reply;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    CHECK_BED(self->bed, bed_ask(self->bed, command, (int)harness_scale(LINUX_BED_ANSWER_MS), &reply));
    return reply;
}

void linux_bed_stop(struct linux_bed *self) {
    CHECK_BED(self->bed, bed_qmp(self->bed, "stop", NULL, NULL));
}

void linux_bed_continue(struct linux_bed *self) {
    CHECK_BED(self->bed, bed_qmp(self->bed, "cont", NULL, NULL));
}
