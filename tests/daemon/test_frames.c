/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frames that are wrong, too short, too long, too late or not frames at all. */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define TAIL_BOUND 8192

/* Short timeouts, and few places for large tails. */
static const struct daemon_options short_tempered = {
    .config = "[daemon]\n"
              "hello-timeout-ms = 100\n"
              "frame-timeout-ms = 100\n"
              "tail-bound = 8192\n"
              "large-tails = 2\n"
              "[limits]\n"
              "tails = 2\n",
};

/* Nothing times out, so that what ends is ended by what it did. */
static const struct daemon_options patient = {
    .config = "[daemon]\n"
              "hello-timeout-ms = 600000\n"
              "frame-timeout-ms = 600000\n"
              "tail-bound = 8192\n"
              "large-tails = 5\n"
              "[limits]\n"
              "tails = 2\n",
};

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static struct vmibus_frame query(void) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_QUERY);

    frame.query.query = VMIBUS_QUERY_SENSORS;
    return frame;
}

static void expect_alive(int fd) {
    struct vmibus_frame frame = query();

    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

/* --- before and around HELLO ------------------------------------------------------------------- */

static void expect_refused_hello(struct vmibus_frame *frame, enum vmibus_error error, enum vmibus_reason reason) {
    int fd = wire_connect(d->path);

    wire_write(fd, frame, sizeof(*frame));
    wire_expect_end(fd, error, reason);
    close(fd);
}

TEST(test_wrong_hello_is_told_why) {
    struct vmibus_frame frame;

    daemon_start(d, &patient);
    frame = query();
    expect_refused_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_HELLO);
    frame = wire_hello();
    frame.hello.magic++;
    expect_refused_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_MAGIC);
    frame = wire_hello();
    frame.hello.version_min = frame.hello.version_max = VMIBUS_PROTOCOL_VERSION + 1;
    expect_refused_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_VERSION);
    frame = wire_hello();
    frame.hello.version_min = frame.hello.version_max = 0;
    expect_refused_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_VERSION);
    frame = wire_hello();
    frame.hello.role = VMIBUS_ROLE_BUS;
    expect_refused_hello(&frame, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT);
    frame = wire_hello();
    frame.hello.channel = VMIBUS_CHANNEL_MEMORY;
    expect_refused_hello(&frame, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT);
    frame = wire_hello();
    frame.hello.role = 77;
    expect_refused_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    frame = wire_hello();
    frame.hello.channel = 0;
    expect_refused_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    frame = wire_hello();
    frame.header.fd_count = 1;
    expect_refused_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    daemon_stop(d);
}

TEST(test_hello_of_a_later_range_is_welcome) {
    struct vmibus_frame frame = wire_hello(), welcome;
    int fd;

    daemon_start(d, &patient);
    fd = wire_connect(d->path);
    frame.hello.version_min = 0;
    frame.hello.version_max = UINT16_MAX;
    frame.header.version = 99; /* HELLO settles the version by itself */
    ck_assert(wire_send(fd, &frame, NULL, 0));
    welcome = wire_await(fd, VMIBUS_KIND_WELCOME);
    ck_assert_uint_eq(welcome.welcome.version, VMIBUS_PROTOCOL_VERSION);
    ck_assert_uint_eq(welcome.welcome.tail_bound, TAIL_BOUND);
    ck_assert_uint_ne(welcome.welcome.incarnation, 0);
    close(fd);
    daemon_stop(d);
}

TEST(test_hello_twice_is_answered_twice) {
    struct vmibus_frame frame, welcome, first;
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, &first);
    frame = wire_hello();
    ck_assert(wire_send(fd, &frame, NULL, 0));
    welcome = wire_await(fd, VMIBUS_KIND_WELCOME);
    ck_assert_mem_eq(welcome.welcome.session, first.welcome.session, sizeof(first.welcome.session));
    frame = wire_hello();
    frame.hello.magic = 0;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_MAGIC);
    frame = wire_hello();
    frame.hello.role = VMIBUS_ROLE_SENSOR;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT);
    expect_alive(fd);
    close(fd);
    daemon_stop(d);
}

TEST(test_p08_silence_before_hello_has_a_deadline) {
    struct vmibus_frame hello = wire_hello();
    int silent, half;

    daemon_start(d, &short_tempered);
    silent = wire_connect(d->path);
    half = wire_connect(d->path);
    wire_write(half, &hello, sizeof(hello) - 1);
    wire_expect_end(silent, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NO_HELLO);
    wire_expect_end(half, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NO_HELLO);
    close(silent);
    close(half);
    daemon_stop(d);
}

/* The large tails of the uid are all taken: what has no session yet cannot be answered through one. */
TEST(test_p09_tail_before_hello_while_tails_are_taken) {
    struct vmibus_frame write = wire_frame(VMIBUS_KIND_SUBSCRIBE), frame;
    uint8_t octets[TAIL_BOUND] = {};
    int hoarders[2], fd;

    daemon_start(d, &patient);
    write.header.tail_length = TAIL_BOUND;
    for (int i = 0; i < 2; i++) {
        hoarders[i] = wire_open(d->path, NULL);
        wire_write(hoarders[i], &write, sizeof(write));
        wire_write(hoarders[i], octets, 1);
        /* A round trip of another makes sure that it was read. */
        expect_alive(d->bystander);
    }
    for (int i = 0; i < 2; i++) {
        fd = wire_connect(d->path);
        frame = i ? query() : wire_hello();
        frame.header.tail_length = TAIL_BOUND;
        wire_write(fd, &frame, sizeof(frame));
        expect_alive(d->bystander);
        wire_write(fd, octets, sizeof(octets));
        wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, i ? VMIBUS_REASON_NO_HELLO : VMIBUS_REASON_BAD_LENGTH);
        close(fd);
    }
    close(hoarders[0]);
    close(hoarders[1]);
    daemon_stop(d);
}

/* --- after HELLO ------------------------------------------------------------------------------- */

TEST(test_every_kind_but_a_controls_is_refused) {
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, NULL);
    for (unsigned kind = 0; kind < 0x600; kind++) {
        struct vmibus_frame frame = wire_frame((enum vmibus_kind)kind);
        bool of_control = kind == VMIBUS_KIND_HELLO || (kind >= VMIBUS_KIND_SUBSCRIBE && kind <= VMIBUS_KIND_EXPLAIN) ||
                          (kind >= VMIBUS_KIND_CMD_MEMWRITE && kind <= VMIBUS_KIND_MEM_QUERY);

        if (!of_control)
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND);
    }
    for (unsigned kind = 0x600; kind <= UINT16_MAX; kind += 251) {
        struct vmibus_frame frame = wire_frame((enum vmibus_kind)kind);

        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND);
    }
    close(fd);
    daemon_stop(d);
}

TEST(test_wrong_headers_are_refused_one_by_one) {
    struct vmibus_frame frame;
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, NULL);
    for (unsigned direction = 0; direction < 256; direction++) {
        frame = query();
        frame.header.direction = (uint8_t)direction;
        if (direction != VMIBUS_DIRECTION_DOWN)
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_DIRECTION);
    }
    for (unsigned priority = VMIBUS_PRIORITY_URGENT + 1; priority < 256; priority++) {
        frame = query();
        frame.header.priority = (uint8_t)priority;
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_PRIORITY);
    }
    for (unsigned bit = 1; bit < 32; bit++) {
        frame = query();
        frame.header.flags = 1u << bit;
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS);
    }
    frame = query();
    frame.header.fd_count = 255;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
    frame = query();
    wire_expect(fd, &frame, "tail", 4, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    frame = query();
    frame.query.query = 99;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    /* What only the bus sets is not looked at. */
    frame = query();
    frame.header.source = UINT16_MAX;
    frame.header.publication = frame.header.delivery = UINT64_MAX;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    close(fd);
    daemon_stop(d);
}

TEST(test_wrong_endpoints_are_refused) {
    static const uint32_t slots[] = {0, 1, 2, 3, 256, 257, UINT32_MAX};
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_CMD_LEASE, VMIBUS_KIND_CMD_POWER, VMIBUS_KIND_CMD_VM,
                                             VMIBUS_KIND_CMD_INPUT, VMIBUS_KIND_MEM_ATTACH, VMIBUS_KIND_MEM_RELEASE};
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, NULL);
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++)
        for (size_t j = 0; j < sizeof(kinds) / sizeof(kinds[0]); j++)
            for (uint64_t generation = 0; generation < 3; generation++) {
                struct vmibus_frame frame = wire_frame(kinds[j]), answer;

                frame.header.slot = slots[i];
                frame.header.generation = generation == 2 ? UINT64_MAX : generation;
                if (kinds[j] == VMIBUS_KIND_CMD_LEASE) {
                    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
                    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_POWER;
                    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
                } else if (kinds[j] == VMIBUS_KIND_CMD_POWER) {
                    frame.cmd_power.operation = VMIBUS_POWER_OPERATION_QUIT;
                } else if (kinds[j] == VMIBUS_KIND_CMD_VM) {
                    frame.cmd_vm.operation = VMIBUS_VM_OPERATION_PAUSE;
                }
                answer = wire_ask(fd, &frame, NULL, 0);
                ck_assert_msg(answer.ack.error == VMIBUS_ERROR_GONE || answer.ack.error == VMIBUS_ERROR_VALIDATION,
                              "slot %u, kind %#x: error %u", slots[i], kinds[j], answer.ack.error);
            }
    close(fd);
    daemon_stop(d);
}

TEST(test_another_version_ends_the_connection) {
    struct vmibus_frame frame, last;
    int fd;

    daemon_start(d, &patient);
    for (unsigned version = 0; version < 256; version += 51) {
        if (version == VMIBUS_PROTOCOL_VERSION)
            continue;
        fd = wire_open(d->path, NULL);
        frame = query();
        frame.header.version = (uint8_t)version;
        wire_write(fd, &frame, sizeof(frame));
        last = wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_VERSION);
        ck_assert_uint_eq(last.error.offender, VMIBUS_KIND_QUERY);
        ck_assert_uint_eq(last.error.value, version);
        close(fd);
    }
    daemon_stop(d);
}

TEST(test_fields_that_are_switched_by_are_checked) {
    struct vmibus_frame frame;
    struct wire_endpoint vm;
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    for (unsigned value = 0; value < 256; value++) {
        frame = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
        frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
        frame.cmd_lease.lease_class = (uint8_t)value;
        frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
        if (value < VMIBUS_LEASE_CLASS_INPUT || value > VMIBUS_LEASE_CLASS_MEMWRITE)
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_INPUT;
        frame.cmd_lease.mode = (uint8_t)value;
        frame.header.correlation ^= 1u << 31;
        if (value < VMIBUS_LEASE_MODE_FAIL || value > VMIBUS_LEASE_MODE_PREEMPT)
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        frame.cmd_lease.operation = (uint8_t)value;
        frame.header.correlation ^= 1u << 30;
        if (value < VMIBUS_LEASE_OPERATION_ACQUIRE || value > VMIBUS_LEASE_OPERATION_RELEASE)
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        frame = wire_command(VMIBUS_KIND_CMD_POWER, &vm);
        frame.cmd_power.operation = (uint8_t)value;
        if (value < VMIBUS_POWER_OPERATION_RESET || value > VMIBUS_POWER_OPERATION_WAKEUP)
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        frame = wire_command(VMIBUS_KIND_CMD_VM, &vm);
        frame.cmd_vm.operation = (uint8_t)value;
        if (value < VMIBUS_VM_OPERATION_PAUSE || value > VMIBUS_VM_OPERATION_LET_GO)
            wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    }
    close(fd);
    daemon_stop(d);
}

/* Octets without sense: each connection ends, or answers; the daemon goes on. */
TEST(test_p09_noise) {
    unsigned seed = 20261;

    daemon_start(d, &short_tempered);
    for (unsigned i = 0; i < 300; i++) {
        int fd = i % 2 ? wire_open(d->path, NULL) : wire_connect(d->path);
        uint8_t noise[1000];

        for (size_t j = 0; j < sizeof(noise); j++)
            noise[j] = (uint8_t)rand_r(&seed);
        if (i % 4 >= 2)
            for (size_t j = 0; j < sizeof(noise); j += VMIBUS_FRAME_SIZE) {
                noise[j] = 1; /* kinds of controls, the right version, short tails */
                noise[j + 1] = (uint8_t)(2 + (noise[j + 1] & 1));
                noise[j + 2] = VMIBUS_DIRECTION_DOWN;
                noise[j + 3] &= 3;
                noise[j + 6] = VMIBUS_PROTOCOL_VERSION;
                memset(noise + j + 7, 0, 9);
            }
        wire_write(fd, noise, sizeof(noise));
        if (i % 3 == 0)
            (void)wire_await_end(fd);
        close(fd);
    }
    daemon_stop(d);
}

/* --- tails ------------------------------------------------------------------------------------- */

static struct vmibus_frame payload(uint32_t len, uint32_t tail_length) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_CMD_MEMWRITE);

    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame.cmd_memwrite.len = len;
    frame.header.tail_length = tail_length;
    return frame;
}

TEST(test_payload_that_cannot_be_framed_ends_the_connection) {
    static const struct {
        uint32_t len, tail_length;
    } cases[] = {{0, 0}, {16, 0}, {0, 16}, {TAIL_BOUND + 1, TAIL_BOUND + 1}, {UINT32_MAX, UINT32_MAX}, {16, TAIL_BOUND + 1}};

    daemon_start(d, &patient);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vmibus_frame frame = payload(cases[i].len, cases[i].tail_length), last;
        int fd = wire_open(d->path, NULL);

        wire_write(fd, &frame, sizeof(frame));
        last = wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
        ck_assert_uint_eq(last.error.offender, VMIBUS_KIND_CMD_MEMWRITE);
        ck_assert_uint_eq(last.error.bound, TAIL_BOUND);
        close(fd);
    }
    daemon_stop(d);
}

/* A lawful tail of a command that is refused is gathered, and the stream stays in step. */
TEST(test_payload_of_another_length_is_refused) {
    static const uint32_t lengths[] = {1, 2, 15, 16, 17, 4095, 4096, 4097, TAIL_BOUND - 1, TAIL_BOUND};
    uint8_t octets[TAIL_BOUND] = {};
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, NULL);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct vmibus_frame frame = payload(lengths[i] + 1, 0);

        wire_expect(fd, &frame, octets, lengths[i], VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
        /* Octet by octet at its end. */
        frame = payload(lengths[i] + 1, lengths[i]);
        wire_write(fd, &frame, sizeof(frame));
        wire_write(fd, octets, lengths[i] - 1);
        expect_alive(d->bystander);
        wire_write(fd, octets, 1);
        ck_assert_uint_eq(wire_answer(fd, frame.header.correlation, NULL).ack.reason, VMIBUS_REASON_BAD_LENGTH);
        frame = payload(lengths[i], 0);
        frame.header.generation = 1;
        wire_expect(fd, &frame, octets, lengths[i], VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    }
    close(fd);
    daemon_stop(d);
}

TEST(test_p08_half_a_frame_and_a_tail_that_never_comes_have_a_deadline) {
    struct vmibus_frame frame = payload(TAIL_BOUND, TAIL_BOUND), last;
    int half, small, large;

    daemon_start(d, &short_tempered);
    half = wire_open(d->path, NULL);
    small = wire_open(d->path, NULL);
    large = wire_open(d->path, NULL);
    wire_write(half, &frame, 1);
    wire_write(large, &frame, sizeof(frame));
    frame = payload(4, 4);
    wire_write(small, &frame, sizeof(frame));
    wire_write(small, &frame, 3);
    last = wire_expect_end(half, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_HALF_FRAME);
    ck_assert_uint_eq(last.error.bound, 100);
    wire_expect_end(small, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_HALF_FRAME);
    wire_expect_end(large, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_HALF_FRAME);
    close(half);
    close(small);
    close(large);
    daemon_stop(d);
}

/* One frame's rest may come late, not each read's: a stream that is always amidst some frame is no offence. */
TEST(test_stream_cut_between_frames_goes_on) {
    struct vmibus_frame frame = query();
    const uint8_t *octets = (const uint8_t *)&frame;
    uint8_t shifted[VMIBUS_FRAME_SIZE]; /* the rest of a frame, and the begin of the next */
    int fd;

    memcpy(shifted, octets + 64, 64);
    memcpy(shifted + 64, octets, 64);
    daemon_start(d, &short_tempered);
    fd = wire_open(d->path, NULL);
    wire_write(fd, octets, 64);
    /* Five times longer than half a frame may take. */
    for (unsigned i = 0; i < 100; i++) {
        struct vmibus_frame answer;

        poll(NULL, 0, 5);
        wire_write(fd, shifted, sizeof(shifted));
        ck_assert_msg(wire_receive(fd, &answer, NULL), "the connection ended at frame %u", i);
        ck_assert_msg(answer.header.kind == VMIBUS_KIND_ACK, "reason %u at frame %u", answer.error.reason, i);
    }
    wire_write(fd, octets + 64, 64);
    close(fd);
    daemon_stop(d);
}

TEST(test_p08_large_tails_are_bounded_for_each_uid) {
    struct vmibus_frame frame = payload(TAIL_BOUND, TAIL_BOUND), answer;
    uint8_t octets[TAIL_BOUND] = {};
    int hoarders[2], fd;

    daemon_start(d, &patient);
    for (int i = 0; i < 2; i++) {
        hoarders[i] = wire_open(d->path, NULL);
        wire_write(hoarders[i], &frame, sizeof(frame));
        wire_write(hoarders[i], octets, 100);
        expect_alive(d->bystander);
    }
    fd = wire_open(d->path, NULL);
    for (int i = 0; i < 3; i++) {
        frame = payload(TAIL_BOUND, TAIL_BOUND);
        wire_write(fd, &frame, sizeof(frame));
        expect_alive(d->bystander); /* it has been read before the tail comes */
        wire_write(fd, octets, sizeof(octets));
        answer = wire_answer(fd, frame.header.correlation, NULL);
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_QUOTA);
        ck_assert_uint_eq(answer.ack.reason, VMIBUS_REASON_LIMIT_TAILS);
        ck_assert_uint_eq(answer.ack.value, 2);
        expect_alive(fd);
    }
    /* Small ones have places of their own. */
    frame = payload(16, 16);
    wire_write(fd, &frame, sizeof(frame));
    expect_alive(d->bystander);
    wire_write(fd, octets, 16);
    ck_assert_uint_eq(wire_answer(fd, frame.header.correlation, NULL).ack.error, VMIBUS_ERROR_GONE);
    /* And a place that becomes free is had by the next one. */
    close(hoarders[0]);
    do {
        frame = payload(TAIL_BOUND, TAIL_BOUND);
        wire_write(fd, &frame, sizeof(frame));
        expect_alive(d->bystander);
        wire_write(fd, octets, sizeof(octets));
        answer = wire_answer(fd, frame.header.correlation, NULL);
    } while (answer.ack.error == VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_GONE);
    close(fd);
    close(hoarders[1]);
    daemon_stop(d);
}

/* --- descriptors ------------------------------------------------------------------------------- */

TEST(test_p08_descriptors_where_none_belong_end_the_connection) {
    int many[200], n_fds, null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    for (size_t i = 0; i < 200; i++)
        many[i] = null;
    daemon_start(d, &patient);
    n_fds = (int)daemon_count_fds(d);
    for (unsigned i = 0; i < 60; i++) {
        struct vmibus_frame frame = i % 3 ? query() : wire_hello();
        int fd = i % 3 ? wire_open(d->path, NULL) : wire_connect(d->path);
        struct vmibus_frame last;

        frame.header.fd_count = i % 2 ? 1 : 0;
        /* With a whole frame, with half of one, with one octet of it. */
        wire_send_fds(fd, &frame, i % 5 == 0 ? 1 : i % 5 == 1 ? 64 : sizeof(frame), many, 1 + i * 3);
        last = wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
        ck_assert_uint_eq(last.error.offender, 0);
        close(fd);
    }
    daemon_await_idle(d);
    ck_assert_int_le((int)daemon_count_fds(d), n_fds);
    close(null);
    daemon_stop(d);
}

/* A descriptor of the very connection: the kernel's collector of such loops must not be what ends it. */
TEST(test_own_socket_as_descriptor) {
    struct vmibus_frame frame = query();
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, NULL);
    wire_send_fds(fd, &frame, sizeof(frame), &fd, 1);
    wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
    close(fd);
    daemon_stop(d);
}

/* Out-of-band octets are not part of the stream, and must not keep the daemon busy. */
TEST(test_p09_out_of_band_octets) {
    int fd;

    daemon_start(d, &patient);
    fd = wire_open(d->path, NULL);
    if (send(fd, "!", 1, MSG_OOB) != 1) {
        close(fd);
        daemon_stop(d);
        test_skip("this kernel has no out-of-band octets on unix sockets");
    }
    ck_assert(daemon_is_calm(d));
    send(fd, "?", 1, MSG_OOB);
    send(fd, "!", 1, MSG_OOB);
    ck_assert(daemon_is_calm(d));
    expect_alive(d->bystander);
    close(fd);
    daemon_stop(d);
}

HARNESS_SUITE("frames", HARNESS_QUICK)
