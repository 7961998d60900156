/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/log.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("flock mkdir mkdirat openat")

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

int state_open_or_tell(const char *path) {
    int fd = state_open(path);

    if (fd == -EWOULDBLOCK)
        log_error("%s is in use by another daemon; give another directory with --state-directory", path);
    else if (fd < 0)
        log_error("%s cannot be opened: %s; give a directory of this user's with --state-directory", path, strerror(-fd));
    return fd;
}

int state_open_audit_directory(int directory) {
    int fd;

    if (mkdirat(directory, "audit", 0700) < 0 && errno != EEXIST)
        return -errno;
    fd = openat(directory, "audit", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

int state_open_audit(int directory, const char *writer) {
    _cleanup_fd_ int audit = state_open_audit_directory(directory);
    char name[32];
    int fd;

    if (audit < 0)
        return audit;
    snprintf(name, sizeof(name), "%s.log", writer);
    fd = openat(audit, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    return fd < 0 ? -errno : fd;
}

void state_tell_audit_failure(const char *path, const char *writer, int r) {
    log_warning("%s/audit/%s.log cannot be written: %s; commands are not recorded", path, writer, strerror(-r));
}
