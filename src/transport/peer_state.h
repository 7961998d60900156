/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A peer, as the files of this folder share it: peer.c, which has the rest of it, and handover.c. */
#ifndef TRANSPORT_PEER_STATE_H
#define TRANSPORT_PEER_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "policy/principal.h"
#include "transport/listener.h"
#include "transport/receiver.h"
#include "transport/sender.h"
#include "transport/session.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"

enum peer_state {
    PEER_HELLO,   /**< nothing but HELLO is read */
    PEER_WAITING, /**< nothing is read: the home does not know yet what HELLO names */
    PEER_OPEN,
    PEER_CLOSING, /**< nothing is read; what is queued is sent, then it ends */
};

struct peer {
    struct listener *listener;
    struct list link;
    enum peer_state state;
    struct principal principal;
    struct account *account;
    struct charge charge;
    struct session *session;    /**< at the end of this; NULL before PEER_OPEN */
    struct list waiting_link;   /**< listener->waiting, while PEER_WAITING */
    struct vmibus_frame hello;  /**< of one that waits */
    struct receiver receiver;
    struct sender sender;
    struct loop_source source;
    struct loop_deferred flush; /**< there is something to send */
    struct turn turn;
    uint32_t ready;             /**< EPOLL bits that its turn is for */
    uint32_t pace;              /**< frames to read at once while there are other users */
    bool writable;              /**< it waits until the socket is */
    struct loop_timer deadline; /**< for HELLO, for half a frame, for the farewell */
    uint64_t halfway;           /**< number of the frame that the deadline is for */
    int fd;                     /**< -1: the home has taken it */
    _Alignas(8) uint8_t space[]; /**< of the session; more would align lists of peers to more than their heads are */
};

/** What the peer's session calls. */
extern const struct session_owner peer_session_owner;

/**
 * Takes a peer in whose connection is charged, and reads from it.
 * @return 0, or a negative errno: it has been freed
 */
int peer_begin(struct peer *peer);

/** It has a session. */
void peer_begin_session(struct peer *peer, struct session *session);

/** Waits for what can be read and, if wanted, for room to write. */
void peer_wait_for(struct peer *peer, bool writable);

/** The listener was paused: what it is waited for may have come long ago, so its deadline is counted anew. */
void peer_renew_deadline(struct peer *peer);

/** Closes it. Takes and returns NULL. */
struct peer *peer_free(struct peer *peer);

#endif
