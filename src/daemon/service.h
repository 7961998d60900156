/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the service manager gives and is told (sd_listen_fds(3), sd_notify(3)); without systemd, nothing. */
#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

/** The listening stream socket that the manager passed, made non-blocking. -ENOENT: none; -EINVAL: something else. */
int service_take_socket(void);

/** The daemon serves. */
void service_ready(const char *status);

/** The daemon reads its configuration anew; service_ready() ends it. */
void service_reloading(void);

/** The daemon ends. */
void service_stopping(void);

#endif
