/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/signals.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("signalfd4")

static sigset_t taken_signals(void) {
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

void signals_hold(void) {
    sigset_t set = taken_signals();

    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    /* Whoever reads what is logged may go away. */
    (void)signal(SIGPIPE, SIG_IGN);
    /* A file may not become longer than RLIMIT_FSIZE allows: that is EFBIG to whoever writes it, and no reason to end. */
    (void)signal(SIGXFSZ, SIG_IGN);
}

int signals_watch(struct loop_source *source, struct loop *loop, loop_source_fn came) {
    sigset_t set = taken_signals();
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), r;

    if (fd < 0)
        return -errno;
    r = loop_source_init(source, loop, fd, EPOLLIN, came);
    if (r < 0)
        fd_close(fd);
    return r;
}

int signals_take(struct loop_source *source) {
    struct signalfd_siginfo info;

    return read(source->fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

void signals_forget(struct loop_source *source) {
    if (!source->loop)
        return;
    loop_source_deinit(source);
    fd_close(source->fd);
}
