/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Identity of the process behind a socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "process.h"

#define STAT_START_TIME 22

bool process_parse_stat(const char *text, size_t len, uint64_t *start_timep) {
    const char *at = memrchr(text, ')', len), *end = text + len;
    uint64_t value = 0;
    int digits = 0;

    if (!at)
        return false;
    /* The parenthesis ends field 2; one space precedes each field after it. */
    at++;
    for (int field = 2; field < STAT_START_TIME; field++) {
        at = memchr(at, ' ', (size_t)(end - at));
        if (!at)
            return false;
        at++;
    }
    for (; at < end && *at >= '0' && *at <= '9'; at++, digits++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *at - '0', &value))
            return false;
    if (!digits)
        return false;
    *start_timep = value;

    return true;
}

static bool read_start_time(uint32_t pid, uint64_t *start_timep) {
    char path[32], text[1024];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text));
    close(fd);

    return n > 0 && process_parse_stat(text, (size_t)n, start_timep);
}

static bool has_ended(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) != 0;
}

int process_of_socket(int fd, struct process *process) {
    struct ucred peer;
    socklen_t len = sizeof(peer);

    *process = (struct process)PROCESS_NONE;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return -errno;
    if (peer.pid <= 0)
        return 0;

    process->fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    if (process->fd < 0)
        return errno == ESRCH || errno == EINVAL ? 0 : -errno;
    /* The start time belongs to the pidfd's process only if that has not ended in between. */
    if (!read_start_time((uint32_t)peer.pid, &process->start_time) || has_ended(process->fd)) {
        process_deinit(process);
        return 0;
    }
    process->pid = (uint32_t)peer.pid;

    return 0;
}

bool process_equal(const struct process *a, const struct process *b) {
    return a->pid && a->pid == b->pid && a->start_time == b->start_time;
}

void process_deinit(struct process *process) {
    if (process->fd >= 0)
        close(process->fd);
    *process = (struct process)PROCESS_NONE;
}
