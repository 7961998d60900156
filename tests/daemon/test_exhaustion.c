/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Users that take all they can get of one thing, and keep it.  Meanwhile a bystander of another uid completes its round
 * trips, hears every event and is not disconnected; afterwards nothing is charged to anybody and no descriptor is open.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define USERS 4
#define PEERS 6
#define FIRST_UID 60001
#define ROUNDS 30
#define TAIL_BOUND 65536

static const struct daemon_options options = {
    .config = "[daemon]\n"
              "hello-timeout-ms = 600000\n"
              "frame-timeout-ms = 600000\n"
              "tail-bound = 65536\n"
              "queue-depth = 64\n"
              "audit-records = 64\n"
              "[limits]\n"
              "connections = 8\n"
              "events = 128\n"
              "[limits-total]\n"
              "connections = 128\n"
              "events = 256\n"
              "descriptors = 128\n"
              "attachments = 32\n"
              "leases = 64\n"
              "waiters = 16\n"
              "subscriptions = 256\n"
              "tails = 8\n"
              "[rule everybody]\n"
              "everybody = yes\n"
              "capabilities = all\n",
};

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;
static struct wire_endpoint target, other;
static int hoarders[USERS][PEERS];
static int watcher;
static uint64_t watched;

/* --- who does what ----------------------------------------------------------------------------- */

static void become(uid_t uid) {
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(seteuid(uid), 0);
}

static void send_ignored(int fd, const void *octets, size_t length) {
    (void)!send(fd, octets, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_frame(int fd, struct vmibus_frame *frame, const void *tail, size_t length) {
    uint8_t octets[sizeof(*frame) + 256];

    ck_assert_uint_le(length, 256);
    frame->header.tail_length = (uint32_t)length;
    memcpy(octets, frame, sizeof(*frame));
    if (length)
        memcpy(octets + sizeof(*frame), tail, length);
    send_ignored(fd, octets, sizeof(*frame) + length);
}

static void take_nothing(int fd) {
    (void)fd;
}

static void half_a_hello(int fd) {
    struct vmibus_frame hello = wire_hello();

    send_ignored(fd, &hello, 100);
}

static void half_a_frame(int fd) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, &target);

    send_ignored(fd, &frame, 127);
}

static void subscriptions(int fd) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);
    char pattern[255];

    /* The dearest pattern to match that there is: a set of all but one octet, at every place. */
    memset(pattern, 'z', sizeof(pattern));
    memcpy(pattern, "*[", 2);
    pattern[254] = ']';
    for (unsigned i = 0; i < 80; i++) {
        pattern[250] = (char)('a' + i % 26);
        pattern[249] = (char)('a' + i / 26);
        frame.header.correlation++;
        frame.subscribe.kinds = UINT64_MAX;
        send_frame(fd, &frame, pattern, sizeof(pattern));
    }
}

static void unread_answers(int fd) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_QUERY);

    frame.query.query = VMIBUS_QUERY_STATS;
    for (unsigned i = 0; i < 600; i++)
        send_frame(fd, &frame, NULL, 0);
}

static void unread_events(int fd) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    frame.subscribe.kinds = UINT64_MAX;
    send_frame(fd, &frame, "*", 1);
    unread_answers(fd); /* they fill the socket, so that events wait in the daemon */
}

static void lease_of(int fd, const struct wire_endpoint *vm, enum vmibus_lease_mode mode) {
    for (uint8_t lease_class = VMIBUS_LEASE_CLASS_POWER; lease_class <= VMIBUS_LEASE_CLASS_MEMWRITE; lease_class++) {
        struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, vm);

        frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
        frame.cmd_lease.lease_class = lease_class;
        frame.cmd_lease.mode = (uint8_t)mode;
        send_frame(fd, &frame, NULL, 0);
    }
}

static void leases_and_lines(int fd) {
    lease_of(fd, &target, VMIBUS_LEASE_MODE_QUEUE);
    lease_of(fd, &other, VMIBUS_LEASE_MODE_QUEUE);
}

static void descriptors(int fd) {
    for (unsigned i = 0; i < 40; i++) {
        struct vmibus_frame frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &target);

        frame.mem_attach.epoch = target.epoch;
        send_frame(fd, &frame, NULL, 0);
        frame = wire_command(VMIBUS_KIND_MEM_RELEASE, &target);
        frame.mem_release.epoch = target.epoch;
        send_frame(fd, &frame, NULL, 0);
    }
}

static void attachments(int fd) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &target);

    frame.mem_attach.epoch = target.epoch;
    send_frame(fd, &frame, NULL, 0);
    frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &other);
    frame.mem_attach.epoch = other.epoch;
    send_frame(fd, &frame, NULL, 0);
}

static void tails(int fd) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &target);

    frame.cmd_memwrite.len = TAIL_BOUND;
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame.header.tail_length = TAIL_BOUND;
    send_ignored(fd, &frame, sizeof(frame));
    send_ignored(fd, "dribble", 7);
}

static void buffers(int fd) {
    for (unsigned i = 0; i < 100; i++) {
        struct vmibus_frame frame = wire_frame(VMIBUS_KIND_BUFFER);

        frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
        frame.buffer.size = 1u << 20;
        send_frame(fd, &frame, NULL, 0);
    }
}

static void refused_commands(int fd) {
    for (unsigned i = 0; i < 600; i++) {
        struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_INPUT, &target);

        frame.cmd_input.count = 1;
        frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
        send_frame(fd, &frame, NULL, 0);
    }
}

static const struct hoard {
    const char *name;
    bool silent;            /**< without HELLO */
    void (*take)(int fd);
} hoards[] = {
    {"connections", false, take_nothing},      {"silent connections", true, take_nothing},
    {"half-open handshakes", true, half_a_hello}, {"half frames", false, half_a_frame},
    {"subscriptions", false, subscriptions},   {"events unread", false, unread_events},
    {"answers unread", false, unread_answers}, {"leases and lines", false, leases_and_lines},
    {"descriptors unread", false, descriptors}, {"attachments", false, attachments},
    {"tails", false, tails},                   {"buffers", false, buffers},
    {"refused commands", false, refused_commands},
};
#define N_HOARDS (sizeof(hoards) / sizeof(hoards[0]))

/* --- the bystander ----------------------------------------------------------------------------- */

static void hoard(const struct hoard *what) {
    for (unsigned user = 0; user < USERS; user++) {
        become(FIRST_UID + user);
        for (unsigned i = 0; i < PEERS; i++) {
            hoarders[user][i] = what->silent ? wire_connect(d->path) : wire_open(d->path, NULL);
            what->take(hoarders[user][i]);
        }
    }
    become(0);
}

/* The daemon has done what it was asked for, as far as it goes: only these questions are still received. */
static void settle(void) {
    uint64_t last = 0;

    for (unsigned calm = 0; calm < 50;) {
        uint64_t now = wire_counter(d->bystander, VMIBUS_COUNTER_COMMANDS_RECEIVED);

        calm = now - last == 1 ? calm + 1 : 0;
        last = now;
    }
}

static void let_go(void) {
    for (unsigned user = 0; user < USERS; user++)
        for (unsigned i = 0; i < PEERS; i++)
            close(hoarders[user][i]);
}

/* The bystander takes and gives a lease, and its watcher hears of both, in step. */
static void live_on(void) {
    struct vmibus_frame frame, event;
    uint64_t token = wire_acquire(d->bystander, &target, VMIBUS_LEASE_CLASS_INPUT);
    unsigned n = 0;

    frame = wire_command(VMIBUS_KIND_CMD_LEASE, &target);
    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_INPUT;
    frame.cmd_lease.token = token;
    wire_expect(d->bystander, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    do {
        ck_assert_msg(wire_receive(watcher, &event, NULL), "the watcher was disconnected");
        ck_assert_uint_eq(event.header.delivery, ++watched);
        ck_assert_msg(event.header.kind != VMIBUS_KIND_GAP, "the watcher lost %u", event.gap.count);
        n += event.header.kind == VMIBUS_KIND_LEASE && event.lease.token == token;
    } while (!(n >= 2 && event.lease.lease_class == VMIBUS_LEASE_CLASS_INPUT && event.lease.state == VMIBUS_LEASE_STATE_FREE));
}

static void watch(void) {
    uint64_t correlation;
    struct vmibus_frame frame;

    watcher = wire_open(d->path, NULL);
    correlation = wire_subscribe(watcher, "stub-0", VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE));
    do {
        ck_assert(wire_receive(watcher, &frame, NULL));
        watched = frame.header.delivery;
    } while (frame.header.kind != VMIBUS_KIND_ACK || frame.header.correlation != correlation);
}

TEST(test_p08_p09_bystander_while_others_hoard, .iterations = N_HOARDS) {
    const struct hoard *what = &hoards[_i];
    int fd;

    if (geteuid() != 0)
        test_skip("needs root, to be several users");
    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    target = wire_find(fd, "stub-0");
    other = wire_find(fd, "stub-1");
    close(fd);
    watch();
    hoard(what);
    for (unsigned i = 0; i < ROUNDS; i++)
        live_on();
    settle();
    for (unsigned i = 0; i < ROUNDS; i++)
        live_on();
    let_go();
    for (unsigned i = 0; i < ROUNDS; i++)
        live_on();
    close(watcher);
    daemon_stop(d);
}

/* --- what is told ------------------------------------------------------------------------------ */

TEST(test_p08_refused_connection_names_limit_use_and_bound) {
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

/* The record of one limit and uid in the answer to QUERY LIMITS; uid -1: the total. */
static bool find_use(int fd, enum vmibus_reason limit, int64_t uid, struct vmibus_limit_use *found) {
    static uint8_t tail[WIRE_TAIL];
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_QUERY), answer;
    struct vmibus_limit_use use;

    frame.query.query = VMIBUS_QUERY_LIMITS;
    ck_assert(wire_send(fd, &frame, NULL, 0));
    answer = wire_answer(fd, frame.header.correlation, tail);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer.ack.count * sizeof(use), answer.header.tail_length);
    for (uint32_t at = 0; at < answer.header.tail_length; at += sizeof(use)) {
        memcpy(&use, tail + at, sizeof(use));
        if (use.limit != limit || (uid < 0 ? !use.total : use.total || use.uid != (uint32_t)uid))
            continue;
        *found = use;
        return true;
    }
    return false;
}

TEST(test_p08_limits_tell_who_uses_what) {
    static const struct daemon_options watched_by_few = {
        .config = "[limits]\nleases = 7\n[limits-total]\nleases = 40\n"
                  "[rule root]\nuser = 0\ncapabilities = all\n"
                  "[rule user]\nuser = 60001\ncapabilities = OBSERVE POWER INPUT\n",
    };
    struct vmibus_limit_use use;
    struct wire_endpoint vm;
    int fd;

    if (geteuid() != 0)
        test_skip("needs root, to be another user");
    daemon_start(d, &watched_by_few);
    become(FIRST_UID);
    fd = wire_open(d->path, NULL);
    become(0);
    watcher = wire_open(d->path, NULL);
    vm = wire_find(watcher, "stub-0");
    close(watcher);
    (void)wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
    (void)wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_INPUT);
    ck_assert(find_use(fd, VMIBUS_REASON_LIMIT_LEASES, -1, &use));
    ck_assert_uint_eq(use.used, 2);
    ck_assert_uint_eq(use.bound, 40);
    ck_assert(find_use(fd, VMIBUS_REASON_LIMIT_LEASES, FIRST_UID, &use));
    ck_assert_uint_eq(use.used, 2);
    ck_assert_uint_eq(use.bound, 7);
    /* Of others only whoever may see STATS is told. */
    ck_assert(!find_use(fd, VMIBUS_REASON_LIMIT_CONNECTIONS, 0, &use));
    ck_assert(find_use(d->bystander, VMIBUS_REASON_LIMIT_LEASES, FIRST_UID, &use));
    ck_assert_uint_eq(use.used, 2);
    ck_assert(find_use(d->bystander, VMIBUS_REASON_LIMIT_CONNECTIONS, 0, &use));
    close(fd);
    daemon_stop(d);
}

HARNESS_SUITE("exhaustion", HARNESS_QUICK)
