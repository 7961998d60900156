/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vmibusd hands over: a core, its listener, and its link to a memory authority that has a process of its own. */
#ifndef DAEMON_HANDOVER_BUS_H
#define DAEMON_HANDOVER_BUS_H

#include <stdbool.h>

#include "daemon/handover.h"

struct listener;
struct vmibus_core;

/** The context of bus_handover_ops. */
struct bus_handover_parts {
    struct vmibus_core *core;
    struct listener *listener;  /**< to be restored: paused, with no peers */
    bool with_socket;           /**< nobody else gives the listening socket to the next daemon */
};

extern const struct handover_ops bus_handover_ops;

#endif
