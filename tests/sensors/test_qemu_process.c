/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose process is behind a monitor: texts of /proc, and real processes that listen. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "machine/process.h"

#define SOMEBODY 65534
#define SOMEBODY_ELSE 65533

/* --- /proc/PID/stat -------------------------------------------------------------------------- */

#define STAT_TAIL " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 "

TEST(test_start_time) {
    static const struct {
        const char *text;
        bool good;
        uint64_t start_time;
    } stats[] = {
        {"17 (qemu)" STAT_TAIL "4711 23\n", true, 4711},
        {"17 (a) b) S 1 (c d)" STAT_TAIL "4711 23\n", true, 4711},
        {"17 (qemu)" STAT_TAIL "18446744073709551615 0\n", true, UINT64_MAX},
        {"17 (qemu)" STAT_TAIL "18446744073709551616 0\n", false, 0},
        {"17 (qemu)" STAT_TAIL, false, 0},
        {"17 (qemu) S 1 2", false, 0},
        {"17 qemu" STAT_TAIL "4711 23\n", false, 0},
        {"", false, 0},
    };

    for (size_t i = 0; i < sizeof(stats) / sizeof(*stats); i++) {
        uint64_t start_time = 0;
        bool good = process_parse_stat(stats[i].text, strlen(stats[i].text), &start_time);

        ck_assert_msg(good == stats[i].good &&
                          start_time == (good ? stats[i].start_time : start_time),
                      "text %zu", i);
    }
}

/* --- /proc/PID/status ------------------------------------------------------------------------ */

TEST(test_user_ids) {
    static const struct {
        const char *text;
        bool good;
    } texts[] = {
        {"Name:\tqemu\nUmask:\t0022\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\n", true},
        {"Name:\tqemu\nUid:\t7\t0\t7\t7\nGid:\t7\t7\t7\t7\n", false},
        {"Name:\tqemu\nUid:\t7\t7\t0\t7\n", false},
        {"Name:\tqemu\nUid:\t7\t7\t7\t0\n", false},
        {"Name:\tUid:\t7\t7\t7\t7\nUid:\t0\t0\t0\t0\n", false},
        {"Name:\tqemu\nUid:\t7\t7\t7", false},
        {"Uid:\t7\t7\t7\t7\n", false},
        {"", false},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        ck_assert_msg(process_parse_status(texts[i].text, strlen(texts[i].text), 7) == texts[i].good, "text %zu", i);
}

/* --- processes ------------------------------------------------------------------------------- */

/* A process that listens as SOMEBODY, with what ids it has then, and says so; it changes to what comes next when it is told. */
struct listener {
    int socket, command;
    pid_t pid;
    struct sockaddr_un address;
};

static void be(uid_t effective, uid_t saved) {
    if (setresuid(SOMEBODY, effective, saved) < 0)
        _exit(1);
}

static void listen_and_obey(const struct listener *listener, int command) {
    char octet;

    be(SOMEBODY, 0);
    if (listen(listener->socket, 1) < 0 || write(command, "l", 1) != 1)
        _exit(1);
    while (read(command, &octet, 1) == 1) {
        if (octet == 's')
            be(SOMEBODY, SOMEBODY);
        else if (octet == 'e')
            be(0, 0);
        if (write(command, &octet, 1) != 1)
            break;
    }
    _exit(0);
}

static void listener_start(struct listener *listener) {
    int pair[2];
    char octet;

    if (geteuid() != 0)
        test_skip("needs root, to be several users");
    listener->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    listener->address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(listener->address.sun_path + 1, sizeof(listener->address.sun_path) - 1, "vmibus-process-%d", (int)getpid());
    ck_assert_int_eq(bind(listener->socket, (struct sockaddr *)&listener->address, sizeof(listener->address)), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    listener->pid = fork();
    if (listener->pid == 0) {
        close(pair[0]);
        listen_and_obey(listener, pair[1]);
    }
    close(pair[1]);
    listener->command = pair[0];
    ck_assert_int_eq(read(listener->command, &octet, 1), 1);
}

static void listener_tell(struct listener *listener, char octet) {
    ck_assert_int_eq(write(listener->command, &octet, 1), 1);
    ck_assert_int_eq(read(listener->command, &octet, 1), 1);
}

static void listener_end(struct listener *listener) {
    close(listener->command);
    ck_assert_int_eq(waitpid(listener->pid, NULL, 0), listener->pid);
}

static void find(const struct listener *listener, struct process *process) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&listener->address, sizeof(listener->address)), 0);
    ck_assert_int_eq(process_of_socket(fd, process), 0);
    close(fd);
}

TEST(test_p09_process_that_became_more_than_who_listened_is_nobody) {
    struct listener listener;
    struct process process;

    listener_start(&listener);
    find(&listener, &process);
    ck_assert_uint_eq(process.pid, 0); /* its saved user id is another's, as a set-user-ID program's is */
    listener_tell(&listener, 'e');
    find(&listener, &process);
    ck_assert_uint_eq(process.pid, 0);
    listener_end(&listener);
    close(listener.socket);
}

TEST(test_process_of_who_listened_is_found) {
    struct listener listener;
    struct process process;

    listener_start(&listener);
    listener_tell(&listener, 's');
    find(&listener, &process);
    ck_assert_uint_eq(process.pid, (uint32_t)listener.pid);
    ck_assert_uint_eq(process.uid, SOMEBODY);
    ck_assert(process_is_own(&process));
    process.uid = SOMEBODY_ELSE;
    ck_assert(!process_is_own(&process));
    process_deinit(&process);
    listener_end(&listener);
    close(listener.socket);
}

TEST(test_p09_listener_that_ended_leaves_no_process) {
    struct listener listener;
    struct process process;

    listener_start(&listener);
    listener_tell(&listener, 's');
    listener_end(&listener);
    find(&listener, &process);
    ck_assert_uint_eq(process.pid, 0);
    close(listener.socket);
}

HARNESS_SUITE("qemu: process", HARNESS_QUICK)
