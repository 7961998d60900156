/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "soak/guests.h"

#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bed.h"
#include "harness.h"

#undef close /* nothing here is a connection of the test's */

#define PATIENCE 10                 /* a Linux may be long in booting */

static struct {
    char directory[64];
    struct bed *beds[GUESTS_MAX];
    char settings[GUESTS_MAX][128];
    struct soak_others others;
    unsigned restarts, resets;
} guests;

static void monitor_path(unsigned i, char *path, size_t size) {
    snprintf(path, size, "%s/guest-%u.sock", guests.directory, i);
}

static void start_guest(unsigned i) {
    char name[16], path[96];
    const struct bed_options linux_options = {.name = name, .memory = "256M", .append = "memmap=2M$64M", .accel = "auto"};
    const struct bed_options firmware_options = {.name = name, .memory = "128M", .accel = "auto", .firmware_only = true};

    snprintf(name, sizeof(name), "guest-%u", i);
    ck_assert_msg(bed_start(&guests.beds[i], i ? &firmware_options : &linux_options) == 0, "no guest: %s", bed_error(NULL));
    /* The sensor waits for whatever appears there. */
    monitor_path(i, path, sizeof(path));
    ck_assert_int_eq(symlink(guests.beds[i]->qmp, path), 0);
}

static void end_guest(unsigned i) {
    char path[96];

    monitor_path(i, path, sizeof(path));
    unlink(path);
    guests.beds[i] = bed_stop(guests.beds[i]);
}

static bool has_ended(const struct bed *bed) {
    struct pollfd poll_fd = {.fd = bed->pid_fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

static void tend(void) {
    for (unsigned i = 0; i < guests.others.n; i++) {
        if (has_ended(guests.beds[i])) {
            end_guest(i);
            start_guest(i);
            guests.restarts++;
        } else if (i == 0) {
            (void)bed_wait_serial(guests.beds[i], "READY", 0, NULL); /* what it says wants to be read */
        }
    }
}

static void churn(void) {
    ck_assert_msg(bed_qmp(guests.beds[0], "system_reset", NULL, NULL) == 0, "no reset: %s", bed_error(guests.beds[0]));
    guests.resets++;
}

static void skip_without(void) {
    const char *modules = getenv("VMIBUS_SENSOR_DIR"), *reason = NULL;
    char path[4096];

    snprintf(path, sizeof(path), "%s/qemu.so", modules ? modules : "sensors/modules");
    if (access(path, R_OK) < 0)
        test_skip("the qemu sensor is not built");
    if (!bed_available(false, &reason))
        test_skip("no guest can be had: %s", reason);
}

const struct soak_others *guests_start(unsigned n) {
    char path[96];

    ck_assert_uint_le(n, GUESTS_MAX);
    ck_assert_uint_le(2 * n, SOAK_ARGUMENTS);
    skip_without();
    snprintf(guests.directory, sizeof(guests.directory), "/tmp/vmibus-soak-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(guests.directory));
    guests.others = (struct soak_others){.n = n, .patience = PATIENCE, .tend = tend, .churn = churn};
    for (unsigned i = 0; i < n; i++) {
        monitor_path(i, path, sizeof(path));
        snprintf(guests.settings[i], sizeof(guests.settings[i]), "qemu:monitor.guest-%u=%s", i, path);
        guests.others.arguments[2 * i] = "--sensor";
        guests.others.arguments[2 * i + 1] = guests.settings[i];
        start_guest(i);
    }
    return &guests.others;
}

void guests_stop(void) {
    fprintf(stderr, "soak of guests: %u started again, %u resets\n", guests.restarts, guests.resets);
    for (unsigned i = 0; i < guests.others.n; i++)
        end_guest(i);
    ck_assert_int_eq(rmdir(guests.directory), 0);
}
