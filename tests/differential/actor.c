/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "differential/actor.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/channels.h"
#include "harness.h"

#define PATIENCE_MS 20000
#define TAIL_MAX (1u << 20)

/* --- octets ------------------------------------------------------------------------------------ */

static void lose(struct actor *actor) {
    channels_close(actor->fd);
    actor->fd = -1;
    actor->n_answers = 0;
}

static void close_received(struct actor *actor, struct msghdr *message) {
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; header->cmsg_type == SCM_RIGHTS && i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
            close(fd);
            actor->n_fds++;
        }
    }
}

/* Half a frame may be the last that comes: a connection can break anywhere. */
static bool read_all(struct actor *actor, int fd, void *data, size_t length) {
    for (size_t have = 0; have < length;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        struct iovec piece = {.iov_base = (char *)data + have, .iov_len = length - have};
        union {
            struct cmsghdr align;
            char space[CMSG_SPACE(253 * sizeof(int))];
        } control;
        struct msghdr message = {
            .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        ssize_t n;

        ck_assert_msg(poll(&ready, 1, (int)harness_scale(PATIENCE_MS)) == 1, "nothing comes for %u ms", harness_scale(PATIENCE_MS));
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
        if (n <= 0) {
            ck_assert_msg(n == 0 || errno == ECONNRESET, "recvmsg: %s", strerror(errno));
            lose(actor);
            return false;
        }
        close_received(actor, &message);
        have += (size_t)n;
    }
    return true;
}

static bool write_all(struct actor *actor, int fd, const void *data, size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t n = send(fd, (const char *)data + sent, length - sent, MSG_NOSIGNAL);

        if (n < 0) {
            ck_assert_msg(errno == EPIPE || errno == ECONNRESET, "send: %s", strerror(errno));
            lose(actor);
            return false;
        }
        sent += (size_t)n;
    }
    return true;
}

/* --- frames ------------------------------------------------------------------------------------ */

static void note(struct actor *actor, const struct vmibus_frame *frame) {
    const struct vmibus_header *header = &frame->header;

    if (header->kind == VMIBUS_KIND_ACK) {
        ck_assert_uint_lt(actor->n_answers, ACTOR_ANSWERS);
        actor->answers[actor->n_answers++] = *frame;
    } else if (header->kind == VMIBUS_KIND_LEASE) {
        ck_assert_uint_lt(header->slot, ACTOR_SLOTS);
        ck_assert_uint_lt(frame->lease.lease_class, ACTOR_CLASSES);
        actor->leases[header->slot][frame->lease.lease_class] =
            (struct actor_lease){.generation = header->generation, .lease = frame->lease};
    }
}

static bool receive(struct actor *actor, struct vmibus_frame *frame) {
    static char tail[TAIL_MAX + 1];
    uint64_t *delivery;
    int fd;

    if (actor_is_lost(actor))
        return false;
    fd = channels_ready(actor->fd);
    delivery = fd == actor->fd ? &actor->delivery : &actor->memory_delivery;
    if (!read_all(actor, fd, frame, sizeof(*frame)))
        return false;
    ck_assert_uint_le(frame->header.tail_length, TAIL_MAX);
    if (!read_all(actor, fd, tail, frame->header.tail_length))
        return false;
    ck_assert_uint_eq(frame->header.direction, VMIBUS_DIRECTION_UP);
    ck_assert_msg(frame->header.delivery == ++*delivery, "delivery %llu after %llu: there is a hole",
                  (unsigned long long)frame->header.delivery, (unsigned long long)*delivery - 1);
    if (frame->header.kind == VMIBUS_KIND_WELCOME) {
        tail[frame->header.tail_length] = '\0';
        channels_add(actor->fd, frame, tail, actor->uid);
    }
    note(actor, frame);
    return true;
}

struct vmibus_frame actor_frame(enum vmibus_kind kind, uint32_t slot, uint64_t generation) {
    static uint64_t correlation;

    return (struct vmibus_frame){
        .header = {.kind = (uint16_t)kind,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = slot,
                   .generation = generation,
                   .correlation = ++correlation},
    };
}

bool actor_send(struct actor *actor, struct vmibus_frame *frame, const void *tail, size_t length) {
    int fd;

    if (actor_is_lost(actor))
        return false;
    frame->header.tail_length = (uint32_t)length;
    fd = channels_for(actor->fd, frame->header.kind);
    return write_all(actor, fd, frame, sizeof(*frame)) && write_all(actor, fd, tail, length);
}

static bool take_answer(struct actor *actor, uint64_t correlation, struct vmibus_frame *answer) {
    for (size_t i = 0; i < actor->n_answers; i++) {
        if (actor->answers[i].header.correlation != correlation)
            continue;
        *answer = actor->answers[i];
        actor->n_answers--;
        memmove(&actor->answers[i], &actor->answers[i + 1], (actor->n_answers - i) * sizeof(actor->answers[i]));
        return true;
    }
    return false;
}

bool actor_answer(struct actor *actor, uint64_t correlation, struct vmibus_frame *answer) {
    struct vmibus_frame frame;

    while (!take_answer(actor, correlation, answer))
        if (!receive(actor, &frame))
            return false;
    return true;
}

bool actor_ask(struct actor *actor, struct vmibus_frame *frame, const void *tail, size_t length, struct vmibus_frame *answer) {
    return actor_send(actor, frame, tail, length) && actor_answer(actor, frame->header.correlation, answer);
}

int actor_poll_answer(struct actor *actor, uint64_t correlation, struct vmibus_frame *answer) {
    struct vmibus_frame query = actor_frame(VMIBUS_KIND_QUERY, 0, 0), later;

    query.query.query = VMIBUS_QUERY_SENSORS;
    if (!actor_ask(actor, &query, NULL, 0, &later))
        return -1;
    return take_answer(actor, correlation, answer);
}

bool actor_subscribe(struct actor *actor, uint64_t kinds, struct vmibus_frame *answer) {
    struct vmibus_frame frame = actor_frame(VMIBUS_KIND_SUBSCRIBE, 0, 0);

    frame.subscribe.kinds = kinds;
    return actor_ask(actor, &frame, "stub-*", 6, answer);
}

bool actor_await_loss(struct actor *actor, uint64_t token) {
    struct vmibus_frame frame;

    do {
        if (!receive(actor, &frame))
            return false;
    } while (frame.header.kind != VMIBUS_KIND_LEASE || frame.lease.token != token || frame.lease.state == VMIBUS_LEASE_STATE_HELD);
    return true;
}

/* --- coming and going -------------------------------------------------------------------------- */

static bool say_hello(struct actor *actor) {
    struct vmibus_frame hello = actor_frame(VMIBUS_KIND_HELLO, 0, 0), frame;

    hello.hello.magic = VMIBUS_MAGIC;
    hello.hello.version_min = hello.hello.version_max = VMIBUS_PROTOCOL_VERSION;
    hello.hello.role = VMIBUS_ROLE_CONTROL;
    hello.hello.channel = VMIBUS_CHANNEL_BUS;
    memcpy(hello.hello.name, "actor", sizeof("actor"));
    if (!actor_send(actor, &hello, NULL, 0) || !receive(actor, &frame))
        return false;
    if (frame.header.kind == VMIBUS_KIND_WELCOME)
        return true;
    ck_assert_uint_eq(frame.header.kind, VMIBUS_KIND_ERROR);
    lose(actor);
    return false;
}

bool actor_connect(struct actor *actor, const char *path, uid_t uid) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uid_t own = geteuid();

    /* The memory channel's WELCOME is taken where it is opened. */
    *actor = (struct actor){.uid = uid, .memory_delivery = 1};
    strcpy(address.sun_path, path);
    actor->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(actor->fd, 0);
    /* The other side sees who connects as who it is in effect. */
    ck_assert_int_eq(seteuid(uid), 0);
    ck_assert_int_eq(connect(actor->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(seteuid(own), 0);
    return say_hello(actor);
}

void actor_close(struct actor *actor) {
    if (!actor_is_lost(actor))
        lose(actor);
}
