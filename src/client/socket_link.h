/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A link over a connected unix stream socket.
 *
 * Frames are received in bulk: one recvmsg(2) gives as many as there are, up to 64 KiB.  A tail that
 * is longer than what came with its frame is received where it belongs, without a copy.  The socket's
 * own mode (O_NONBLOCK) is neither needed nor changed, since it may be shared with another process.
 * One thread at a time.
 */
#ifndef CLIENT_SOCKET_LINK_H
#define CLIENT_SOCKET_LINK_H

#include <stdint.h>

#include <vmibus/client.h>

struct socket_link;

/** The operations; their context is a struct socket_link. */
extern const struct vmibus_link_ops socket_link_ops;

/**
 * Makes a link of a connected stream socket.
 * @param linkp receives the link; its ops' close() frees it
 * @param fd    taken whatever the outcome
 * @return 0, -ENOTSOCK, -EPROTOTYPE (not a unix stream socket) or another negative errno
 */
int socket_link_new_consume_fd(struct socket_link **linkp, int fd);

/**
 * Connects to a listening unix stream socket; waits at most five seconds for a place in its queue.
 * @return 0, -ENAMETOOLONG, -ETIMEDOUT or another negative errno
 */
int socket_link_connect(struct socket_link **linkp, const char *path);

/** Bounds what is received from now on, as WELCOME tells. */
void socket_link_set_bounds(struct socket_link *link, uint32_t tail_bound, uint8_t fds_per_frame);

/** How much may be unsent before no more is taken (-ENOBUFS), octets; 1 MiB if nobody says otherwise. */
void socket_link_set_unsent_bound(struct socket_link *link, size_t octets);

/** The socket, borrowed. */
int socket_link_get_fd(const struct socket_link *link);

#endif
