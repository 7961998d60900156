/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who somebody is, as the kernel said when the connection was accepted.
 *
 * Besides uid and groups, by which policy knows it, that is what its process could make of itself: the other uids that it
 * can take on, and whether it has capabilities, effective or to be raised, that open other users' files.  A process gains
 * neither later, except by executing a set-user-ID program or one with file capabilities; and it can pass what it
 * receives to any other process, which is its responsibility as its principal's.
 *
 * They are read from /proc/PID/status.  The process is held by a pidfd meanwhile, of the socket itself where the kernel has
 * that (Linux 6.5).  If it is gone, or cannot be seen, it counts as one that has them all.  Capabilities in a user namespace
 * of its own count as well: they reach files of uids that are mapped there.
 */
#ifndef POLICY_PRINCIPAL_H
#define POLICY_PRINCIPAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PRINCIPAL_GROUPS 64 /* of a process with more, the first ones count */

struct principal {
    uid_t uid;
    gid_t gid;
    pid_t pid; /**< 0: in this process, or in a pid namespace that is not visible from here */
    bool is_self; /**< in this process, which needs nobody's leave */
    bool is_privileged; /**< could open any file by its capabilities, or nobody knows */
    size_t n_others;
    uid_t others[3]; /**< uids that it can take on: real, saved, of the file system */
    size_t n_groups;
    gid_t groups[PRINCIPAL_GROUPS];
};

/**
 * Fills @a principal from a connected unix socket: SO_PEERCRED, SO_PEERGROUPS (unix(7)), and /proc/PID/status. 0 or a negative
 * errno.
 */
int principal_from_socket(struct principal *principal, int fd);

/** Fills @a principal with this process's own identity, pid 0. 0 or a negative errno. */
int principal_from_self(struct principal *principal);

/** Whether the principal is, or can take on, a uid. */
bool principal_can_be(const struct principal *principal, uid_t uid);

/** Whether the principal is in a group. */
bool principal_in_group(const struct principal *principal, gid_t gid);

#endif
