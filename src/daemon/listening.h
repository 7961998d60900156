/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a daemon needs to be connected to: its socket, and descriptors enough; what does not work is said. */
#ifndef DAEMON_LISTENING_H
#define DAEMON_LISTENING_H

#include <stdbool.h>
#include <sys/types.h>

/** Each connection and each VM costs descriptors; the soft limit is for programs that use select(2). */
void listening_raise_descriptor_limit(void);

/**
 * The listening socket.
 * @param given  by the service manager, taken; -1: none was, so one is made at @a path
 * @param option by which another path is given, for the message
 * @param boundp whether the file is ours to remove
 * @return a descriptor or a negative errno, which was told
 */
int listening_open(const char *path, mode_t mode, const char *option, int *given, bool *boundp);

#endif
