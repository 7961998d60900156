/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The opener that works in this process, through /proc.  A process is checked to be the one meant, by
 * its start time, before and after each thing that is opened: in between its pid cannot have been
 * given to another and back.
 */
#include "memory/opener.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "memory/maps.h"
#include "memory/mounts.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("fchmod getdents64 openat pidfd_open")

#define STAT_MAX 4096

/* A process that is gone answers these. */
static int translate_errno(int error) {
    return error == ENOENT || error == ESRCH ? -ESRCH : -error;
}

static int open_in(int directory, const char *name, int flags) {
    int fd = openat(directory, name, flags | O_CLOEXEC | O_NOCTTY);

    return fd < 0 ? translate_errno(errno) : fd;
}

/* Field 22 of the line; the name in field 2 may contain anything, so it is counted from its end. */
static bool parse_start_time(const char *text, uint64_t *start_time) {
    const char *at = strrchr(text, ')');

    for (int field = 2; at && field < 22; field++) {
        at = strchr(at, ' ');
        if (at)
            at++;
    }
    return at && sscanf(at, "%" SCNu64, start_time) == 1;
}

static int check_start_time(int directory, const struct opener_process *process) {
    _cleanup_fd_ int fd = open_in(directory, "stat", O_RDONLY);
    char text[STAT_MAX];
    uint64_t start_time;
    ssize_t n;

    if (fd < 0)
        return fd;
    n = read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return n < 0 ? translate_errno(errno) : -ESRCH;
    text[n] = '\0';
    return parse_start_time(text, &start_time) && start_time == process->start_time ? 0 : -ESRCH;
}

/* The directory in /proc stays that of one process: it is dead when the process is, whatever its pid becomes. */
static int open_directory(const struct opener_process *process) {
    char path[32];
    int fd, r;

    snprintf(path, sizeof(path), "/proc/%" PRIu32, process->pid);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return translate_errno(errno);
    r = check_start_time(fd, process);
    if (r < 0) {
        fd_close(fd);
        return r;
    }
    return fd;
}

/* Gives a descriptor back if the process is still the one it was. */
static int confirm_consume_fd(int directory, const struct opener_process *process, int fd) {
    int r;

    if (fd < 0)
        return fd;
    r = check_start_time(directory, process);
    if (r < 0) {
        fd_close(fd);
        return r;
    }
    return fd;
}

static int open_member(const struct opener_process *process, const char *name, int flags) {
    _cleanup_fd_ int directory = open_directory(process);

    if (directory < 0)
        return directory;
    return confirm_consume_fd(directory, process, open_in(directory, name, flags));
}

static int local_open_maps(const struct opener *opener, const struct opener_process *process) {
    (void)opener;
    return open_member(process, "maps", O_RDONLY);
}

static int local_open_memory(const struct opener *opener, const struct opener_process *process) {
    (void)opener;
    return open_member(process, "mem", O_RDWR);
}

static int local_open_memory_to_read(const struct opener *opener, const struct opener_process *process) {
    (void)opener;
    return open_member(process, "mem", O_RDONLY);
}

static int local_open_pagemap(const struct opener *opener, const struct opener_process *process) {
    _cleanup_fd_ int directory = open_directory(process);
    int fd, r;

    (void)opener;
    if (directory < 0)
        return directory;
    fd = open_in(directory, "pagemap", O_RDONLY);
    if (fd != -ESRCH)
        return confirm_consume_fd(directory, process, fd);
    r = check_start_time(directory, process);
    return r < 0 ? r : -EOPNOTSUPP;
}

static int local_open_process(const struct opener *opener, const struct opener_process *process) {
    _cleanup_fd_ int directory = open_directory(process);
    int fd;

    (void)opener;
    if (directory < 0)
        return directory;
    fd = (int)syscall(SYS_pidfd_open, (pid_t)process->pid, 0);
    if (fd < 0)
        return translate_errno(errno);
    return confirm_consume_fd(directory, process, fd);
}

/* --- files ------------------------------------------------------------------------------------- */

/*
 * Whether an entry, or with an empty name the descriptor itself, is the file. Attributes are taken as
 * the kernel has them, without asking a server that may never answer.
 */
static bool is_file(int directory, const char *name, const struct opener_file *file) {
    int flags = AT_STATX_DONT_SYNC | (*name ? 0 : AT_EMPTY_PATH);
    struct statx stx;

    if (statx(directory, name, flags, STATX_TYPE | STATX_INO, &stx) < 0)
        return false;
    return S_ISREG(stx.stx_mode) && stx.stx_ino == file->inode &&
           stx.stx_dev_major == file->device_major && stx.stx_dev_minor == file->device_minor;
}

/* Opens an entry that leads to the file. The entry may change meanwhile: what was opened is looked at. */
static int open_entry(int directory, const char *name, const struct opener_file *file, int flags) {
    int fd;

    /* Only what leads to the file is opened: opening anything else could have effects. */
    if (!is_file(directory, name, file))
        return -ENOENT;
    fd = openat(directory, name, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (!is_file(fd, "", file)) {
        fd_close(fd);
        return -ENOENT;
    }
    return fd;
}

static int open_in_fds(int directory, const struct opener_file *file, int flags) {
    struct dirent *entry;
    DIR *list;
    int fd, result = -ENOENT;

    fd = openat(directory, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    list = fdopendir(fd);
    if (!list) {
        fd_close(fd);
        return -ENOMEM;
    }
    while (result < 0 && (entry = readdir(list))) {
        int r = entry->d_name[0] == '.' ? -ENOENT
                                        : open_entry(dirfd(list), entry->d_name, file, flags);

        if (r >= 0 || result == -ENOENT)
            result = r;
    }
    closedir(list);
    return result;
}

static int open_in_mappings(int directory, const struct opener_file *file, int flags) {
    _cleanup_fd_ int text = open_in(directory, "maps", O_RDONLY), list = -1;
    struct maps maps = {};
    int result = -ENOENT, r;

    if (text < 0)
        return text;
    list = openat(directory, "map_files", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (list < 0)
        return -errno;
    r = maps_read(&maps, text);
    for (size_t i = 0; r == 0 && result < 0 && i < maps.n_entries; i++) {
        const struct maps_entry *entry = &maps.entries[i];
        char name[64];

        if (entry->inode != file->inode || entry->device_major != file->device_major ||
            entry->device_minor != file->device_minor)
            continue;
        snprintf(name, sizeof(name), "%" PRIx64 "-%" PRIx64, entry->start, entry->end);
        result = open_entry(list, name, file, flags);
    }
    maps_deinit(&maps);
    return r < 0 ? r : result;
}

static int local_open_file(const struct opener *opener, const struct opener_process *process,
                           const struct opener_file *file, int flags) {
    _cleanup_fd_ int directory = open_directory(process);
    int fd, r;

    (void)opener;
    if (directory < 0)
        return directory;
    r = mounts_are_memory(directory, file->device_major, file->device_minor);
    if (r <= 0)
        return r < 0 ? r : -EMEDIUMTYPE;
    fd = open_in_fds(directory, file, flags);
    if (fd == -ENOENT)
        fd = open_in_mappings(directory, file, flags);
    return confirm_consume_fd(directory, process, fd);
}

static int local_tighten(const struct opener *opener, int fd, mode_t mode) {
    (void)opener;
    return fchmod(fd, mode) < 0 ? -errno : 0;
}

const struct opener *opener_local(void) {
    static const struct opener opener = {
        .open_maps = local_open_maps,
        .open_process = local_open_process,
        .open_memory = local_open_memory,
        .open_memory_to_read = local_open_memory_to_read,
        .open_pagemap = local_open_pagemap,
        .open_file = local_open_file,
        .tighten = local_tighten,
    };

    return &opener;
}
