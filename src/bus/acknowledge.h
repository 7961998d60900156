/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The event that answers a command: the ACK, what travels along with it, and what it says where that cannot. */
#ifndef BUS_ACKNOWLEDGE_H
#define BUS_ACKNOWLEDGE_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/protocol.h>

#include "bus/event.h"

/** What an answer is made of. */
struct acknowledgement {
    const struct vmibus_header *command;
    const struct vmibus_ack *ack;
    const void *tail;           /**< @a tail_length octets, borrowed; NULL: none */
    size_t tail_length;
    const int *fds;             /**< borrowed; NULL: none */
    size_t n_fds;
    struct account *account;    /**< of whoever asked: pays for tail and descriptors */
    void (*reclaim)(void *context); /**< releases the charges of descriptors that have been read; NULL: none can be */
    void *context;
};

/**
 * Makes the event.
 * @param whole false: descriptors or tail could not be taken along, so what is answered is a failure, and what was done must
 *        be undone
 * @return NULL: there is no event, and *@a whole is false
 */
struct event *acknowledge(struct event_pool *events, const struct acknowledgement *answer, bool *whole);

/** The ERROR that tells a peer of the connection itself. */
struct vmibus_frame connection_error(enum vmibus_error error, enum vmibus_reason reason, uint16_t offender, uint64_t value,
                                     uint64_t bound);

#endif
