/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vmibus-memd hands over: a memory authority, the listener of its channels, and its end of the link to the bus. */
#ifndef DAEMON_HANDOVER_MEMORY_H
#define DAEMON_HANDOVER_MEMORY_H

#include <stdbool.h>

#include "daemon/handover.h"

struct listener;
struct memory_home;

/** The context of memory_handover_ops. */
struct memory_handover_parts {
    struct memory_home *home;   /**< with its authority */
    struct listener *listener;  /**< to be restored: paused, with no peers */
    bool with_socket;           /**< nobody else gives the listening socket to the next daemon */
    bool is_linked;             /**< restored: the bus is heard as before */
};

extern const struct handover_ops memory_handover_ops;

/** The listening socket among what was handed over; -1: there is none. */
int memory_handover_take_socket(struct handover *handover);

#endif
