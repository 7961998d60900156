/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Somebody behind a socket: handshake, receiver, sender, and the session they serve. */
#ifndef TRANSPORT_PEER_H
#define TRANSPORT_PEER_H

#include <stddef.h>

struct listener;

/**
 * Takes a connection just accepted; it lives until either side closes it.
 * @param fd taken whatever the outcome
 */
void peer_new_consume_fd(struct listener *listener, int fd);

/** Octets that a peer and its session take, for the pool that they come from. */
size_t peer_size(size_t session_octets);

/** Shows every HELLO that waits to the home again. */
void peer_hello_again(struct listener *listener);

/** Closes all connections of a listener. */
void peer_free_all(struct listener *listener);

#endif
