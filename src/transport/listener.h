/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The listening socket and the peers that came through it.
 *
 * A connection is charged to its uid before a single octet of it is read, and refused with the limit
 * named when it is one too many.  Accepting takes turns with the peers (turns.h).  When the process runs out
 * of descriptors the listener stops accepting until one is free again: it must neither spin nor take the bus
 * down.
 */
#ifndef TRANSPORT_LISTENER_H
#define TRANSPORT_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/receiver.h"
#include "transport/session.h"
#include "transport/turns.h"
#include "util/list.h"
#include "util/loop.h"
#include "util/pool.h"

struct listener_options {
    struct session_home *home;  /**< borrowed */
    uint32_t n_connections;     /**< at most */
    uint32_t hello_ms;          /**< how long HELLO may take */
    uint32_t half_frame_ms;     /**< how long the rest of a frame may take */
    size_t n_large_tails;       /**< tails being gathered at once */
    struct arena *arena;        /**< borrowed: listener_memory_needed() octets are carved from it */
};

struct listener {
    struct listener_options options;
    struct loop *loop;
    struct loop_source source;
    struct loop_timer retry;        /**< after running out of descriptors */
    struct list peers;
    struct list waiting;            /**< those of the peers whose HELLO waits */
    struct loop_deferred hello_again;
    uint32_t n_peers;
    struct turns turns;
    struct turn turn;               /**< of accepting */
    struct receiver_pool receivers;
    struct pool senders;
    struct pool peer_blocks;    /**< one more than peers: whom to refuse */
    int fd;
    bool paused;                    /**< nothing is accepted, and no peer is read */
};

/**
 * What a listener carves from its arena, octets.
 * @param session_octets as struct session_home has it
 */
size_t listener_memory_needed(size_t session_octets, uint32_t tail_bound, uint32_t n_connections, size_t n_large_tails);

/** Listens on a socket, which is taken whatever the outcome. 0 or a negative errno. */
int listener_new_consume_fd(struct listener **listenerp, struct loop *loop, int fd, const struct listener_options *options);

/** Closes all connections and the socket. Takes and returns NULL. */
struct listener *listener_free(struct listener *listener);

/** Stops accepting and reading; what waits to be sent is sent. */
void listener_pause(struct listener *listener);

/** Accepts and reads again. Nobody is late by what was not read meanwhile: deadlines of peers are counted anew. */
void listener_resume(struct listener *listener);

/** The home knows more than before: every HELLO that waits is shown to it again, soon. */
void listener_hello_again(struct listener *listener);

/**
 * Makes a listening socket.
 * @param path replaced if it is a socket at which nobody listens any more
 * @param mode of the file
 * @return a descriptor, -EADDRINUSE if somebody listens there, -EEXIST if it is no socket, or another negative errno
 */
int listener_bind(const char *path, mode_t mode);

#endif
