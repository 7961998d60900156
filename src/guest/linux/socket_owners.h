/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who has which socket open: the sockets behind the open files of all processes, to be looked up by
 * where their struct socket lies.
 */
#ifndef GUEST_LINUX_SOCKET_OWNERS_H
#define GUEST_LINUX_SOCKET_OWNERS_H

#include "kernel.h"

/** A descriptor that a socket is open as. */
struct socket_owner {
    uint64_t socket;    /**< where its struct socket lies */
    uint32_t pid;
    uint32_t fd;
};

/** Owners, in the order of sockets, then pids, then descriptors. */
struct socket_owners {
    struct socket_owner *owners;
    size_t n, room;
};

/**
 * Collects the owners of all sockets. Processes that end meanwhile are left out.
 * @param owners zeroed before; to be ended by socket_owners_deinit() whatever this returns
 * @return 0, UNPROVEN or a negative errno
 */
int socket_owners_collect(struct vmibus_linux *kernel, struct socket_owners *owners, struct vmibus_linux_picture *picture);

/** The first owner of a socket, and how many there are; NULL: none is known. */
const struct socket_owner *socket_owners_find(const struct socket_owners *owners, uint64_t socket, uint32_t *n);

/** Frees what it holds. */
void socket_owners_deinit(struct socket_owners *owners);

#endif
