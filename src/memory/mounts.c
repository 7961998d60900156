/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("memfd_create openat")

/* Whether a line is of the device, and if so whether of a memory file system. */
static bool judge_line(const char *line, uint32_t device_major, uint32_t device_minor,
                       bool *memory) {
    uint32_t line_major, line_minor;
    const char *type = strstr(line, " - ");

    /* Blanks in paths are written as \040. */
    if (!type || sscanf(line, "%*u %*u %" SCNu32 ":%" SCNu32, &line_major, &line_minor) != 2 ||
        line_major != device_major || line_minor != device_minor)
        return false;
    type += 3;
    *memory = strncmp(type, "tmpfs ", 6) == 0 || strncmp(type, "hugetlbfs ", 10) == 0;
    return true;
}

/* 1 memory, 0 something else, -ENOENT: not mentioned. */
static int judge_mounts(int directory, const char *name, uint32_t device_major,
                        uint32_t device_minor) {
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC), result = -ENOENT;
    size_t size = 0, total = 0;
    char *line = NULL;
    bool memory;
    FILE *text;
    ssize_t n;

    if (fd < 0)
        return -errno;
    text = fdopen(fd, "r");
    if (!text) {
        fd_close(fd);
        return -ENOMEM;
    }
    while (result == -ENOENT && total < MOUNTS_TEXT_MAX && (n = getline(&line, &size, text)) > 0) {
        total += (size_t)n;
        if (judge_line(line, device_major, device_minor, &memory))
            result = memory;
    }
    free(line);
    fclose(text);
    return result;
}

static bool is_own_memory(uint32_t device_major, uint32_t device_minor) {
    static const unsigned flags[] = {0, MFD_HUGETLB, MFD_HUGETLB | MFD_HUGE_2MB,
                                     MFD_HUGETLB | MFD_HUGE_1GB};

    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
        _cleanup_fd_ int fd = memfd_create("vmibus-device", MFD_CLOEXEC | flags[i]);
        struct stat st;

        if (fd >= 0 && fstat(fd, &st) == 0 && major(st.st_dev) == device_major &&
            minor(st.st_dev) == device_minor)
            return true;
    }
    return false;
}

int mounts_are_memory(int directory, uint32_t device_major, uint32_t device_minor) {
    int r;

    if (is_own_memory(device_major, device_minor))
        return 1;
    r = judge_mounts(directory, "mountinfo", device_major, device_minor);
    if (r == -ENOENT)
        r = judge_mounts(AT_FDCWD, "/proc/self/mountinfo", device_major, device_minor);
    return r == -ENOENT ? 0 : r;
}
