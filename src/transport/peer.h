/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A control behind a socket: handshake, receiver, sender, and the session they serve. */
#ifndef TRANSPORT_PEER_H
#define TRANSPORT_PEER_H

#include <stddef.h>

struct listener;

/**
 * Takes a connection just accepted; it lives until either side closes it.
 * @param fd taken whatever the outcome
 */
void peer_new_consume_fd(struct listener *listener, int fd);

/** Octets that a peer takes, for the pool that they come from. */
size_t peer_size(void);

/** Closes all connections of a listener. */
void peer_free_all(struct listener *listener);

#endif
