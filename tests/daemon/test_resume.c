/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusd --resume, as a service manager runs it after a daemon that was killed. */
#include "harness.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/daemon.h"

static struct daemon daemon_;

/* Leaves what a sensor leaves for a guest's process; then runs it, and returns its exit status. */
static int resume(pid_t pid) {
    const struct daemon_options options = {.arguments = {"--resume"}};
    char path[128];
    int status;

    daemon_spawn(&daemon_, &options);
    ck_assert_int_eq(daemon_await_exit(&daemon_), 0); /* nothing is left */
    snprintf(path, sizeof(path), "%s/state", daemon_.directory);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/state/sensor-stub", daemon_.directory);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "state/sensor-stub/pause-%d-1", (int)pid);
    daemon_write_file(&daemon_, path, "");
    daemon_respawn(&daemon_);
    status = daemon_await_exit(&daemon_);
    ck_assert_int_ne(access(daemon_.path, F_OK), 0); /* nobody is served */
    return status;
}

TEST(test_p11_resume_of_a_guest_that_has_ended) {
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_int_eq(resume(pid), 0);
    daemon_remove(&daemon_);
}

/* The stub does not know of it, so nobody lets it go on; that is told. */
TEST(test_p11_resume_that_nobody_can_do_is_told, .timeout = 60) {
    ck_assert_int_eq(resume(getpid()), 1);
    ck_assert_ptr_nonnull(strstr(daemon_.log, "guests may still be stopped: 1"));
    daemon_remove(&daemon_);
}

HARNESS_SUITE("vmibusd --resume", HARNESS_QUICK)
