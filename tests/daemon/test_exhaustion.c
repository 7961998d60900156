/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Users that take all they can get of one thing, and keep it.  Meanwhile a bystander of another uid completes its round
 * trips, hears every event and is not disconnected; afterwards nothing is charged to anybody and no descriptor is open.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define USERS 4
#define PEERS 6
#define FIRST_UID 60001
#define ROUNDS 30
#define PATIENCE 10000 /* round trips */
#define TAIL_BOUND 65536

#define HOARDERS (USERS * PEERS)

#define CONFIG(sensors)                                                                                                           \
    "[daemon]\n"                                                                                                                  \
    "hello-timeout-ms = 600000\n"                                                                                                 \
    "frame-timeout-ms = 600000\n"                                                                                                 \
    "hold-ms = 600000\n"                                                                                                          \
    "tail-bound = 65536\n"                                                                                                        \
    "queue-depth = 64\n"                                                                                                          \
    "audit-records = 64\n"                                                                                                        \
    "[limits]\n"                                                                                                                  \
    "connections = 8\n"                                                                                                           \
    "events = 128\n"                                                                                                              \
    "holds = 16\n"                                                                                                                \
    "[limits-total]\n"                                                                                                            \
    "connections = 128\n"                                                                                                         \
    "events = 256\n"                                                                                                              \
    "attachments = 32\n"                                                                                                          \
    "leases = 64\n"                                                                                                               \
    "waiters = 16\n"                                                                                                              \
    "subscriptions = 256\n"                                                                                                       \
    "holds = 32\n"                                                                                                                \
    "tails = 8\n" sensors "[rule everybody]\n"                                                                                    \
    "everybody = yes\n"                                                                                                           \
    "capabilities = all\n"

static const struct daemon_options few = {.config = CONFIG("descriptors = 128\n")};
static const struct daemon_options hanging = {
    .config = CONFIG("commands = 512\n"),
    .arguments = {"--stub=32", "--sensor", "stub:execute=hang"},
};
static const struct daemon_options many = {
    .config = "[limits]\ndescriptors = 4096\nevents = 4096\n[limits-total]\ndescriptors = 16384\nevents = 16384\n"
              "[rule everybody]\neverybody = yes\ncapabilities = all\n",
    .arguments = {"--stub=256"},
};

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;
static struct wire_endpoint target, other, own[HOARDERS];
static size_t n_hoarders;
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
    send_ignored(channels_for(fd, frame->header.kind), octets, sizeof(*frame) + length);
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
    fd = channels_for(fd, frame.header.kind);
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

/* Each connection commands a VM of its own that never answers. */
static void unanswered_commands(int fd) {
    const struct wire_endpoint *vm = &own[n_hoarders];
    uint64_t token = wire_acquire(fd, vm, VMIBUS_LEASE_CLASS_POWER);

    for (unsigned i = 0; i < 100; i++) {
        struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_VM, vm);

        frame.cmd_vm.operation = VMIBUS_VM_OPERATION_PAUSE;
        frame.cmd_vm.token = token;
        send_frame(fd, &frame, NULL, 0);
    }
}

static void holds(int fd) {
    for (unsigned i = 0; i < 100; i++) {
        struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_VM, i % 2 ? &target : &other);

        frame.cmd_vm.operation = VMIBUS_VM_OPERATION_HOLD;
        send_frame(fd, &frame, NULL, 0);
    }
}

/* All that is retained of all VMs, again and again under another pattern. */
static void roster_unread(int fd) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    frame.subscribe.kinds = UINT64_MAX;
    for (char letter = '0'; letter <= '9'; letter++) {
        const char pattern[] = {'*', letter, '*'};

        frame.header.correlation++;
        send_frame(fd, &frame, pattern, sizeof(pattern));
    }
}

static const struct hoard {
    const char *name;
    bool silent;                            /**< without HELLO */
    void (*take)(int fd);
    enum vmibus_reason limit;               /**< of what; each user gets some of it */
    uint64_t least;                         /**< what they have together, at least: or it would be no hoard */
    const struct daemon_options *options;
} hoards[] = {
    {"connections", false, take_nothing, VMIBUS_REASON_LIMIT_CONNECTIONS, 24, &few},
    {"silent connections", true, take_nothing, VMIBUS_REASON_LIMIT_CONNECTIONS, 24, &few},
    {"half-open handshakes", true, half_a_hello, VMIBUS_REASON_LIMIT_CONNECTIONS, 24, &few},
    {"half frames", false, half_a_frame, VMIBUS_REASON_LIMIT_CONNECTIONS, 24, &few},
    {"subscriptions", false, subscriptions, VMIBUS_REASON_LIMIT_SUBSCRIPTIONS, 100, &few},
    {"events unread", false, unread_events, VMIBUS_REASON_LIMIT_ANSWERS, 1 << 20, &few},
    {"answers unread", false, unread_answers, VMIBUS_REASON_LIMIT_ANSWERS, 1 << 20, &few},
    {"leases and lines", false, leases_and_lines, VMIBUS_REASON_LIMIT_WAITERS, 12, &few},
    {"descriptors unread", false, descriptors, VMIBUS_REASON_LIMIT_FDS, 60, &few},
    {"attachments", false, attachments, VMIBUS_REASON_LIMIT_ATTACHMENTS, 12, &few},
    {"tails", false, tails, VMIBUS_REASON_LIMIT_TAILS, 4, &few},
    {"buffers", false, buffers, VMIBUS_REASON_LIMIT_BUFFERS, 20, &few},
    {"refused commands", false, refused_commands, VMIBUS_REASON_LIMIT_CONNECTIONS, 24, &few},
    {"commands unanswered", false, unanswered_commands, VMIBUS_REASON_LIMIT_COMMANDS, 200, &hanging},
    {"holds", false, holds, VMIBUS_REASON_LIMIT_HOLDS, 16, &few},
    {"a huge roster unread", false, roster_unread, VMIBUS_REASON_LIMIT_SUBSCRIPTIONS, 200, &many},
};
#define N_HOARDS (sizeof(hoards) / sizeof(hoards[0]))

/* --- the bystander ----------------------------------------------------------------------------- */

static void hoard(const struct hoard *what) {
    for (unsigned user = 0; user < USERS; user++) {
        become(FIRST_UID + user);
        for (unsigned i = 0; i < PEERS; i++) {
            hoarders[user][i] = what->silent ? wire_connect(d->path) : wire_open(d->path, NULL);
            what->take(hoarders[user][i]);
            n_hoarders++;
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

/* How much of a limit the hoarders use; each has to have some if @a all. */
static uint64_t use_of_hoarders(enum vmibus_reason limit, bool all) {
    struct vmibus_limit_use use;
    uint64_t sum = 0;

    for (unsigned user = 0; user < USERS; user++) {
        wire_limit(d->bystander, limit, FIRST_UID + user, &use);
        ck_assert_msg(!all || use.used, "user %u has none", user);
        sum += use.used;
    }
    return sum;
}

static void let_go(void) {
    for (unsigned user = 0; user < USERS; user++)
        for (unsigned i = 0; i < PEERS; i++)
            close(hoarders[user][i]);
}

/* No limit is used by any of them any more. What they did to others is undone, too: daemon_stop() looks at that. */
static void expect_nothing_left(void) {
    for (unsigned limit = VMIBUS_REASON_LIMIT_CONNECTIONS; limit <= VMIBUS_REASON_LIMIT_ANSWERS; limit++) {
        uint64_t left = 1;

        for (unsigned i = 0; i < PATIENCE && left; i++)
            left = use_of_hoarders((enum vmibus_reason)limit, false);
        ck_assert_msg(!left, "%lu of limit %u are left", (unsigned long)left, limit);
    }
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

static void find_vms(const struct hoard *what) {
    int fd = wire_open(d->path, NULL);

    target = wire_find(fd, "stub-0");
    other = wire_find(fd, "stub-1");
    for (unsigned i = 0; i < HOARDERS && what->options == &hanging; i++) {
        char name[16];

        snprintf(name, sizeof(name), "stub-%u", i + 2);
        own[i] = wire_find(fd, name);
    }
    close(fd);
}

TEST(test_p08_p09_bystander_while_others_hoard, .iterations = N_HOARDS) {
    const struct hoard *what = &hoards[_i];

    if (geteuid() != 0)
        test_skip("needs root, to be several users");
    daemon_start(d, what->options);
    find_vms(what);
    watch();
    hoard(what);
    for (unsigned i = 0; i < ROUNDS; i++)
        live_on();
    settle();
    ck_assert_uint_ge(use_of_hoarders(what->limit, true), what->least);
    for (unsigned i = 0; i < ROUNDS; i++)
        live_on();
    let_go();
    for (unsigned i = 0; i < ROUNDS; i++)
        live_on();
    expect_nothing_left();
    close(watcher);
    daemon_stop(d);
}

HARNESS_SUITE("exhaustion", HARNESS_QUICK)
