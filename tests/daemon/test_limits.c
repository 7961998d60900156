/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The limits of a user, each at its bound: what is refused, what is told of it (limit, use, bound), and that what is given
 * back can be had again.
 */
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define FIRST_UID 60001
#define KINDS_ALL UINT64_MAX

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static struct vmibus_frame lease(const struct wire_endpoint *vm, enum vmibus_lease_class lease_class, enum vmibus_lease_mode mode) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, vm);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.mode = (uint8_t)mode;
    return frame;
}

static struct vmibus_frame subscription(uint64_t kinds) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    frame.subscribe.kinds = kinds;
    return frame;
}

/* --- connections -------------------------------------------------------------------------------- */

static void become(uid_t uid) {
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(seteuid(uid), 0);
}

TEST(test_p08_refused_connection_names_limit_use_and_bound) {
    const struct daemon_options options = {
        .config = "[limits]\nconnections = 8\n[rule everybody]\neverybody = yes\ncapabilities = all\n",
    };
    struct vmibus_frame last;
    int fds[9];

    if (geteuid() != 0)
        test_skip("needs root, to be another user");
    daemon_start(d, &options);
    become(FIRST_UID);
    for (unsigned i = 0; i < 8; i++)
        fds[i] = wire_open(d->path, NULL);
    fds[8] = wire_connect(d->path);
    become(0);
    last = wire_expect_end(fds[8], VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_CONNECTIONS);
    ck_assert_uint_eq(last.error.value, 8);
    ck_assert_uint_eq(last.error.bound, 8);
    for (unsigned i = 0; i < 9; i++)
        close(fds[i]);
    daemon_stop(d);
}

/* --- leases and places in lines ------------------------------------------------------------------ */

TEST(test_p08_leases_are_bounded) {
    const struct daemon_options options = {.config = "[limits]\nleases = 2\nwaiters = 3\n"};
    struct wire_endpoint vms[2];
    struct vmibus_frame frame, answer;
    int fd, others[4];

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    vms[0] = wire_find(fd, "stub-0");
    vms[1] = wire_find(fd, "stub-1");
    (void)wire_acquire(fd, &vms[0], VMIBUS_LEASE_CLASS_INPUT);
    (void)wire_acquire(fd, &vms[0], VMIBUS_LEASE_CLASS_MEMWRITE);
    frame = lease(&vms[1], VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_FAIL);
    answer = wire_ask(fd, &frame, NULL, 0);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(answer.ack.reason, VMIBUS_REASON_LIMIT_LEASES);
    ck_assert_uint_eq(answer.ack.value, 2);
    frame = lease(&vms[0], VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_QUEUE);
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_BUSY, VMIBUS_REASON_HELD);
    for (size_t i = 0; i < 4; i++) {
        others[i] = wire_open(d->path, NULL);
        frame = lease(&vms[0], VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_FAIL);
        wire_expect(others[i], &frame, NULL, 0, VMIBUS_ERROR_BUSY, VMIBUS_REASON_HELD);
        frame = lease(&vms[0], VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_PREEMPT);
        wire_expect(others[i], &frame, NULL, 0, VMIBUS_ERROR_BUSY, VMIBUS_REASON_RANK);
        frame = lease(&vms[0], VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_QUEUE);
        if (i < 3)
            ck_assert(wire_send(others[i], &frame, NULL, 0));
        else
            wire_expect(others[i], &frame, NULL, 0, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_WAITERS);
        (void)wire_counter(d->bystander, VMIBUS_COUNTER_LEASES_HELD);
    }
    /* The first in line has gone; the next ones get it, one after the other. */
    close(others[0]);
    close(fd);
    for (size_t i = 1; i < 3; i++) {
        answer = wire_await(others[i], VMIBUS_KIND_ACK);
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
        ck_assert_uint_ne(answer.ack.token, 0);
        close(others[i]);
    }
    close(others[3]);
    daemon_stop(d);
}

/* --- subscriptions ----------------------------------------------------------------------------- */

TEST(test_p08_subscriptions_are_bounded) {
    const struct daemon_options options = {.config = "[limits]\nsubscriptions = 10\n"};
    struct vmibus_frame frame, answer;
    int fd;

    daemon_start(d, &options); /* nine: the daemon has one of its own */
    fd = wire_open(d->path, NULL);
    for (char letter = 'a'; letter < 'a' + 9; letter++) {
        frame = subscription(KINDS_ALL);
        wire_expect(fd, &frame, &letter, 1, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    }
    frame = subscription(KINDS_ALL);
    ck_assert(wire_send(fd, &frame, "z", 1));
    answer = wire_answer(fd, frame.header.correlation, NULL);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(answer.ack.reason, VMIBUS_REASON_LIMIT_SUBSCRIPTIONS);
    ck_assert_uint_eq(answer.ack.value, 10);
    /* The same again costs nothing, and an end makes room. */
    for (int i = 0; i < 20; i++) {
        frame = subscription((uint64_t)i + 1);
        wire_expect(fd, &frame, "a", 1, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    }
    frame = subscription(0);
    wire_expect(fd, &frame, "a", 1, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    frame = subscription(0);
    wire_expect(fd, &frame, "never was", 9, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    frame = subscription(KINDS_ALL);
    wire_expect(fd, &frame, "z", 1, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    close(fd);
    daemon_stop(d);
}

/* --- commands ---------------------------------------------------------------------------------- */

TEST(test_p08_commands_in_flight_are_bounded) {
    const struct daemon_options options = {
        .config = "[daemon]\ncommands = 8\nrevoke-timeout-ms = 600000\n",
        .arguments = {"--sensor", "stub:execute=hang"},
    };
    struct vmibus_frame frame, answer;
    struct wire_endpoint vm;
    uint64_t token, last = 0;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
    for (int i = 0; i < 12; i++) {
        frame = wire_command(VMIBUS_KIND_CMD_VM, &vm);
        frame.cmd_vm.token = token;
        frame.cmd_vm.operation = VMIBUS_VM_OPERATION_PAUSE;
        ck_assert(wire_send(fd, &frame, NULL, 0));
        if (i < 8)
            continue;
        answer = wire_answer(fd, frame.header.correlation, NULL);
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_QUOTA);
        ck_assert_uint_eq(answer.ack.reason, VMIBUS_REASON_LIMIT_COMMANDS);
        ck_assert_uint_eq(answer.ack.value, 8);
        last = answer.header.delivery;
    }
    ck_assert_uint_gt(last, 0);
    ck_assert_uint_eq(wire_counter(d->bystander, VMIBUS_COUNTER_COMMANDS_IN_FLIGHT), 8);
    close(fd); /* they are cancelled */
    daemon_stop(d);
}

/* --- attachments ------------------------------------------------------------------------------- */

TEST(test_p08_attachments_and_descriptors_in_flight_are_bounded) {
    const struct daemon_options options = {.config = "[limits]\nattachments = 5\ndescriptors = 12\n"};
    struct vmibus_frame frame, answer;
    struct wire_endpoint vms[2];
    unsigned refused = 0;
    int fds[8];

    daemon_start(d, &options);
    for (size_t i = 0; i < 8; i++) {
        fds[i] = wire_open(d->path, NULL);
        vms[0] = wire_find(fds[i], "stub-0");
        vms[1] = wire_find(fds[i], "stub-1");
        /* Attached and released over and over; what it is given is never read. */
        for (unsigned n = 0; n < 40; n++) {
            frame = wire_command(n % 2 ? VMIBUS_KIND_MEM_RELEASE : VMIBUS_KIND_MEM_ATTACH, &vms[i % 2]);
            frame.mem_attach.epoch = vms[i % 2].epoch;
            ck_assert(wire_send(fds[i], &frame, NULL, 0));
        }
        frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &vms[i % 2]);
        ck_assert(wire_send(fds[i], &frame, NULL, 0));
        (void)wire_counter(d->bystander, VMIBUS_COUNTER_ATTACHMENTS);
    }
    ck_assert_uint_le(wire_counter(d->bystander, VMIBUS_COUNTER_FDS_CHARGED), 12);
    ck_assert_uint_le(wire_counter(d->bystander, VMIBUS_COUNTER_ATTACHMENTS), 5);
    for (size_t i = 0; i < 8; i++) {
        for (unsigned n = 0; n < 41; n++) {
            answer = wire_await(fds[i], VMIBUS_KIND_ACK);
            if (answer.ack.error != VMIBUS_ERROR_QUOTA)
                continue;
            ck_assert(answer.ack.reason == VMIBUS_REASON_LIMIT_FDS || answer.ack.reason == VMIBUS_REASON_LIMIT_ATTACHMENTS);
            ck_assert_uint_eq(answer.ack.value, (answer.ack.reason == VMIBUS_REASON_LIMIT_FDS ? 12 : 5));
            refused++;
        }
    }
    ck_assert_uint_gt(refused, 0);
    /* What has been read is not in flight any more. */
    close(fds[0]);
    frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &vms[1]);
    ck_assert(wire_send(fds[7], &frame, NULL, 0));
    for (size_t i = 1; i < 8; i++)
        close(fds[i]);
    daemon_stop(d);
}

HARNESS_SUITE("limits", HARNESS_QUICK)
