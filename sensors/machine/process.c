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

#include <vmibus/syscalls.h>

#include "process.h"

VMIBUS_SYSCALLS("getsockopt openat pidfd_open")

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

bool process_parse_status(const char *text, size_t len, uint32_t uid) {
    const char *at = memmem(text, len, "\nUid:", 5);
    unsigned int ids[4];
    char line[64];
    size_t room;

    if (!at)
        return false;
    room = (size_t)(text + len - at) - 1;
    if (room >= sizeof(line))
        room = sizeof(line) - 1;
    memcpy(line, at + 1, room);
    line[room] = '\0';
    if (sscanf(line, "Uid:\t%u\t%u\t%u\t%u\n", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
        return false;

    return ids[0] == uid && ids[1] == uid && ids[2] == uid && ids[3] == uid;
}

/* Reads a file of /proc/PID; 0 octets if it cannot be had. */
static size_t read_of_process(uint32_t pid, const char *name, char *text, size_t size) {
    char path[32];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%u/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, size);
    close(fd);

    return n > 0 ? (size_t)n : 0;
}

static bool read_start_time(uint32_t pid, uint64_t *start_timep) {
    char text[1024];
    size_t len = read_of_process(pid, "stat", text, sizeof(text));

    return len && process_parse_stat(text, len, start_timep);
}

bool process_is_own(const struct process *process) {
    char text[4096];
    size_t len;

    if (process->uid == 0)
        return true;
    len = read_of_process(process->pid, "status", text, sizeof(text));

    return len && process_parse_status(text, len, process->uid);
}

bool process_has_ended(const struct process *process) {
    struct pollfd poll_fd = {.fd = process->fd, .events = POLLIN};

    return process->fd >= 0 && poll(&poll_fd, 1, 0) != 0;
}

/* Completes a process of which number and user are known, and empties it where they do not hold. 0 or a negative errno. */
static int pin(struct process *process) {
    process->fd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (process->fd < 0) {
        int r = errno == ESRCH || errno == EINVAL ? 0 : -errno;

        *process = (struct process)PROCESS_NONE;
        return r;
    }
    /* Start time and user belong to the pidfd's process only if that has not ended in between. */
    if (!read_start_time(process->pid, &process->start_time) || !process_is_own(process) || process_has_ended(process))
        process_deinit(process);

    return 0;
}

/* The effective user id in the text of /proc/PID/status. */
static bool parse_user(const char *text, size_t len, uint32_t *uidp) {
    const char *at = memmem(text, len, "\nUid:\t", 6);
    uint32_t uid = 0;

    if (!at)
        return false;
    at += 6;
    at = memchr(at, '\t', (size_t)(text + len - at));
    if (!at)
        return false;
    for (at++; at < text + len && *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(uid, 10, &uid) || __builtin_add_overflow(uid, (uint32_t)(*at - '0'), &uid))
            return false;
    *uidp = uid;

    return process_parse_status(text, len, uid);
}

int process_of_pid(uint32_t pid, struct process *process) {
    char text[4096];
    size_t len = read_of_process(pid, "status", text, sizeof(text));

    *process = (struct process)PROCESS_NONE;
    if (!pid || !len || !parse_user(text, len, &process->uid))
        return 0;
    process->pid = pid;

    return pin(process);
}

int process_of_socket(int fd, struct process *process) {
    struct ucred peer;
    socklen_t len = sizeof(peer);

    *process = (struct process)PROCESS_NONE;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return -errno;
    if (peer.pid <= 0)
        return 0;

    process->pid = (uint32_t)peer.pid;
    process->uid = peer.uid;

    return pin(process);
}

bool process_equal(const struct process *a, const struct process *b) {
    return a->pid && a->pid == b->pid && a->start_time == b->start_time;
}

void process_deinit(struct process *process) {
    if (process->fd >= 0)
        close(process->fd);
    *process = (struct process)PROCESS_NONE;
}
