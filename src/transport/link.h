/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The link between a bus and a memory authority in another process: one end of it.  Both ends are alike: frames,
 * some with a tail, none with descriptors, over a stream socket; neither ever waits for the other.
 *
 * What one end says is in the socket before it goes on, so that whoever is told something afterwards, by this process
 * or by anybody who heard it from there, finds it there: the other end reads its link before it reads a client.
 * That is what "revoke first, notify second" rests upon.  What the socket has no room for waits in a queue.  So
 * a frame that has to be there first, such as a revocation, may not wait: behind a queue the link is dropped, which
 * suspends all fences at the other end.  (As long as LINK_SYNCED waits itself none is in force, and all may wait.)
 *
 * A link that is lost (closed, garbled, half a frame for too long, a queue that is full or not read) says so once, from
 * the loop; its owner ends it, and may begin it anew on another socket.
 */
#ifndef TRANSPORT_LINK_H
#define TRANSPORT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "transport/receiver.h"
#include "util/loop.h"

struct link;

/** Why a link is lost; for people. */
enum link_loss {
    LINK_CLOSED,        /**< the other end closed it, or it failed: an errno */
    LINK_GARBLED,       /**< what came is no lawful frame */
    LINK_SLOW,          /**< the other end does not read, or not on */
};

struct link_options {
    struct loop *loop;              /**< borrowed */
    struct arena *arena;            /**< borrowed: link_memory_needed() octets are carved from it */
    uint32_t tail_bound;            /**< octets of a frame's tail */
    unsigned sender;                /**< what the other end is: VMIBUS_SENDER_BUS or VMIBUS_SENDER_MEMORY */
    size_t queue_bound;             /**< octets that may wait to be sent */
    uint32_t half_frame_ms;         /**< how long the rest of a frame may take, and an unread queue stay so */
    /** A frame came; checked. */
    void (*hear)(void *context, const struct vmibus_frame *frame, const void *tail);
    /** The link is down from now on: called at once, so it must not end it. NULL: nobody has to know at once. */
    void (*down)(void *context);
    /** The link is lost, from the loop. May end it. */
    void (*lost)(void *context, enum link_loss loss);
    void *context;
};

struct link {
    struct link_options options;
    struct loop_source source;
    struct loop_deferred ending;    /**< it is lost, and its owner not told yet */
    struct loop_timer deadline;     /**< for half a frame, or for a queue */
    struct receiver_pool pool;      /**< its own, so that no peer can be in its way */
    struct ledger ledger;           /**< ... as is what its tail is charged to */
    struct account *account;
    struct receiver receiver;
    uint64_t halfway;               /**< number of the frame that the deadline is for */
    uint64_t sent, stuck;           /**< octets, ever; and how many when the deadline was set */
    uint64_t synced;                /**< how many with LINK_SYNCED; 0: it was not said */
    uint8_t *queue;                 /**< NULL: nothing waits */
    size_t begin, end, capacity;
    enum link_loss loss;
    bool up;
    int fd;                         /**< -1: none */
};

/** What a link carves from its arena, octets. */
size_t link_memory_needed(uint32_t tail_bound);

/** Prepares one that is down. 0 or a negative errno. */
int link_init(struct link *link, const struct link_options *options);

/** Ends it for good. Harmless on zeros. */
void link_deinit(struct link *link);

/** Begins, on a connected non-blocking stream socket, which is taken whatever the outcome. 0 or a negative errno. */
int link_begin_consume_fd(struct link *link, int fd);

/** Ends it, and tells nobody; it can begin anew. Harmless if it is down. */
void link_end(struct link *link);

/** Whether frames that are said may reach the other end. */
static inline bool link_is_up(const struct link *link) {
    return link->up;
}

/** Says a frame. On a link that is down it is lost, as it is on one that ends by this. */
void link_say(struct link *link, const struct vmibus_frame *frame, const void *tail);

/** One that was handed over goes on: what waits to be sent is sent. */
void link_go_on(struct link *link);

/** Hears all that the other end has said by now. It may be lost afterwards. */
void link_catch_up(struct link *link);

#endif
