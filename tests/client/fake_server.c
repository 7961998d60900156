/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/fake_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

/* Signals are the test's. */
static void block_signals(void) {
    sigset_t set;

    sigfillset(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void *run(void *context) {
    struct fake_server *server = context;

    block_signals();
    server->script(server->fd);
    close(server->fd);
    return NULL;
}

static void *run_listening(void *context) {
    struct fake_server *server = context;
    int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    close(server->fd);
    server->fd = fd;
    return run(server);
}

int fake_server_start(struct fake_server *server, fake_script script) {
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *server = (struct fake_server){.script = script, .fd = fds[0]};
    ck_assert_int_eq(pthread_create(&server->thread, NULL, run, server), 0);
    return fds[1];
}

void fake_server_start_listening(struct fake_server *server, fake_script script, int listening_fd) {
    *server = (struct fake_server){.script = script, .fd = listening_fd};
    ck_assert_int_eq(pthread_create(&server->thread, NULL, run_listening, server), 0);
}

void fake_server_join(struct fake_server *server) {
    ck_assert_int_eq(pthread_join(server->thread, NULL), 0);
}

void fake_read(int fd, void *buffer, size_t length) {
    char *octets = buffer;

    while (length) {
        ssize_t n = read(fd, octets, length);

        ck_assert_msg(n > 0, "the client closed (%zd, %s)", n, n < 0 ? strerror(errno) : "end of file");
        octets += n;
        length -= (size_t)n;
    }
}

void fake_write(int fd, const void *buffer, size_t length) {
    const char *octets = buffer;

    while (length) {
        ssize_t n = send(fd, octets, length, MSG_NOSIGNAL);

        /* A client that has had enough closes; the test sees that at its own end. */
        if (n < 0)
            return;
        octets += n;
        length -= (size_t)n;
    }
}

struct vmibus_frame fake_read_frame(int fd, void *tail, size_t room) {
    struct vmibus_frame frame;
    char discarded[4096];

    fake_read(fd, &frame, sizeof(frame));
    ck_assert_int_eq(frame.header.direction, VMIBUS_DIRECTION_DOWN);
    if (tail) {
        ck_assert_uint_le(frame.header.tail_length, room);
        fake_read(fd, tail, frame.header.tail_length);
    } else {
        for (size_t rest = frame.header.tail_length; rest;) {
            size_t n = rest < sizeof(discarded) ? rest : sizeof(discarded);

            fake_read(fd, discarded, n);
            rest -= n;
        }
    }
    return frame;
}

void fake_write_frame(int fd, const struct vmibus_frame *frame, const void *tail) {
    size_t length = sizeof(*frame) + frame->header.tail_length;
    char *octets = malloc(length);

    ck_assert_ptr_nonnull(octets);
    memcpy(octets, frame, sizeof(*frame));
    if (frame->header.tail_length)
        memcpy(octets + sizeof(*frame), tail, frame->header.tail_length);
    fake_write(fd, octets, length);
    free(octets);
}

void fake_write_fds(int fd, const void *buffer, size_t length, const int *fds, size_t n_fds) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = {};
    struct iovec part = {.iov_base = (void *)buffer, .iov_len = length};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = CMSG_SPACE(n_fds * sizeof(int)),
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    ck_assert_int_eq(sendmsg(fd, &message, MSG_NOSIGNAL), (ssize_t)length);
}

struct vmibus_frame fake_frame(enum vmibus_kind kind) {
    return (struct vmibus_frame){
        .header = {
            .kind = (uint16_t)kind,
            .direction = VMIBUS_DIRECTION_UP,
            .priority = VMIBUS_PRIORITY_NORMAL,
            .version = VMIBUS_PROTOCOL_VERSION,
        },
    };
}

struct vmibus_frame fake_ack(const struct vmibus_frame *command, enum vmibus_error error) {
    struct vmibus_frame frame = fake_frame(VMIBUS_KIND_ACK);

    frame.header.correlation = command->header.correlation;
    frame.header.slot = command->header.slot;
    frame.header.generation = command->header.generation;
    frame.ack.command = command->header.kind;
    frame.ack.error = (uint16_t)error;
    return frame;
}

struct vmibus_frame fake_welcome(const struct vmibus_frame *hello) {
    struct vmibus_frame frame = fake_frame(VMIBUS_KIND_WELCOME);

    frame.header.correlation = hello->header.correlation;
    frame.welcome.magic = VMIBUS_MAGIC;
    frame.welcome.version = VMIBUS_PROTOCOL_VERSION;
    frame.welcome.memory = VMIBUS_MEMORY_LOCATION_HERE;
    frame.welcome.tail_bound = VMIBUS_TAIL_BOUND_DEFAULT;
    frame.welcome.fds_per_frame = VMIBUS_FDS_PER_FRAME;
    frame.welcome.incarnation = 7;
    memset(frame.welcome.session, 0x5e, sizeof(frame.welcome.session));
    return frame;
}

struct vmibus_frame fake_accept(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);

    ck_assert_int_eq(hello.header.kind, VMIBUS_KIND_HELLO);
    ck_assert_uint_eq(hello.hello.magic, VMIBUS_MAGIC);
    ck_assert_int_eq(hello.hello.role, VMIBUS_ROLE_CONTROL);
    fake_write_frame(fd, &welcome, NULL);
    return hello;
}

void fake_await_close(int fd) {
    char octet;
    ssize_t n = read(fd, &octet, 1);

    ck_assert_msg(n == 0 || (n < 0 && errno == ECONNRESET), "the client said something");
}
