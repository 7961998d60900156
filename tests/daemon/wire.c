/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/wire.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 253 /* SCM_MAX_FD: more in one message is refused by the kernel */

union wire_control {
    struct cmsghdr align;
    uint8_t space[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

/* --- octets ------------------------------------------------------------------------------------ */

int wire_connect(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_uint_lt(strlen(path), sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        ck_abort_msg("cannot connect to %s: %s", path, strerror(errno));
    return fd;
}

bool wire_write(int fd, const void *data, size_t length) {
    const uint8_t *octets = data;

    while (length > 0) {
        ssize_t n = send(fd, octets, length, MSG_NOSIGNAL);

        if (n < 0) {
            ck_assert_msg(errno == EPIPE || errno == ECONNRESET, "send: %s", strerror(errno));
            return false;
        }
        octets += n;
        length -= (size_t)n;
    }
    return true;
}

bool wire_send_fds(int fd, const void *data, size_t length, const int *fds, size_t n_fds) {
    struct iovec piece = {.iov_base = (void *)data, .iov_len = length};
    union wire_control control = {};
    struct msghdr message = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = CMSG_SPACE(n_fds * sizeof(int)),
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    ck_assert_uint_le(n_fds, FDS_MAX);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    if (sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)length)
        return true;
    ck_assert_msg(errno == EPIPE || errno == ECONNRESET, "sendmsg: %s", strerror(errno));
    return false;
}

static int *kept_fds;
static size_t *n_kept_fds;

void wire_keep_fds(int *fds, size_t *n_fds) {
    kept_fds = fds;
    n_kept_fds = n_fds;
    if (n_fds)
        *n_fds = 0;
}

static void take_received(struct msghdr *message) {
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; header->cmsg_type == SCM_RIGHTS && i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
            if (kept_fds && *n_kept_fds < VMIBUS_FDS_PER_FRAME)
                kept_fds[(*n_kept_fds)++] = fd;
            else
                close(fd);
        }
    }
}

bool wire_read(int fd, void *data, size_t length) {
    size_t have = 0;

    while (have < length) {
        struct iovec piece = {.iov_base = (uint8_t *)data + have, .iov_len = length - have};
        union wire_control control;
        struct msghdr message = {
            .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

        if (n <= 0) {
            ck_assert_msg(n == 0 || errno == ECONNRESET, "recvmsg: %s", strerror(errno));
            ck_assert_msg(have == 0, "the connection ended after %zu of %zu octets", have, length);
            return false;
        }
        take_received(&message);
        have += (size_t)n;
    }
    return true;
}

/* --- frames ------------------------------------------------------------------------------------ */

struct vmibus_frame wire_frame(enum vmibus_kind kind) {
    static uint64_t correlation;

    return (struct vmibus_frame){
        .header = {.kind = (uint16_t)kind,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .correlation = ++correlation},
    };
}

struct vmibus_frame wire_hello(void) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_HELLO);

    frame.hello.magic = VMIBUS_MAGIC;
    frame.hello.version_min = frame.hello.version_max = VMIBUS_PROTOCOL_VERSION;
    frame.hello.role = VMIBUS_ROLE_CONTROL;
    frame.hello.channel = VMIBUS_CHANNEL_BUS;
    memcpy(frame.hello.name, "hostile", sizeof("hostile"));
    return frame;
}

int wire_open(const char *path, struct vmibus_frame *welcome) {
    struct vmibus_frame hello = wire_hello(), frame;
    char tail[WIRE_TAIL + 1];
    int fd = wire_connect(path);

    ck_assert(wire_send(fd, &hello, NULL, 0));
    if (!wire_receive(fd, &frame, tail))
        ck_abort_msg("the connection ended before WELCOME");
    if (frame.header.kind != VMIBUS_KIND_WELCOME)
        ck_abort_msg("a frame of kind %#x instead of WELCOME: error %u, reason %u", frame.header.kind, frame.error.error,
                     frame.error.reason);
    ck_assert_uint_eq(frame.header.correlation, hello.header.correlation);
    ck_assert_uint_eq(frame.welcome.magic, VMIBUS_MAGIC);
    tail[frame.header.tail_length] = '\0';
    channels_add(fd, &frame, tail, geteuid());
    if (welcome)
        *welcome = frame;
    return fd;
}

bool wire_send(int fd, struct vmibus_frame *frame, const void *tail, size_t length) {
    frame->header.tail_length = (uint32_t)length;
    fd = channels_for(fd, frame->header.kind);
    return wire_write(fd, frame, sizeof(*frame)) && wire_write(fd, tail, length);
}

static bool down_is_lawful;

void wire_be_sensor(void) {
    down_is_lawful = true;
}

bool wire_receive(int fd, struct vmibus_frame *frame, void *tail) {
    uint8_t unwanted[WIRE_TAIL];

    fd = channels_ready(fd);
    if (!wire_read(fd, frame, sizeof(*frame)))
        return false;
    ck_assert_uint_le(frame->header.tail_length, WIRE_TAIL);
    if (!down_is_lawful)
        ck_assert_uint_eq(frame->header.direction, VMIBUS_DIRECTION_UP);
    if (frame->header.tail_length)
        ck_assert(wire_read(fd, tail ? tail : unwanted, frame->header.tail_length));
    return true;
}

struct vmibus_frame wire_await(int fd, enum vmibus_kind kind) {
    struct vmibus_frame frame;

    do {
        if (!wire_receive(fd, &frame, NULL))
            ck_abort_msg("the connection ended before a frame of kind %#x", kind);
        if (frame.header.kind == VMIBUS_KIND_ERROR && kind != VMIBUS_KIND_ERROR)
            ck_abort_msg("ERROR %u, reason %u, instead of a frame of kind %#x", frame.error.error, frame.error.reason, kind);
    } while (frame.header.kind != kind);
    return frame;
}

struct vmibus_frame wire_answer(int fd, uint64_t correlation, void *tail) {
    struct vmibus_frame frame;

    do {
        if (!wire_receive(fd, &frame, tail))
            ck_abort_msg("the connection ended before an answer");
        if (frame.header.kind == VMIBUS_KIND_ERROR)
            ck_abort_msg("ERROR %u, reason %u, instead of an answer", frame.error.error, frame.error.reason);
    } while (frame.header.kind != VMIBUS_KIND_ACK || frame.header.correlation != correlation);
    return frame;
}

struct vmibus_frame wire_ask(int fd, struct vmibus_frame *command, const void *tail, size_t length) {
    ck_assert(wire_send(fd, command, tail, length));
    return wire_answer(fd, command->header.correlation, NULL);
}

struct vmibus_frame wire_await_end(int fd) {
    struct vmibus_frame last = {}, frame;

    while (wire_receive(fd, &frame, NULL))
        last = frame;
    return last;
}

void wire_expect(int fd, struct vmibus_frame *command, const void *tail, size_t length, enum vmibus_error error,
                 enum vmibus_reason reason) {
    struct vmibus_frame answer = wire_ask(fd, command, tail, length);

    ck_assert_msg(answer.ack.error == error && answer.ack.reason == reason,
                  "kind %#x: error %u, reason %u, instead of error %u, reason %u", command->header.kind, answer.ack.error,
                  answer.ack.reason, error, reason);
    ck_assert_uint_eq(answer.ack.command, command->header.kind);
}

struct vmibus_frame wire_expect_end(int fd, enum vmibus_error error, enum vmibus_reason reason) {
    struct vmibus_frame last = wire_await_end(fd);

    ck_assert_msg(last.header.kind == VMIBUS_KIND_ERROR, "the last frame is of kind %#x, not ERROR", last.header.kind);
    ck_assert_msg(last.error.error == error && last.error.reason == reason, "error %u, reason %u, instead of error %u, reason %u",
                  last.error.error, last.error.reason, error, reason);
    ck_assert_uint_eq(last.error.closing, 1);
    return last;
}

/* --- commands ---------------------------------------------------------------------------------- */

uint64_t wire_subscribe(int fd, const char *pattern, uint64_t kinds) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    frame.subscribe.kinds = kinds;
    ck_assert(wire_send(fd, &frame, pattern, strlen(pattern)));
    return frame.header.correlation;
}

struct wire_endpoint wire_find(int fd, const char *name) {
    uint64_t kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX);
    struct wire_endpoint endpoint = {};
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    /* Ended first, so that the state is told anew. */
    ck_assert_uint_eq(wire_ask(fd, &frame, name, strlen(name)).ack.error, VMIBUS_ERROR_OK);
    wire_subscribe(fd, name, kinds);
    while (!endpoint.generation || !endpoint.epoch) {
        if (!wire_receive(fd, &frame, NULL))
            ck_abort_msg("the connection ended before %s was found", name);
        if (frame.header.kind == VMIBUS_KIND_ROSTER && frame.roster.change == VMIBUS_ROSTER_CHANGE_ADDED) {
            endpoint.slot = frame.header.slot;
            endpoint.generation = frame.header.generation;
        } else if (frame.header.kind == VMIBUS_KIND_MEMCTX && frame.memctx.state == VMIBUS_MEMCTX_STATE_READY &&
                   frame.header.generation == endpoint.generation) {
            endpoint.epoch = frame.memctx.epoch;
        }
    }
    return endpoint;
}

struct vmibus_frame wire_command(enum vmibus_kind kind, const struct wire_endpoint *endpoint) {
    struct vmibus_frame frame = wire_frame(kind);

    frame.header.slot = endpoint->slot;
    frame.header.generation = endpoint->generation;
    return frame;
}

uint64_t wire_acquire(int fd, const struct wire_endpoint *endpoint, enum vmibus_lease_class lease_class) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, endpoint), answer;

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
    answer = wire_ask(fd, &frame, NULL, 0);
    ck_assert_msg(answer.ack.error == VMIBUS_ERROR_OK, "no lease: error %u, reason %u", answer.ack.error, answer.ack.reason);
    ck_assert_uint_ne(answer.ack.token, 0);
    return answer.ack.token;
}

/* Asks; the answer's tail goes to @a tail. Returns its octets. */
static uint32_t query(int fd, enum vmibus_kind kind, uint8_t number, void *tail) {
    struct vmibus_frame frame = wire_frame(kind), answer;

    if (kind == VMIBUS_KIND_QUERY)
        frame.query.query = number;
    else
        frame.mem_query.query = number;
    ck_assert(wire_send(fd, &frame, NULL, 0));
    answer = wire_answer(fd, frame.header.correlation, tail);
    ck_assert_msg(answer.ack.error == VMIBUS_ERROR_OK, "query %u: error %u, reason %u, %lu of %lu", number, answer.ack.error,
                  answer.ack.reason, (unsigned long)answer.ack.count, (unsigned long)answer.ack.value);
    return answer.header.tail_length;
}

/* Adds a counter of one process. Whether it has such. */
static bool add_counter(int fd, enum vmibus_kind kind, uint8_t number, enum vmibus_counter counter, uint64_t *value) {
    struct vmibus_counter_value values[WIRE_TAIL / sizeof(struct vmibus_counter_value)];
    size_t n = query(fd, kind, number, values) / sizeof(values[0]);

    for (size_t i = 0; i < n; i++)
        if (values[i].counter == counter) {
            *value += values[i].value;
            return true;
        }
    return false;
}

uint64_t wire_counter(int fd, enum vmibus_counter counter) {
    uint64_t value = 0;
    bool is_there = add_counter(fd, VMIBUS_KIND_QUERY, VMIBUS_QUERY_STATS, counter, &value);

    if (channels_are_two(fd))
        is_there = add_counter(fd, VMIBUS_KIND_MEM_QUERY, VMIBUS_MEMORY_QUERY_COUNTERS, counter, &value) || is_there;
    ck_assert_msg(is_there, "there is no counter %u", counter);
    return value;
}

/* Adds one limit of one process. Whether it tells of it. */
static bool add_limit(int fd, enum vmibus_kind kind, uint8_t number, enum vmibus_reason limit, int64_t uid,
                      struct vmibus_limit_use *sum) {
    static uint8_t tail[WIRE_TAIL];
    uint32_t length = query(fd, kind, number, tail);
    struct vmibus_limit_use use;

    ck_assert_uint_eq(length % sizeof(use), 0);
    for (uint32_t at = 0; at < length; at += sizeof(use)) {
        memcpy(&use, tail + at, sizeof(use));
        if (use.limit == limit && (uid < 0 ? use.total : !use.total && use.uid == (uint32_t)uid)) {
            use.used += sum->used;
            *sum = use;
            return true;
        }
    }
    return false;
}

bool wire_limit(int fd, enum vmibus_reason limit, int64_t uid, struct vmibus_limit_use *use) {
    bool is_told;

    *use = (struct vmibus_limit_use){};
    is_told = add_limit(fd, VMIBUS_KIND_QUERY, VMIBUS_QUERY_LIMITS, limit, uid, use);
    if (channels_are_two(fd))
        is_told = add_limit(fd, VMIBUS_KIND_MEM_QUERY, VMIBUS_MEMORY_QUERY_LIMITS, limit, uid, use) || is_told;
    return is_told;
}
