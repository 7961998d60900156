/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/service.h"

#include <errno.h>

#if HAVE_SYSTEMD

#include <fcntl.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "util/clock.h"

int service_take_socket(void) {
    int n = sd_listen_fds(1);

    if (n < 0)
        return n;
    if (n == 0)
        return -ENOENT;
    if (n > 1 || sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_STREAM, 1) <= 0)
        return -EINVAL;
    /* The manager clears it unless told otherwise, and accepting must not wait. */
    if (fcntl(SD_LISTEN_FDS_START, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return SD_LISTEN_FDS_START;
}

void service_ready(const char *status) {
    (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void service_reloading(void) {
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now() / NS_PER_US);
}

void service_stopping(void) {
    (void)sd_notify(0, "STOPPING=1");
}

#else

int service_take_socket(void) {
    return -ENOENT;
}

void service_ready(const char *status) {
    (void)status;
}

void service_reloading(void) {
}

void service_stopping(void) {
}

#endif
