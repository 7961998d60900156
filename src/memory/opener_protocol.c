/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/opener_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("recvmsg sendmsg")

#define ERRNO_MAX 4095

static bool names_process(const struct opener_request *request) {
    return request->pid > 0 && request->pid <= INT_MAX && request->start_time > 0;
}

static bool names_file(const struct opener_request *request) {
    return request->inode > 0 && (request->flags == O_RDONLY || request->flags == O_RDWR);
}

static bool names_no_file(const struct opener_request *request) {
    return request->flags == 0 && request->device_major == 0 && request->device_minor == 0 && request->inode == 0;
}

static bool is_good(const struct opener_request *request, size_t n_fds) {
    if (request->magic != OPENER_MAGIC || request->version != OPENER_VERSION || request->id == 0 || request->reserved != 0)
        return false;
    switch (request->verb) {
    case OPENER_MAPS:
    case OPENER_PROCESS:
    case OPENER_MEMORY:
    case OPENER_MEMORY_TO_READ:
    case OPENER_PAGEMAP:
        return n_fds == 0 && names_process(request) && names_no_file(request) && request->mode == 0;
    case OPENER_FILE:
        return n_fds == 0 && names_process(request) && names_file(request) && request->mode == 0;
    case OPENER_TIGHTEN:
        return n_fds == 1 && request->pid == 0 && request->start_time == 0 && names_no_file(request) && request->mode <= 0777;
    default:
        return false;
    }
}

int opener_request_parse(const void *octets, size_t len, size_t n_fds, struct opener_request *request) {
    struct opener_request came;

    if (len != sizeof(came))
        return -EBADMSG;
    memcpy(&came, octets, sizeof(came));
    if (!is_good(&came, n_fds))
        return -EBADMSG;
    *request = came;
    return 0;
}

int opener_answer_parse(const void *octets, size_t len, size_t n_fds, const struct opener_request *request,
                        struct opener_answer *answer) {
    struct opener_answer came;
    size_t expected;

    if (len != sizeof(came))
        return -EBADMSG;
    memcpy(&came, octets, sizeof(came));
    expected = came.result == 0 && request->verb != OPENER_TIGHTEN ? 1 : 0;
    if (came.magic != OPENER_MAGIC || came.version != OPENER_VERSION || came.verb != request->verb || came.id != request->id ||
        came.result > 0 || came.result < -ERRNO_MAX || came.reserved[0] || came.reserved[1] || came.reserved[2] ||
        n_fds != expected)
        return -EBADMSG;
    *answer = came;
    return 0;
}

struct opener_answer opener_answer_to(const struct opener_request *request, int result) {
    return (struct opener_answer){
        .magic = OPENER_MAGIC,
        .version = OPENER_VERSION,
        .verb = request->verb,
        .id = request->id,
        .result = result < 0 ? result : 0,
    };
}

int opener_execute(const struct opener *opener, const struct opener_request *request, int given) {
    const struct opener_process process = {.pid = request->pid, .start_time = request->start_time};
    const struct opener_file file = {
        .device_major = request->device_major, .device_minor = request->device_minor, .inode = request->inode};

    switch (request->verb) {
    case OPENER_MAPS:
        return opener->open_maps(opener, &process);
    case OPENER_PROCESS:
        return opener->open_process(opener, &process);
    case OPENER_MEMORY:
        return opener->open_memory(opener, &process);
    case OPENER_MEMORY_TO_READ:
        return opener->open_memory_to_read(opener, &process);
    case OPENER_PAGEMAP:
        return opener->open_pagemap(opener, &process);
    case OPENER_FILE:
        return opener->open_file(opener, &process, &file, (int)request->flags);
    case OPENER_TIGHTEN:
        return opener->tighten(opener, given, (mode_t)request->mode);
    default:
        return -EBADMSG;
    }
}

/* --- messages ---------------------------------------------------------------------------------- */

int opener_send(int socket, const void *octets, size_t len, int fd) {
    union {
        struct cmsghdr header;
        char octets[CMSG_SPACE(sizeof(int))];
    } control = {};
    struct iovec piece = {.iov_base = (void *)octets, .iov_len = len};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    ssize_t n;

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    do
        n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *message, int fds[2], size_t *n_fds) {
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n && *n_fds < 2; i++)
            memcpy(&fds[(*n_fds)++], CMSG_DATA(header) + i * sizeof(int), sizeof(int));
    }
}

int opener_receive(int socket, void *octets, size_t size, size_t *len, int fds[2], size_t *n_fds) {
    union {
        struct cmsghdr header;
        char octets[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec piece = {.iov_base = octets, .iov_len = size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n;

    fds[0] = fds[1] = -1;
    *n_fds = 0;
    do
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? -EPIPE : -errno;
    take_fds(&message, fds, n_fds);
    /* An empty message and the end look alike, and neither is anything that is said here. */
    if (n > 0 && (message.msg_flags & MSG_CTRUNC) == 0) {
        *len = (size_t)n;
        return 0;
    }
    fds_close(fds, *n_fds);
    *n_fds = 0;
    return n == 0 ? -EPIPE : -EMFILE;
}
