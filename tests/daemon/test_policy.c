/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who may do what, over sockets, and how that changes while the daemon runs. */
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define STRANGER 54321 /* a uid that nobody has */
#define ROOT_RULE "[rule root]\nuser = 0\ncapabilities = all\n"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

/* Runs a function as another user; what it asserts is asserted. */
static void as_stranger(void (*function)(void)) {
    pid_t pid;
    int status;

    if (geteuid() != 0)
        test_skip("another user's connection needs root");
    fflush(NULL);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (setgroups(0, NULL) < 0 || setresgid(STRANGER, STRANGER, STRANGER) < 0 || setresuid(STRANGER, STRANGER, STRANGER) < 0)
            _exit(2);
        function();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the stranger ended with %#x", status);
}

static void expect_no_grant(void) {
    struct vmibus_frame hello = wire_hello(), last;
    int fd = wire_connect(d->path);

    (void)wire_send(fd, &hello, NULL, 0);
    last = wire_expect_end(fd, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT);
    ck_assert_uint_eq(last.header.delivery, 1);
    close(fd);
}

TEST(test_p01_strangers_are_denied_by_default) {
    daemon_start(d, NULL);
    for (int i = 0; i < 20; i++)
        as_stranger(expect_no_grant);
    ck_assert_uint_ge(wire_counter(d->bystander, VMIBUS_COUNTER_CONNECTIONS_REFUSED), 20);
    daemon_stop(d);
}

/* May observe stub-1 and use its input, and nothing else. */
#define STRANGER_RULE                                                                                                     \
    "[rule stranger]\n"                                                                                                   \
    "user = 54321\n"                                                                                                      \
    "endpoints = stub-1\n"                                                                                                \
    "capabilities = OBSERVE INPUT\n"                                                                                      \
    "lease-ttl-ms = 1000000\n"

static void expect_subset(void) {
    uint64_t kinds = UINT64_MAX;
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE), answer;
    struct wire_endpoint seen = {}, unseen;
    uint8_t tail[WIRE_TAIL];
    int fd = wire_open(d->path, NULL);

    frame.subscribe.kinds = kinds;
    ck_assert(wire_send(fd, &frame, "*", 1));
    for (;;) {
        ck_assert(wire_receive(fd, &answer, tail));
        if (answer.header.kind == VMIBUS_KIND_ACK)
            break;
        ck_assert_uint_ne(answer.header.kind, VMIBUS_KIND_MEMCTX);
        ck_assert_uint_ne(answer.header.kind, VMIBUS_KIND_SENSOR);
        if (answer.header.kind == VMIBUS_KIND_ROSTER) {
            ck_assert_uint_eq(answer.header.tail_length, 6);
            ck_assert_mem_eq(tail, "stub-1", 6);
            seen = (struct wire_endpoint){.slot = answer.header.slot, .generation = answer.header.generation};
        }
        ck_assert_uint_eq(answer.header.slot, seen.slot);
    }
    ck_assert_uint_ne(seen.slot, 0);
    /* The other one is as if it were not there. */
    unseen = (struct wire_endpoint){.slot = seen.slot == 1 ? 2 : 1};
    for (uint64_t generation = seen.generation - 3; generation < seen.generation + 3; generation++) {
        unseen.generation = generation;
        frame = wire_command(VMIBUS_KIND_QUERY, &unseen);
        frame.query.query = VMIBUS_QUERY_GRANT;
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
        frame = wire_command(VMIBUS_KIND_CMD_POWER, &unseen);
        frame.cmd_power.operation = VMIBUS_POWER_OPERATION_QUIT;
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
        frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &unseen);
        frame.cmd_memwrite.len = 8;
        ck_assert_uint_ne(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
        frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &unseen);
        ck_assert_uint_ne(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    }
    frame = wire_command(VMIBUS_KIND_QUERY, &seen);
    frame.query.query = VMIBUS_QUERY_GRANT;
    answer = wire_ask(fd, &frame, NULL, 0);
    ck_assert_uint_eq(answer.ack.count, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_INPUT);
    frame = wire_frame(VMIBUS_KIND_QUERY);
    frame.query.query = VMIBUS_QUERY_STATS;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &seen);
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    for (int lease_class = VMIBUS_LEASE_CLASS_POWER; lease_class <= VMIBUS_LEASE_CLASS_MEMWRITE; lease_class++) {
        frame = wire_command(VMIBUS_KIND_CMD_LEASE, &seen);
        frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
        frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
        frame.cmd_lease.lease_class = (uint8_t)lease_class;
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    }
    (void)wire_acquire(fd, &seen, VMIBUS_LEASE_CLASS_INPUT);
    close(fd);
}

TEST(test_p01_granted_subset_is_all_there_is) {
    const struct daemon_options options = {.config = ROOT_RULE STRANGER_RULE};

    daemon_start(d, &options);
    as_stranger(expect_subset);
    daemon_stop(d);
}

static void hold_until_denied(void) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE), event;
    struct wire_endpoint vm;
    int fd = wire_open(d->path, NULL);

    frame.subscribe.kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER);
    ck_assert(wire_send(fd, &frame, "*", 1));
    event = wire_await(fd, VMIBUS_KIND_ROSTER);
    vm = (struct wire_endpoint){.slot = event.header.slot, .generation = event.header.generation};
    (void)wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_INPUT);
    ck_assert_int_eq(kill(getppid(), SIGUSR1), 0);
    wire_expect_end(fd, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT);
    close(fd);
}

TEST(test_p01_reload_takes_effect_at_once) {
    const struct daemon_options options = {.config = ROOT_RULE STRANGER_RULE};
    sigset_t set;
    int signal, status;
    pid_t pid;

    if (geteuid() != 0)
        test_skip("another user's connection needs root");
    daemon_start(d, &options);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        /* The real uid stays, so that the parent may be signalled. */
        if (setgroups(0, NULL) < 0 || setresuid(0, STRANGER, 0) < 0)
            _exit(2);
        hold_until_denied();
        _exit(0);
    }
    sigwait(&set, &signal);
    ck_assert_uint_eq(wire_counter(d->bystander, VMIBUS_COUNTER_LEASES_HELD), 1);
    daemon_reload(d, ROOT_RULE);
    daemon_await_log(d, "the policy was read anew");
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    as_stranger(expect_no_grant);
    daemon_reload(d, ROOT_RULE STRANGER_RULE);
    daemon_await_log(d, "the policy was read anew");
    as_stranger(expect_subset);
    daemon_stop(d);
}

TEST(test_broken_configuration_names_the_line_and_changes_nothing) {
    static const struct {
        const char *text, *said;
    } broken[] = {
        {ROOT_RULE "nonsense\n", "vmibusd.conf:4: neither [section] nor key = value"},
        {ROOT_RULE "[rule stranger]\nuser = no-such-user\n", "vmibusd.conf:5: user = no-such-user: there is no such user"},
        {ROOT_RULE "[rule stranger]\neverybody = yes\ncapabilities = EVERYTHING\n", "vmibusd.conf:6: capabilities: there is no"},
        {"[daemon]\nmax-connections = many\n", "vmibusd.conf:2: max-connections = many: a number from 1 to 65536"},
        {"[daemon]\nmax-connections = -1\n", "vmibusd.conf:2: max-connections = -1: a number"},
        {"[daemon]\nmax-connections = 4294967297\n", "vmibusd.conf:2: max-connections = 4294967297: a number"},
        {"[daemon]\nsocket-mode = 0999\n", "vmibusd.conf:2: socket-mode"},
        {"[daemon]\nsocket-mode = -1\n", "vmibusd.conf:2: socket-mode"},
        {"[daemon]\nsmall-writes = there\n", "vmibusd.conf:2: small-writes"},
        {"[daemon]\nno-such-key = 1\n", "vmibusd.conf:2: unknown key 'no-such-key'"},
        {"[limits]\nconnections = 99999999999999999999\n", "vmibusd.conf:2: connections"},
        {"[nothing]\nx = y\n", "vmibusd.conf:2: unknown section [nothing]"},
        {"[rule x]\nuser = 54321\n", "[rule x] grants nothing"},
        {"[rule x]\ncapabilities = all\n", "[rule x] names nobody"},
        {"[rule x]\nuser = 1\nendpoints = web*\ncapabilities = observe admin\n", "[rule x] cannot give admin"},
        {"[rule x]\neverybody = no\n", "vmibusd.conf:2: everybody = no"},
        {"[rule x]\nuser = 54321\ngroup = 54321\ncapabilities = all\n", "vmibusd.conf:3: [rule x] names somebody already"},
        {"[rule x]\nuser = 0\ncapabilities = all\n[rule x]\nuser = 54321\n", "vmibusd.conf:5: [rule x] names somebody already"},
        {"[rule a-name-that-is-longer-than-the-parser-would-take-it-1]\n", "vmibusd.conf:1: the name of the section is longer"},
        {"[rule x]\nendpoints = a*\n rank = many\n", "vmibusd.conf:3: rank = many"},
        {"[rule x]\nwrite-gpa = 0x1000\n", "vmibusd.conf:2: write-gpa = 0x1000: one to 32 ranges FIRST-LAST"},
        {"[rule x]\nwrite-gva = 2-1\n", "vmibusd.conf:2: write-gva = 2-1: one to 32 ranges FIRST-LAST"},
        {"[rule x]\nwrite-protect = rom\n", "vmibusd.conf:2: write-protect = rom: known are kernel-text and page-tables"},
        {"[rule x]\nwrite-size = 0\n", "vmibusd.conf:2: write-size = 0: a number from 1"},
        {"[rule x]\nwrite-rate = -1\n", "vmibusd.conf:2: write-rate = -1: a number from 1"},
        {"[rule x]\nwrite-speed = 1\n", "vmibusd.conf:2: unknown key 'write-speed' in [rule x]"},
        {"\x01\x02\xff\n", "vmibusd.conf:1:"},
        {"[daemon\n", "vmibusd.conf:1:"},
    };
    const struct daemon_options options = {.config = ROOT_RULE};

    daemon_start(d, &options);
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        daemon_reload(d, broken[i].text);
        daemon_await_log(d, broken[i].said);
        daemon_await_log(d, "the policy stays as it was");
        as_stranger(expect_no_grant);
    }
    /* Neither does it start with one. */
    daemon_kill(d);
    daemon_respawn(d);
    ck_assert_int_eq(daemon_await_exit(d), 1);
    ck_assert_ptr_nonnull(strstr(d->log, "vmibusd.conf:1:"));
    daemon_remove(d);
}

/* What follows in a comment, however long it is, must not become a setting. */
TEST(test_p01_long_lines_are_refused_and_not_cut) {
    static const char rule[] = ROOT_RULE "[rule y]\nuser = 54322\ncapabilities = OBSERVE\n# ";
    const struct daemon_options options = {.config = ROOT_RULE};
    char text[1024];

    daemon_start(d, &options);
    for (size_t i = 100; i < 320; i++) {
        memcpy(text, rule, sizeof(rule));
        memset(text + sizeof(rule) - 1, ' ', i);
        strcpy(text + sizeof(rule) - 1 + i, "everybody = yes\n");
        daemon_reload(d, text);
        if (i < 150)
            daemon_await_log(d, "the policy was read anew");
        else if (i > 200)
            daemon_await_log(d, "vmibusd.conf:7: the line is longer than");
        daemon_await_log(d, i < 150 ? "" : "the policy ");
        as_stranger(expect_no_grant);
    }
    daemon_stop(d);
}

/* The daemon listens to its own sensors whatever its rules say of its uid. */
TEST(test_p10_rules_that_do_not_name_the_daemon) {
    const struct daemon_options options = {.config = STRANGER_RULE, .unready = true};

    daemon_spawn(d, &options);
    daemon_await_log(d, "serving at");
    daemon_await_log(d, "sensor stub: ");
    as_stranger(expect_subset);
    daemon_reload(d, ROOT_RULE STRANGER_RULE);
    daemon_await_log(d, "the policy was read anew");
    ck_assert_int_eq(kill(d->pid, SIGTERM), 0);
    ck_assert_int_eq(daemon_await_exit(d), 0);
    daemon_remove(d);
}

HARNESS_SUITE("policy", HARNESS_QUICK)
