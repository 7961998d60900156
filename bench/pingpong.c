/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pingpong.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

int write_whole(int fd, const void *data, size_t length) {
    const char *at = data;

    while (length) {
        ssize_t n = write(fd, at, length);

        if (n < 0)
            return -errno;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

int read_whole(int fd, void *data, size_t length) {
    char *at = data;

    while (length) {
        ssize_t n = read(fd, at, length);

        if (n <= 0)
            return n < 0 ? -errno : -ECONNRESET;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

/* What the peer does in each round. */
struct errand {
    int file;       /* -1: nothing */
    off_t offset;
    char *octets;
    size_t len;
    bool reads;     /* it reads the octets; else it writes them */
};

static bool run_errand(const struct errand *errand) {
    if (errand->file < 0)
        return true;
    return (errand->reads ? pread(errand->file, errand->octets, errand->len, errand->offset)
                          : pwrite(errand->file, errand->octets, errand->len, errand->offset)) == (ssize_t)errand->len;
}

static void serve(int fd, const struct errand *errand) {
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    char buffer[PINGPONG_SIZE];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        _exit(1);
    /* What is written is what lies there. */
    if (errand->file >= 0 && pread(errand->file, errand->octets, errand->len, errand->offset) != (ssize_t)errand->len)
        _exit(1);
    while (epoll_wait(epoll_fd, &event, 1, -1) == 1) {
        if (read(fd, buffer, sizeof(buffer)) != sizeof(buffer))
            break;
        if (!run_errand(errand))
            break;
        if (write(fd, buffer, sizeof(buffer)) != sizeof(buffer))
            break;
    }
    _exit(0);
}

static int start(struct pingpong *pingpong, const struct errand *errand) {
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    pingpong->pid = fork();
    if (pingpong->pid == 0) {
        close(fds[0]);
        serve(fds[1], errand);
    }
    close(fds[1]);
    pingpong->fd = fds[0];
    return pingpong->pid < 0 ? -errno : 0;
}

int pingpong_start(struct pingpong *pingpong, int file, off_t offset) {
    char octets[8];

    return start(pingpong, &(struct errand){.file = file, .offset = offset, .octets = octets, .len = sizeof(octets)});
}

int pingpong_start_reading(struct pingpong *pingpong, int file, off_t offset, size_t len) {
    char *octets = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int r;

    if (octets == MAP_FAILED)
        return -errno;
    r = start(pingpong, &(struct errand){.file = file, .offset = offset, .octets = octets, .len = len, .reads = true});
    munmap(octets, len);
    return r;
}

void pingpong_stop(struct pingpong *pingpong) {
    if (pingpong->pid <= 0)
        return;
    close(pingpong->fd);
    kill(pingpong->pid, SIGKILL);
    waitpid(pingpong->pid, NULL, 0);
    pingpong->pid = 0;
}

int pingpong_sample(void *context, uint64_t *samples, size_t n) {
    const struct pingpong *pingpong = context;
    char buffer[PINGPONG_SIZE] = {};

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();
        int r = write_whole(pingpong->fd, buffer, sizeof(buffer));

        if (r == 0)
            r = read_whole(pingpong->fd, buffer, sizeof(buffer));
        if (r < 0)
            return r;
        samples[i] = bench_now() - begun;
    }
    return 0;
}
