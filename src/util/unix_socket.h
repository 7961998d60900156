/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Listening on a unix socket, as every daemon does it at its beginning, before it gives up the system calls for that: none of them
 * is declared here.
 */
#ifndef UTIL_UNIX_SOCKET_H
#define UTIL_UNIX_SOCKET_H

#include <sys/types.h>

/**
 * Binds and listens. A socket file that nobody listens at is replaced, and nothing else is: the path may be a mistake.
 * @param type SOCK_STREAM or SOCK_SEQPACKET
 * @param mode of the file, which is never more open than that
 * @return a non-blocking descriptor, -EADDRINUSE (somebody listens), -EEXIST (it is no socket) or another negative errno
 */
int unix_socket_listen(const char *path, int type, mode_t mode, int backlog);

#endif
