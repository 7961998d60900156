/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Too many connections, connections that do not read, and connections that end at the wrong moment. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static void expect_alive(int fd) {
    (void)wire_counter(fd, VMIBUS_COUNTER_CONNECTIONS);
}

/* --- many -------------------------------------------------------------------------------------- */

TEST(test_p08_ten_thousand_connections_one_by_one, .timeout = 120) {
    unsigned n = 10000 / harness_scale(1);

    daemon_start(d, NULL);
    for (unsigned i = 0; i < n; i++) {
        int fd = i % 2 ? wire_connect(d->path) : wire_open(d->path, NULL);

        if (i % 4 == 0)
            wire_subscribe(fd, "*", UINT64_MAX);
        close(fd);
        /* Closed sockets wait for the daemon too; it is to be sent more than it has room for. */
        if (i % 64 == 0)
            expect_alive(d->bystander);
    }
    daemon_stop(d);
}

/* Connects without waiting for a place in the backlog. -1: there is none. */
static int try_connect(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    ck_assert_int_ge(fd, 0);
    strcpy(address.sun_path, d->path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    ck_assert_int_eq(errno, EAGAIN);
    close(fd);
    return -1;
}

TEST(test_p08_storm_of_connections_meets_the_quota) {
    const struct daemon_options options = {.config = "[limits]\nconnections = 50\n"};
    struct vmibus_frame hello = wire_hello(), frame;
    unsigned let_in = 0, refused = 0;
    int fds[400];

    daemon_start(d, &options);
    for (size_t i = 0; i < 400; i++) {
        while ((fds[i] = try_connect()) < 0)
            expect_alive(d->bystander);
        ck_assert_int_eq((int)send(fds[i], &hello, sizeof(hello), MSG_NOSIGNAL | MSG_DONTWAIT) == -1 ? errno : EPIPE, EPIPE);
    }
    for (size_t i = 0; i < 400; i++) {
        struct pollfd ready = {.fd = fds[i], .events = POLLIN};

        ck_assert_int_eq(poll(&ready, 1, -1), 1);
        ck_assert(wire_receive(fds[i], &frame, NULL));
        if (frame.header.kind == VMIBUS_KIND_WELCOME) {
            let_in++;
            continue;
        }
        ck_assert_uint_eq(frame.header.kind, VMIBUS_KIND_ERROR);
        ck_assert_uint_eq(frame.error.error, VMIBUS_ERROR_QUOTA);
        ck_assert_uint_eq(frame.error.reason, VMIBUS_REASON_LIMIT_CONNECTIONS);
        ck_assert_uint_eq(frame.error.bound, 50);
        ck_assert_uint_eq(frame.error.value, 50);
        refused++;
    }
    ck_assert_uint_eq(let_in, 49); /* and the bystander */
    ck_assert_uint_eq(refused, 351);
    ck_assert_uint_ge(wire_counter(d->bystander, VMIBUS_COUNTER_CONNECTIONS_REFUSED), refused);
    for (size_t i = 0; i < 400; i++)
        close(fds[i]);
    daemon_await_idle(d);
    /* The places are free again. */
    fds[0] = wire_open(d->path, NULL);
    close(fds[0]);
    daemon_stop(d);
}

TEST(test_p08_limits_of_all_name_what_they_are) {
    const struct daemon_options all = {.config = "[limits-total]\nconnections = 6\n"};
    const struct daemon_options most = {.config = "[daemon]\nmax-connections = 7\n"};
    struct vmibus_frame last;
    int fds[3];

    /* One user alone has half: there is room for another. */
    for (unsigned i = 0; i < 2; i++) {
        daemon_start(d, i ? &most : &all);
        fds[0] = wire_open(d->path, NULL);
        fds[1] = wire_open(d->path, NULL);
        fds[2] = wire_connect(d->path);
        last = wire_expect_end(fds[2], VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_CONNECTIONS);
        ck_assert_uint_eq(last.error.bound, i ? 7 : 6);
        ck_assert_uint_eq(last.error.value, 3);
        for (size_t j = 0; j < 3; j++)
            close(fds[j]);
        daemon_stop(d);
    }
}

/* The daemon has no descriptor left for another connection: it waits, does not spin, and goes on when there is one. */
TEST(test_p08_daemon_out_of_descriptors) {
    const struct daemon_options options = {.descriptors = 48};
    struct vmibus_frame frame, hello = wire_hello();
    int fds[60];

    daemon_start(d, &options);
    for (size_t i = 0; i < 60; i++) {
        fds[i] = wire_connect(d->path); /* the backlog takes what the daemon cannot */
        ck_assert(wire_send(fds[i], &hello, NULL, 0));
    }
    expect_alive(d->bystander);
    ck_assert(daemon_is_calm(d));
    expect_alive(d->bystander);
    /* Nothing can be given away, and that is told. */
    frame = wire_frame(VMIBUS_KIND_MEM_ATTACH);
    frame.header.slot = 1;
    ck_assert_uint_ne(wire_ask(d->bystander, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    /* Each that leaves makes room for one that waits. */
    for (size_t i = 0; i < 60; i++) {
        ck_assert_uint_eq(wire_await(fds[i], VMIBUS_KIND_WELCOME).header.kind, VMIBUS_KIND_WELCOME);
        close(fds[i]);
    }
    daemon_stop(d);
}

/* --- the deaf ---------------------------------------------------------------------------------- */

/* Sends until nothing more is taken. Returns the frames that were taken as a whole. */
static size_t stuff(int fd, const struct vmibus_frame *frame) {
    size_t n = 0, offset = 0;

    for (;;) {
        ssize_t sent = send(fd, (const char *)frame + offset, sizeof(*frame) - offset, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};

            ck_assert_int_eq(errno, EAGAIN);
            /* It is stuffed once the daemon, with nothing else to do, does not take more. */
            for (unsigned i = 0; i < 20; i++)
                expect_alive(d->bystander);
            if (poll(&writable, 1, 0) == 0)
                return n;
            continue;
        }
        offset += (size_t)sent;
        if (offset == sizeof(*frame)) {
            offset = 0;
            n++;
        }
    }
}

/* Its answers pile up, and at a bound it is not read any more. */
TEST(test_p09_peer_that_never_reads_its_answers) {
    const struct daemon_options options = {.config = "[daemon]\nframe-timeout-ms = 600000\n"};
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_QUERY);
    uint64_t before;
    size_t n;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    frame.query.query = VMIBUS_QUERY_STATS;
    before = wire_counter(d->bystander, VMIBUS_COUNTER_EVENT_BLOCKS);
    n = stuff(fd, &frame);
    ck_assert_uint_gt(n, 256);
    ck_assert_uint_le(wire_counter(d->bystander, VMIBUS_COUNTER_EVENT_BLOCKS) - before, 256 + 4);
    ck_assert(daemon_is_calm(d));
    /* It reads after all, and everything is there, in order. */
    for (uint64_t i = 2; i < n + 2; i++) {
        ck_assert(wire_receive(fd, &frame, NULL));
        ck_assert_uint_eq(frame.header.delivery, i);
        ck_assert_uint_eq(frame.ack.error, VMIBUS_ERROR_OK);
    }
    close(fd);
    daemon_stop(d);
}

TEST(test_p07_p09_peer_that_never_reads_its_events) {
    const struct daemon_options options = {
        .config = "[daemon]\nqueue-depth = 16\n",
        .arguments = {"--sensor", "stub:heartbeat_ms=1"},
    };
    const uint64_t lifecycle = VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE);
    uint64_t told = 0, delivery = 1, dropped = 0, last_publication[3] = {};
    struct vmibus_frame frame;
    int deaf;

    daemon_start(d, &options);
    deaf = wire_open(d->path, NULL);
    wire_subscribe(deaf, "*", lifecycle);
    wire_subscribe(d->bystander, "*", lifecycle);
    /* The bystander hears all that happens until the deaf one's socket and queue are full. */
    while (dropped == 0) {
        ck_assert(wire_receive(d->bystander, &frame, NULL));
        ck_assert_uint_lt(frame.header.slot, 3);
        ck_assert_uint_ne(frame.header.kind, VMIBUS_KIND_GAP);
        if (frame.header.kind != VMIBUS_KIND_LIFECYCLE)
            continue;
        ck_assert_uint_gt(frame.header.publication, last_publication[frame.header.slot]);
        last_publication[frame.header.slot] = frame.header.publication;
        if (++told % 64 == 0)
            dropped = wire_counter(d->bystander, VMIBUS_COUNTER_EVENTS_DROPPED);
    }
    /* The deaf one reads: no hole in what is delivered, a GAP, the latest state after it, and never one that is older. */
    memset(last_publication, 0, sizeof(last_publication));
    do {
        ck_assert(wire_receive(deaf, &frame, NULL));
        ck_assert_uint_eq(frame.header.delivery, ++delivery);
        if (frame.header.kind == VMIBUS_KIND_LIFECYCLE) {
            ck_assert_uint_gt(frame.header.publication, last_publication[frame.header.slot]);
            last_publication[frame.header.slot] = frame.header.publication;
        }
    } while (frame.header.kind != VMIBUS_KIND_GAP);
    ck_assert_uint_eq(frame.gap.dropped, VMIBUS_KIND_LIFECYCLE);
    ck_assert_uint_gt(frame.gap.count, 0);
    for (unsigned i = 0; i < 100; i++) {
        ck_assert(wire_receive(deaf, &frame, NULL));
        ck_assert_uint_eq(frame.header.delivery, ++delivery);
    }
    close(deaf);
    wire_subscribe(d->bystander, "*", 0);
    daemon_stop(d);
}

/* It is told to go, and does not read that either. */
TEST(test_p09_deaf_peer_that_is_told_to_go) {
    const struct daemon_options options = {.config = "[daemon]\nframe-timeout-ms = 600000\n"};
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_QUERY);
    struct pollfd gone;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    frame.query.query = VMIBUS_QUERY_STATS;
    (void)stuff(fd, &frame);
    daemon_reload(d, "[rule nobody]\nuser = 0\nendpoints = *\n"); /* a mistake: nothing happens */
    daemon_await_log(d, "the policy stays as it was");
    daemon_reload(d, "[rule other]\nuser = 12345\ncapabilities = all\n");
    daemon_await_log(d, "the policy was read anew");
    /* Both are: the bystander hears why, the deaf one is dropped after a while. */
    wire_expect_end(d->bystander, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT);
    close(d->bystander);
    gone = (struct pollfd){.fd = fd, .events = POLLRDHUP};
    ck_assert_int_eq(poll(&gone, 1, -1), 1);
    close(fd);
    daemon_reload(d, "");
    daemon_await_log(d, "the policy was read anew");
    d->bystander = wire_open(d->path, NULL);
    daemon_stop(d);
}

/* --- leaving in the middle --------------------------------------------------------------------- */

TEST(test_p08_peers_that_leave_in_the_middle_of_everything) {
    const struct daemon_options options = {.arguments = {"--sensor", "stub:execute=slow", "--sensor", "stub:execute_ms=5"}};
    uint8_t octets[5000] = {};
    unsigned seed = 7;

    daemon_start(d, &options);
    for (unsigned i = 0; i < 400; i++) {
        int fd = wire_open(d->path, NULL);
        struct wire_endpoint vm = wire_find(fd, i % 2 ? "stub-1" : "stub-0");
        enum vmibus_lease_class lease_class = (enum vmibus_lease_class)(1 + i % 3);
        struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
        uint64_t token = wire_acquire(fd, &vm, lease_class);

        if (lease_class == VMIBUS_LEASE_CLASS_INPUT) {
            frame = wire_command(VMIBUS_KIND_CMD_INPUT, &vm);
            frame.cmd_input.token = token;
            frame.cmd_input.count = 1;
            frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
            frame.cmd_input.not_before_us = i % 2 ? 1000000 : 0;
            frame.header.timestamp = UINT64_MAX / 2;
        } else if (lease_class == VMIBUS_LEASE_CLASS_POWER) {
            frame = wire_command(VMIBUS_KIND_CMD_VM, &vm);
            frame.cmd_vm.token = token;
            frame.cmd_vm.operation = i % 4 ? VMIBUS_VM_OPERATION_PAUSE : VMIBUS_VM_OPERATION_RESUME;
        } else {
            frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &vm);
            frame.cmd_memwrite.token = token;
            frame.cmd_memwrite.epoch = vm.epoch;
            frame.cmd_memwrite.gva = 0x410000;
            frame.cmd_memwrite.cr3 = 0x600000;
            frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
            frame.cmd_memwrite.len = frame.header.tail_length = sizeof(octets);
        }
        wire_write(fd, &frame, sizeof(frame));
        if (frame.header.tail_length)
            wire_write(fd, octets, i % 2 ? sizeof(octets) : (size_t)rand_r(&seed) % sizeof(octets));
        wire_write(fd, &frame, (size_t)rand_r(&seed) % sizeof(frame));
        if (i % 5 == 0)
            shutdown(fd, SHUT_WR);
        if (i % 5 == 1)
            shutdown(fd, SHUT_RD);
        close(fd);
    }
    daemon_stop(d);
}

HARNESS_SUITE("connections", HARNESS_QUICK)
