/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * However an INPUT lease ends, a real guest sees its keys and buttons go up.
 *
 * vmibusctl holds the lease of vmibusd, and lends it to hold_input, which presses a key and a button; what the guest gets it
 * tells on its serial port.
 */
#include "harness.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bed.h"

#define BOOT_MS 120000
#define WAIT_MS 20000
#define SUPERIOR 60001

static const char configuration[] = "[rule root]\nuser = 0\ncapabilities = all\n"
                                    "[rule superior]\nuser = 60001\nrank = 9\ncapabilities = OBSERVE INPUT PREEMPT\n";

static struct bed *bed;
static struct vmibus *superior;         /* a control whose rank is higher */
static struct vmibus_endpoint endpoint;
static pid_t daemon_pid;
static char build[256], socket_path[320];

/* --- beginning and end ------------------------------------------------------------------------- */

static void start_daemon(void) {
    char program[320], modules[320], qmp[320], directory[300], path[320];
    FILE *file;

    /* It goes with the bed; other users are to reach the socket. */
    snprintf(directory, sizeof(directory), "%s/bus", bed->directory);
    ck_assert_int_eq(chmod(bed->directory, 0711), 0);
    ck_assert_int_eq(mkdir(directory, 0755), 0);
    snprintf(build, sizeof(build), "%s", getenv("top_builddir") ? getenv("top_builddir") : ".");
    snprintf(program, sizeof(program), "%s/vmibusd", build);
    snprintf(modules, sizeof(modules), "%s/sensors/modules", build);
    snprintf(qmp, sizeof(qmp), "guest=%s", bed->qmp);
    snprintf(socket_path, sizeof(socket_path), "%s/socket", directory);
    snprintf(path, sizeof(path), "%s/vmibusd.conf", directory);
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(configuration, file), 0);
    ck_assert_int_eq(fclose(file), 0);
    daemon_pid = fork();
    if (daemon_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(program, program, "--config", path, "--socket", socket_path, "--state-directory", directory,
              "--sensor-directory", modules, "--qmp", qmp, NULL);
        _exit(127);
    }
}

static void hear(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    (void)bus;
    (void)userdata;
    if (message->frame.header.kind == VMIBUS_KIND_ROSTER)
        endpoint = (struct vmibus_endpoint){message->frame.header.slot, message->frame.header.generation};
}

/* Connects as somebody else, and waits for the VM. */
static void connect_superior(void) {
    int r;

    ck_assert_int_eq(seteuid(SUPERIOR), 0);
    while ((r = vmibus_connect(&superior, socket_path, "superior")) == -ENOENT || r == -ECONNREFUSED)
        poll(NULL, 0, 20);
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(r, 0);
    vmibus_set_handler(superior, hear, NULL);
    ck_assert_int_eq(vmibus_subscribe(superior, "guest", VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER)), 0);
    ck_assert_int_eq(vmibus_dispatch(superior), 0);
    while (!endpoint.generation)
        ck_assert_int_eq(vmibus_wait(superior, WAIT_MS), 0);
}

static void boot(void) {
    const struct bed_options options = {0};
    const char *reason;

    if (geteuid() != 0)
        test_skip("needs root, to be several users");
    if (!bed_available(false, &reason))
        test_skip("%s", reason);
    ck_assert_msg(bed_start(&bed, &options) == 0, "%s", bed_error(NULL));
    start_daemon();
    ck_assert_msg(bed_wait_serial(bed, "READY", BOOT_MS, NULL) == 0, "%s", bed_error(bed));
    connect_superior();
}

static void finish(void) {
    superior = vmibus_free(superior);
    ck_assert_int_eq(kill(daemon_pid, SIGTERM), 0);
    waitpid(daemon_pid, NULL, 0);
    bed = bed_stop(bed);
}

/* --- holding ----------------------------------------------------------------------------------- */

/* vmibusctl and what it runs, in a group of their own. */
static pid_t lend_input(const char *word) {
    pid_t pid = fork();

    if (pid == 0) {
        char program[320], helper[320];

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        snprintf(program, sizeof(program), "%s/vmibusctl", build);
        snprintf(helper, sizeof(helper), "%s/tests/qemu/hold_input", build);
        execl(program, program, "--socket", socket_path, "lease", "guest", "input", "--mode", "queue", "--", helper, word, NULL);
        _exit(127);
    }
    ck_assert_int_gt(pid, 0);
    setpgid(pid, pid);
    return pid;
}

static void kill_group(pid_t group) {
    ck_assert_int_eq(kill(-group, SIGKILL), 0);
    ck_assert_int_eq(waitpid(group, NULL, 0), group);
}

static bool is_fact(const char *line, unsigned code, int value) {
    char fields[64];

    snprintf(fields, sizeof(fields), " type=%u code=%u value=%d ", EV_KEY, code, value);
    return strstr(line, fields) != NULL;
}

/* The guest gets the key and the button, both down or both up, and nothing to the contrary. */
static void expect_both(int value) {
    bool key = false, button = false;

    while (!key || !button) {
        char *line;

        ck_assert_msg(bed_wait_serial(bed, "EVDEV", WAIT_MS, &line) == 0, "no %s %s: %s", key ? "button" : "key",
                      value ? "went down" : "went up", bed_error(bed));
        ck_assert_msg(!is_fact(line, KEY_A, !value) && !is_fact(line, BTN_LEFT, !value), "%s", line);
        key |= is_fact(line, KEY_A, value);
        button |= is_fact(line, BTN_LEFT, value);
        free(line);
    }
}

TEST(test_p05_guest_sees_keys_and_buttons_go_up_however_the_lease_ends, .timeout = 180) {
    uint64_t token;
    pid_t holder;

    boot();

    holder = lend_input("expire");
    expect_both(1);
    ck_assert_int_eq(kill(holder, SIGTERM), 0); /* vmibusctl passes it on */
    expect_both(0);
    kill_group(holder);

    holder = lend_input(NULL);
    expect_both(1);
    ck_assert_int_eq(vmibus_lease_acquire(superior, &endpoint, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_PREEMPT, 0, &token,
                                          NULL),
                     0);
    expect_both(0);
    kill_group(holder);
    ck_assert_int_eq(vmibus_lease_release(superior, &endpoint, VMIBUS_LEASE_CLASS_INPUT, token), 0);

    holder = lend_input(NULL);
    expect_both(1);
    kill_group(holder);
    expect_both(0);

    /* The command ends, and vmibusctl gives the lease back. */
    holder = lend_input(NULL);
    expect_both(1);
    ck_assert_int_eq(kill(holder, SIGTERM), 0);
    expect_both(0);
    ck_assert_int_eq(waitpid(holder, NULL, 0), holder);

    finish();
}

HARNESS_SUITE("qemu: keys go up when their lease ends", HARNESS_QUICK)
