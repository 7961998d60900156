/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state directory: the incarnation and the intents log, which outlive the process. */
#ifndef DAEMON_STATE_H
#define DAEMON_STATE_H

#include <stdint.h>

/** Opens and locks the directory, making it if its parent is there. A descriptor, -EWOULDBLOCK: in use, or another errno. */
int state_open(const char *path);

/** The same for a daemon that cannot do without; what does not work is said. A descriptor or a negative errno. */
int state_open_or_tell(const char *path);

/** Opens the intents log, audit/WRITER.log, in the state directory, and makes it if need be. A descriptor, or a negative errno. */
int state_open_audit(int directory, const char *writer);

/** Says that the intents log cannot be had. It is optional work: the daemon goes on. @param path of the state directory */
void state_tell_audit_failure(const char *path, const char *writer, int r);

/** Opens audit, the directory of audit files in the state directory, and makes it if need be. A descriptor or a negative errno. */
int state_open_audit_directory(int directory);

#endif
