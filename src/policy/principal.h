/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who somebody is, as the kernel said when the connection was accepted. */
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
    size_t n_groups;
    gid_t groups[PRINCIPAL_GROUPS];
};

/** Fills @a principal from a connected unix socket: SO_PEERCRED, SO_PEERGROUPS (unix(7)). 0 or a negative errno. */
int principal_from_socket(struct principal *principal, int fd);

/** Fills @a principal with this process's own identity, pid 0. 0 or a negative errno. */
int principal_from_self(struct principal *principal);

/** Whether the principal is in a group. */
bool principal_in_group(const struct principal *principal, gid_t gid);

#endif
