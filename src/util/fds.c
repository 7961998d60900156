/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int fd_close(int fd) {
    int saved = errno;

    if (fd >= 0)
        close(fd);
    errno = saved;
    return -1;
}

void fd_closep(int *fdp) {
    fd_close(*fdp);
}

int fd_dup(int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    return copy < 0 ? -errno : copy;
}

void fds_close(int *fds, size_t n_fds) {
    for (size_t i = 0; i < n_fds; i++)
        fds[i] = fd_close(fds[i]);
}
