/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/principal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int principal_from_socket(struct principal *principal, int fd) {
    struct ucred credentials;
    socklen_t length = sizeof(credentials);

    *principal = (struct principal){};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return -errno;
    principal->uid = credentials.uid;
    principal->gid = credentials.gid;
    principal->pid = credentials.pid;
    length = sizeof(principal->groups);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, principal->groups, &length) == 0)
        principal->n_groups = length / sizeof(gid_t);
    else if (errno != ERANGE)
        return -errno;
    /* With more groups than fit, the supplementary ones grant nothing: less right is safe, more is not. */
    return 0;
}

int principal_from_self(struct principal *principal) {
    int n;

    *principal = (struct principal){.uid = geteuid(), .gid = getegid(), .is_self = true};
    n = getgroups(PRINCIPAL_GROUPS, principal->groups);
    if (n < 0)
        return errno == EINVAL ? 0 : -errno;
    principal->n_groups = (size_t)n;
    return 0;
}

bool principal_in_group(const struct principal *principal, gid_t gid) {
    if (principal->gid == gid)
        return true;
    for (size_t i = 0; i < principal->n_groups; i++)
        if (principal->groups[i] == gid)
            return true;
    return false;
}
