/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz/stream.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 253

void stream_open_consume_fd(struct stream *stream, int fd) {
    stream->fd = fd;
    stream->ended = false;
    stream->begin = stream->end = 0;
}

void stream_close(struct stream *stream) {
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
}

void stream_put(struct stream *stream, const void *data, size_t size, const int *fds, size_t n_fds) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS * sizeof(int))] = {};
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct cmsghdr *header = (struct cmsghdr *)(void *)control;

    if (stream->fd < 0 || stream->ended || size == 0)
        return;
    if (n_fds) {
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    }
    stream->ended = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size;
}

void stream_say(struct stream *stream, struct vmibus_frame *frame, const void *tail, size_t tail_length) {
    frame->header.tail_length = (uint32_t)tail_length;
    stream_put(stream, frame, sizeof(*frame), NULL, 0);
    stream_put(stream, tail, tail_length, NULL, 0);
}

static void close_fds(struct msghdr *message) {
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header))
        for (size_t i = 0; header->cmsg_type == SCM_RIGHTS && i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
            close(fd);
        }
}

void stream_receive(struct stream *stream) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS * sizeof(int))];
    ssize_t n = 1;

    if (stream->fd < 0)
        return;
    memmove(stream->octets, stream->octets + stream->begin, stream->end - stream->begin);
    stream->end -= stream->begin;
    stream->begin = 0;
    while (n > 0 && stream->end < sizeof(stream->octets)) {
        struct iovec part = {.iov_base = stream->octets + stream->end, .iov_len = sizeof(stream->octets) - stream->end};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};

        n = recvmsg(stream->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n > 0) {
            close_fds(&message);
            stream->end += (size_t)n;
        }
    }
    stream->ended = stream->ended || n == 0;
}

bool stream_next(struct stream *stream, struct vmibus_frame *frame, const uint8_t **tail) {
    size_t have = stream->end - stream->begin;

    if (have < sizeof(*frame))
        return false;
    memcpy(frame, stream->octets + stream->begin, sizeof(*frame));
    if (have - sizeof(*frame) < frame->header.tail_length)
        return false;
    *tail = stream->octets + stream->begin + sizeof(*frame);
    stream->begin += sizeof(*frame) + frame->header.tail_length;
    return true;
}
