/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "syscalls.h"

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int tracepoint(uint64_t *id) {
    static const char *const paths[] = {
        "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
        "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
    };

    for (size_t i = 0; i < 2; i++) {
        FILE *file = fopen(paths[i], "re");
        int n;

        if (!file)
            continue;
        n = fscanf(file, "%lu", id);
        fclose(file);
        if (n == 1)
            return 0;
    }
    return -ENOENT;
}

static int count_thread(struct syscalls *syscalls, pid_t thread, uint64_t id) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_TRACEPOINT, .size = sizeof(attributes), .config = id};
    long fd;

    if (syscalls->n == SYSCALLS_THREADS)
        return -E2BIG;
    fd = syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0)
        return -errno;
    syscalls->fds[syscalls->n++] = (int)fd;
    return 0;
}

int syscalls_begin(struct syscalls *syscalls, pid_t pid) {
    char path[64];
    const struct dirent *entry;
    uint64_t id;
    DIR *threads;
    int r;

    syscalls->n = 0;
    r = tracepoint(&id);
    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    threads = opendir(path);
    if (!threads)
        return -errno;
    while (r == 0 && (entry = readdir(threads)))
        if (entry->d_name[0] != '.')
            r = count_thread(syscalls, atoi(entry->d_name), id);
    closedir(threads);
    if (r < 0)
        syscalls_end(syscalls);
    return r;
}

uint64_t syscalls_read(const struct syscalls *syscalls) {
    uint64_t sum = 0;

    for (size_t i = 0; i < syscalls->n; i++) {
        uint64_t value;

        if (read(syscalls->fds[i], &value, sizeof(value)) == sizeof(value))
            sum += value;
    }
    return sum;
}

void syscalls_end(struct syscalls *syscalls) {
    for (size_t i = 0; i < syscalls->n; i++)
        close(syscalls->fds[i]);
    syscalls->n = 0;
}
