/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/process_usage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("getdents64 openat")

static int open_directory(uint32_t pid) {
    char path[32] = "/proc/self";

    if (pid)
        snprintf(path, sizeof(path), "/proc/%" PRIu32, pid);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int read_text(int directory, const char *name, char *text, size_t size) {
    _cleanup_fd_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

    if (n < 0)
        return -errno;
    text[n] = '\0';
    return 0;
}

/* Fields 14, 15, 22 and 24 of stat; the name in field 2 may hold anything, so counting begins behind its end. */
static int read_stat(int directory, struct process_usage *usage) {
    uint64_t user, system, pages;
    const char *behind;
    char text[1024];
    int r = read_text(directory, "stat", text, sizeof(text));

    if (r < 0)
        return r;
    behind = strrchr(text, ')');
    if (!behind || sscanf(behind + 1,
                          " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                          " %*d %*d %*d %*d %*d %*d %" SCNu64 " %*u %" SCNu64,
                          &user, &system, &usage->start_time, &pages) != 4)
        return -EBADMSG;
    usage->cpu = (user + system) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
    usage->resident = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

/* Fields 2 and 3 of statm: resident, and that of it which files back. */
static int read_statm(int directory, struct process_usage *usage) {
    uint64_t resident, shared;
    char text[128];
    int r = read_text(directory, "statm", text, sizeof(text));

    if (r < 0)
        return r;
    if (sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2)
        return -EBADMSG;
    usage->resident = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    usage->anonymous = resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    return 0;
}

static uint32_t count_entries(int directory) {
    _cleanup_fd_ int fd = openat(directory, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    uint32_t n = 0;

    if (!stream)
        return 0;
    (void)fd_steal(&fd);
    while (n < PROCESS_FDS_MAX && (entry = readdir(stream)))
        n += entry->d_name[0] != '.';
    closedir(stream);
    return n;
}

/* Linux 6.2 and later tell the number as the size of the directory; before, it is 0 and the entries are counted. */
static uint32_t count_fds(int directory) {
    struct stat st;

    if (fstatat(directory, "fd", &st, 0) < 0)
        return 0;
    return st.st_size > 0 ? (uint32_t)st.st_size : count_entries(directory);
}

/* What counting itself had open, in this process only: the directory, and below Linux 6.2 the one of descriptors. */
static uint32_t own_fds(int directory) {
    struct stat st;

    return fstatat(directory, "fd", &st, 0) == 0 && st.st_size > 0 ? 1 : 2;
}

int process_usage_read(struct process_usage *usage, uint32_t pid, uint64_t start_time) {
    _cleanup_fd_ int directory = open_directory(pid);
    struct process_usage after;
    int r;

    *usage = (struct process_usage){};
    if (directory < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    r = read_stat(directory, usage);
    if (r < 0)
        return r;
    if (start_time && usage->start_time != start_time)
        return -ESRCH;
    r = read_statm(directory, usage);
    if (r < 0)
        return r;
    usage->fds = count_fds(directory);
    if (!pid && usage->fds)
        usage->fds -= own_fds(directory);
    r = read_stat(directory, &after);
    if (r < 0)
        return r;
    return after.start_time == usage->start_time ? 0 : -ESRCH;
}
