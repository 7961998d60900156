/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/fds.h"

int state_open(const char *path) {
    _cleanup_fd_ int fd = -1;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    /* Two writers would give out the same numbers, and write one log. The lock ends with the process. */
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return -errno;
    return fd_steal(&fd);
}

int state_open_audit(int directory) {
    _cleanup_fd_ int audit = -1;
    int fd;

    if (mkdirat(directory, "audit", 0700) < 0 && errno != EEXIST)
        return -errno;
    audit = openat(directory, "audit", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (audit < 0)
        return -errno;
    fd = openat(audit, "bus.log", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    return fd < 0 ? -errno : fd;
}
