/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Frames become octets on a stream socket.  Frames are taken from where they wait only as far as
 * there is room, so what is not sent yet still has its place in the order, and can still be
 * superseded.  A frame with descriptors begins a message of its own, because the kernel ties
 * descriptors to the first octet of a message.
 */
#ifndef TRANSPORT_SENDER_H
#define TRANSPORT_SENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/control.h"
#include "util/ledger.h"
#include "util/pool.h"

#define SENDER_BUFFER 65536
#define SENDER_MORE 1 /**< enough for once; call again */

struct sender {
    struct pool *buffers;       /**< borrowed */
    int fd;
    uint8_t *buffer;            /**< SENDER_BUFFER octets, NULL while nothing waits to be sent */
    size_t begin, end;          /**< what is to be sent of it */
    struct control_item item;   /**< taken, not in the buffer yet, or only its frame is */
    bool has_item;
    bool item_is_framed;        /**< its frame is in the buffer; the tail is still to be sent */
    size_t tail_sent;
    uint64_t n_sent;            /**< octets, ever */
    struct charge in_flight;    /**< descriptors sent and perhaps not read */
};

/** Takes the next frame to send; released by control_item_deinit(). False: nothing waits. */
typedef bool (*sender_take_fn)(void *context, struct control_item *item);

/** Prepares a sender on a non-blocking stream socket, borrowed. @a buffers: one for each sender there may be. */
void sender_init(struct sender *sender, struct pool *buffers, int fd, struct account *account);

/** Drops what was not sent. */
void sender_deinit(struct sender *sender);

/**
 * Takes and sends as much as the socket takes, about SENDER_BUFFER octets at most.
 * @return 0 everything is sent, SENDER_MORE, -EAGAIN wait until the socket is writable, or another negative
 *         errno (-ENOBUFS: there are fewer buffers than senders): the peer is lost
 */
int sender_flush(struct sender *sender, sender_take_fn take, void *context);

/** Releases the charge of descriptors if the peer has read all that was sent. */
void sender_reclaim(struct sender *sender);

#endif
