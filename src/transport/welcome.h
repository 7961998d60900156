/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a bus says to whoever said HELLO to it: its bounds, and where the memory authority listens. */
#ifndef TRANSPORT_WELCOME_H
#define TRANSPORT_WELCOME_H

#include <stdbool.h>

#include <vmibus/protocol.h>

#include "bus/control.h"
#include "transport/bus_home.h"

/**
 * Queues the WELCOME that answers a HELLO, also a repeated one.
 * @param control     whose connection it is
 * @param memory_here the session is a client of the memory authority too
 * @return 0 or -ENOBUFS
 */
int welcome_queue(struct control *control, const struct bus_home *home, bool memory_here, const struct vmibus_header *hello);

#endif
