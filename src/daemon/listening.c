/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/listening.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include <vmibus/syscalls.h>

#include "daemon/log.h"
#include "transport/listener.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("prlimit64")

void listening_raise_descriptor_limit(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int listening_open(const char *path, mode_t mode, const char *option, int *given, bool *boundp) {
    int fd = fd_steal(given);

    if (fd < 0) {
        fd = listener_bind(path, mode);
        *boundp = fd >= 0;
    }
    if (fd == -EADDRINUSE)
        log_error("%s: another daemon listens there; give another path with %s", path, option);
    else if (fd == -EEXIST)
        log_error("%s is there and no socket; remove it, or give another path with %s", path, option);
    else if (fd < 0)
        log_error("%s cannot be listened on: %s; its directory must be there and writable", path, strerror(-fd));
    return fd;
}
