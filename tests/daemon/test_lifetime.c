/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starting, ending, being killed, starting again. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

TEST(test_starts_and_ends) {
    daemon_start(d, NULL);
    daemon_stop(d);
}

/* A service manager passes a listening socket, which need not be non-blocking. */
TEST(test_activated_by_a_blocking_socket) {
    const struct daemon_options options = {.activated = true};
    int fd;

#if !HAVE_SYSTEMD
    test_skip("built without libsystemd");
#endif
    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    (void)wire_counter(fd, VMIBUS_COUNTER_CONNECTIONS);
    close(fd);
    daemon_stop(d);
}

TEST(test_one_connection_is_one_connection) {
    const struct daemon_options options = {.config = "[daemon]\nmax-connections = 1\n"};
    struct vmibus_frame last;
    int fd;

    daemon_start(d, &options); /* with the bystander */
    fd = wire_connect(d->path);
    last = wire_expect_end(fd, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_CONNECTIONS);
    ck_assert_uint_eq(last.error.bound, 1);
    close(fd);
    daemon_stop(d);
}

TEST(test_ends_amidst_everything) {
    struct wire_endpoint vm;
    struct vmibus_frame frame;
    int fds[12], status;

    daemon_start(d, NULL);
    for (size_t i = 0; i < 12; i++) {
        fds[i] = i % 4 ? wire_open(d->path, NULL) : wire_connect(d->path);
        if (i % 4 == 1) {
            vm = wire_find(fds[i], "stub-1");
            (void)wire_acquire(fds[i], &vm, (enum vmibus_lease_class)(i % 3 + 1));
        } else if (i % 4 == 2) {
            frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &vm);
            wire_write(fds[i], &frame, sizeof(frame));
            wire_write(fds[i], &frame, 50);
        } else if (i % 4 == 3) {
            frame = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
            frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
            frame.cmd_lease.lease_class = (uint8_t)((i - 2) % 3 + 1);
            frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
            wire_write(fds[i], &frame, sizeof(frame));
        }
    }
    (void)wire_counter(d->bystander, VMIBUS_COUNTER_CONNECTIONS);
    ck_assert_int_eq(kill(d->pid, SIGTERM), 0);
    status = daemon_await_exit(d);
    ck_assert_msg(status == 0, "%d: %s", status, d->log);
    for (size_t i = 0; i < 12; i++)
        close(fds[i]);
    daemon_remove(d);
}

/* What the daemon has to say may have nobody to hear it any more. */
TEST(test_p10_survives_a_log_that_went_away) {
    int fd;

    daemon_start(d, NULL);
    close(d->log_fd);
    d->log_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(kill(d->pid, SIGHUP), 0);
    /* SIGHUP is handled before SIGTERM would be; a round trip each shows that it goes on. */
    for (unsigned i = 0; i < 100; i++)
        (void)wire_counter(d->bystander, VMIBUS_COUNTER_CONNECTIONS);
    fd = wire_open(d->path, NULL);
    close(fd);
    daemon_stop(d);
}

/* --- the socket -------------------------------------------------------------------------------- */

static int exit_status_of_second(const char *path, const char *said) {
    struct daemon second = {.options = {.arguments = {"--socket", path}}, .bystander = -1};
    int status;

    daemon_spawn(&second, &second.options);
    status = daemon_await_exit(&second);
    ck_assert_msg(strstr(second.log, said) != NULL, "it said: %s", second.log);
    ck_assert_ptr_null(strstr(second.log, "serving"));
    daemon_remove(&second);
    return status;
}

TEST(test_second_daemon_on_the_same_socket_is_refused) {
    int fd;

    daemon_start(d, NULL);
    ck_assert_int_eq(exit_status_of_second(d->path, "another daemon listens there"), 1);
    fd = wire_open(d->path, NULL);
    close(fd);
    daemon_stop(d);
}

TEST(test_second_daemon_on_the_same_state_is_refused) {
    struct daemon second = {};
    char state[128];
    int status;

    daemon_start(d, NULL);
    snprintf(state, sizeof(state), "%s/state", d->directory);
    second.options.arguments[0] = "--state-directory";
    second.options.arguments[1] = state;
    daemon_spawn(&second, &second.options);
    status = daemon_await_exit(&second);
    ck_assert_msg(strstr(second.log, "another daemon") != NULL, "it said: %s", second.log);
    ck_assert_int_eq(status, 1);
    daemon_remove(&second);
    daemon_stop(d);
}

/* The socket's path is given by hand, and may be wrong. */
TEST(test_what_is_no_dead_socket_is_not_removed) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct daemon files = {};
    char path[96];
    int fd;

    strcpy(files.directory, "/tmp/vmibusd-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(files.directory));
    daemon_write_file(&files, "precious", "precious");
    snprintf(path, sizeof(path), "%s/precious", files.directory);
    ck_assert_int_eq(exit_status_of_second(path, "no socket; remove it, or give another path"), 1);
    ck_assert_int_eq(access(path, F_OK), 0);

    /* Somebody listens, but speaks another kind of socket. */
    snprintf(path, sizeof(path), "%s/packets", files.directory);
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert_int_eq(exit_status_of_second(path, "another daemon listens there"), 1);
    ck_assert_int_eq(access(path, F_OK), 0);
    close(fd);
    daemon_remove(&files);
}

TEST(test_socket_of_a_dead_daemon_is_taken_over) {
    daemon_start(d, NULL);
    daemon_kill(d);
    ck_assert_int_eq(access(d->path, F_OK), 0);
    daemon_restart(d);
    daemon_stop(d);
}

/* --- numbers that are used once ---------------------------------------------------------------- */

#define LIVES 4
#define TOKENS 8

struct numbers {
    uint32_t incarnation;
    uint64_t generation, epoch, tokens[TOKENS];
};

static void use_numbers(struct numbers *numbers) {
    struct vmibus_frame welcome, frame;
    struct wire_endpoint vm;
    int fd = wire_open(d->path, &welcome);

    numbers->incarnation = welcome.welcome.incarnation;
    vm = wire_find(fd, "stub-0");
    numbers->generation = vm.generation;
    numbers->epoch = vm.epoch;
    for (size_t i = 0; i < TOKENS; i++) {
        numbers->tokens[i] = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
        frame = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
        frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
        frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
        frame.cmd_lease.token = numbers->tokens[i];
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    }
    close(fd);
}

TEST(test_p05_numbers_only_rise_over_sigkill) {
    struct numbers last = {}, now;
    struct vmibus_frame frame;
    struct wire_endpoint vm;
    int fd;

    for (unsigned life = 0; life < LIVES; life++) {
        if (life == 0)
            daemon_start(d, NULL);
        else
            daemon_restart(d);
        if (life > 0) {
            /* What was lawful in the last life is not in this one. */
            fd = wire_open(d->path, NULL);
            vm = wire_find(fd, "stub-0");
            frame = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
            frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RENEW;
            frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
            frame.cmd_lease.token = last.tokens[TOKENS - 1];
            ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
            (void)wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
            frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &vm);
            frame.cmd_memwrite.token = last.tokens[TOKENS - 1];
            frame.cmd_memwrite.epoch = vm.epoch;
            frame.cmd_memwrite.len = 1;
            ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
            frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &vm);
            frame.header.generation = last.generation;
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
            frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &vm);
            frame.mem_attach.epoch = last.epoch;
            ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_EPOCH);
            close(fd);
        }
        use_numbers(&now);
        ck_assert_uint_gt(now.incarnation, last.incarnation);
        ck_assert_uint_gt(now.generation, last.generation);
        ck_assert_uint_gt(now.epoch, last.epoch);
        ck_assert_uint_eq(now.generation >> 32, now.incarnation);
        ck_assert_uint_eq(now.epoch >> 32, now.incarnation);
        for (size_t i = 0; i < TOKENS; i++) {
            ck_assert_uint_gt(now.tokens[i], i ? now.tokens[i - 1] : last.tokens[TOKENS - 1]);
            ck_assert_uint_eq(now.tokens[i] >> 32, now.incarnation);
        }
        last = now;
        if (life < LIVES - 1)
            daemon_kill(d);
    }
    daemon_stop(d);
}

TEST(test_p05_damaged_incarnation_is_refused_with_the_remedy) {
    static const char *const damaged[] = {
        "", "\n", "x\n", "12", "12x\n", "-1\n", "-18446744073709551615\n", "4294967296\n", "99999999999999999999999999999999999\n",
        "0x10\n", " \n", "12\n13\n", "+5\n", "\t7\n",
    };

    daemon_start(d, NULL);
    daemon_kill(d);
    for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
        daemon_write_file(d, "state/incarnation", damaged[i]);
        daemon_respawn(d);
        ck_assert_msg(daemon_await_exit(d) == 1, "case %zu", i);
        ck_assert_msg(strstr(d->log, "holds no number; put one there that is higher than any used before"), "case %zu: %s", i,
                      d->log);
    }
    /* The last number there is: nothing can be higher. */
    daemon_write_file(d, "state/incarnation", "4294967295\n");
    daemon_respawn(d);
    ck_assert_int_eq(daemon_await_exit(d), 1);
    daemon_write_file(d, "state/incarnation", "70000\n");
    daemon_restart(d);
    daemon_stop(d);
}

TEST(test_p10_audit_log_that_cannot_be_is_no_reason_to_end) {
    char path[128];

    for (unsigned i = 0; i < 3; i++) {
        daemon_start(d, NULL);
        daemon_kill(d);
        snprintf(path, sizeof(path), "%s/state/audit/bus.log", d->directory);
        ck_assert_int_eq(unlink(path), 0);
        if (i == 0)
            ck_assert_int_eq(mkdir(path, 0700), 0);
        else if (i == 1)
            ck_assert_int_eq(mkfifo(path, 0600), 0);
        else
            ck_assert_int_eq(symlink("/dev/full", path), 0);
        daemon_respawn(d);
        daemon_await_log(d, "commands are not recorded");
        ck_assert_int_eq(kill(d->pid, SIGTERM), 0);
        ck_assert_int_eq(daemon_await_exit(d), 0);
        daemon_remove(d);
    }
}

HARNESS_SUITE("lifetime", HARNESS_QUICK)
