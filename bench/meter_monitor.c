/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into a daemon that serves one VM of QEMU, adds up how long it waits for answers of the
 * monitor, in a file that others can map: the one named by VMIBUS_BENCH_MONITOR, a struct
 * monitor_meter.  Time runs from the first command that is sent until no answer is owed any more.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "meter_monitor.h"

#define EXPORTED __attribute__((visibility("default")))

typedef ssize_t (*send_fn)(int fd, const void *data, size_t len, int flags);
typedef ssize_t (*sendmsg_fn)(int fd, const struct msghdr *message, int flags);
typedef ssize_t (*recv_fn)(int fd, void *buffer, size_t len, int flags);

static struct monitor_meter nowhere;
static struct monitor_meter *meter = &nowhere;
static int monitor = -1; /* the descriptor that commands were sent to */
static uint64_t owed, since;

__attribute__((constructor)) static void open_meter(void) {
    const char *path = getenv("VMIBUS_BENCH_MONITOR");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd >= 0 ? mmap(NULL, sizeof(*meter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (map != MAP_FAILED)
        meter = map;
    if (fd >= 0)
        close(fd);
}

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

static uint64_t count(const void *data, size_t len, const char *text) {
    const char *at = data, *end = at + len;
    uint64_t n = 0;

    while ((at = memmem(at, (size_t)(end - at), text, strlen(text)))) {
        at += strlen(text);
        n++;
    }
    return n;
}

static void note_commands(int fd, const void *data, size_t len) {
    uint64_t commands = count(data, len, "\"execute\"");

    if (!commands)
        return;
    monitor = fd;
    if (!owed)
        since = now();
    owed += commands;
    atomic_fetch_add(&meter->commands, commands);
}

EXPORTED ssize_t send(int fd, const void *data, size_t len, int flags) {
    static send_fn next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "send");
    note_commands(fd, data, len);
    return next(fd, data, len, flags);
}

EXPORTED ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    static sendmsg_fn next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "sendmsg");
    for (size_t i = 0; i < message->msg_iovlen; i++)
        note_commands(fd, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    return next(fd, message, flags);
}

EXPORTED ssize_t recv(int fd, void *buffer, size_t len, int flags) {
    static recv_fn next;
    uint64_t answers;
    ssize_t n;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "recv");
    n = next(fd, buffer, len, flags);
    if (n <= 0 || fd != monitor || !owed)
        return n;
    answers = count(buffer, (size_t)n, "{\"return\"") + count(buffer, (size_t)n, "\"error\": {\"class\"");
    atomic_fetch_add(&meter->waited, now() - since);
    since = now();
    owed -= answers < owed ? answers : owed;
    return n;
}
