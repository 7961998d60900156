/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/trusted_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("openat readlink readlinkat")

bool trusted_is_roots(const struct stat *st) {
    return st->st_uid == 0 && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool keeps_what_is_roots(const struct stat *st) {
    return st->st_uid == 0 && ((st->st_mode & (S_IWGRP | S_IWOTH)) == 0 || (st->st_mode & S_ISVTX));
}

/* Each folder from the one of the file up to the root. The path is absolute and without links; it is cut. */
static int check_folders(char *path, char *why, size_t size) {
    for (;;) {
        char *slash = strrchr(path, '/');
        const char *folder = path;
        struct stat st;

        if (!slash)
            return 0;
        *slash = '\0';
        if (*path == '\0')
            folder = "/";
        if (stat(folder, &st) < 0)
            return -errno;
        if (!keeps_what_is_roots(&st)) {
            snprintf(why, size, "others than root can change what is in %s: chown root %s; chmod go-w %s", folder, folder, folder);
            return -EPERM;
        }
    }
}

static int check_file(int fd, const char *path, char *why, size_t size) {
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode)) {
        snprintf(why, size, "%s is no regular file", path);
        return -EPERM;
    }
    if (!trusted_is_roots(&st)) {
        snprintf(why, size, "others than root can change %s: chown root %s; chmod go-w %s", path, path, path);
        return -EPERM;
    }
    return 0;
}

int trusted_open(const char *path, char *why, size_t size) {
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    char *resolved;
    int r;

    if (fd < 0 && errno != ELOOP)
        return -errno;
    resolved = realpath(path, NULL);
    if (!resolved)
        return -errno;
    if (fd < 0 || strcmp(resolved, path) != 0) {
        snprintf(why, size, "%s leads elsewhere by a symbolic link or by dots: give the path %s", path, resolved);
        r = -EPERM;
    } else {
        r = check_file(fd, path, why, size);
    }
    if (r == 0)
        r = check_folders(resolved, why, size);
    free(resolved);
    return r < 0 ? r : fd_steal(&fd);
}
