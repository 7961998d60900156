/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A service manager of a test's own: a socket for sd_notify(3), and a store of descriptors by name, as systemd keeps one.  A
 * thread hears the daemon, so that it is answered also while the test waits for it.
 */
#ifndef TESTS_DAEMON_MANAGER_H
#define TESTS_DAEMON_MANAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "daemon/daemon.h"

/** Makes it. Returns the path for $NOTIFY_SOCKET, valid until manager_stop(). */
const char *manager_start(void);

/** Closes what it has. */
void manager_stop(void);

/** Has it answer no barrier from now on, and close what it is to keep once it has kept so many more; -1: keep all. */
void manager_refuse(bool barriers, int n_kept);

/** Kills a process by SIGKILL once it has said so many things more; 0: never. */
void manager_kill_after(pid_t pid, unsigned n);

/** Waits until whoever is to be killed has said READY=1, and is let live then, or has ended (it is not reaped). True: it lives. */
bool manager_wait_victim(void);

/** How many things the manager has heard. */
unsigned manager_heard(void);

/** Keeps a copy of what is in the store, for manager_put_back(). */
void manager_copy(void);

/** Puts what was copied into the store anew, in the place of what is there. */
void manager_put_back(void);

/** How often a daemon has said READY=1. */
unsigned manager_ready(void);

/** Whether that is what was said last with STATUS= of how something serves. */
bool manager_serving_is(const char *status);

/** Waits until the daemon has said READY=1 so many times in all. */
void manager_await_ready(unsigned n);

/** Waits until it has said so, or the process has ended (it is not reaped). True: it has said so. */
bool manager_wait_ready_or_death(pid_t pid, unsigned n);

/** How much is in the store by names that begin so. */
size_t manager_count(const char *prefix);

/** Waits until all that was said so far has been heard. */
void manager_sync(void);

/** What the next daemon is started with. */
void manager_give(struct daemon *daemon);

/** The descriptor by a name, borrowed; -1: none. */
int manager_find(const char *name);

/** Puts another descriptor (duplicated) in the place of one. */
void manager_replace(const char *name, int fd);

/** Takes one out. */
void manager_drop(const char *name);

#endif
