/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A daemon hands over to the one that is started in its place, through the service manager's fd store.
 *
 *      pause, settle, write -> the descriptors, the state, a barrier -> the token, on the disk -> end
 *      the state's token is the one on the disk -> restore all -> the token is removed, for good -> go on, sensors, reading
 *
 * The token makes the state good for exactly one start: it is written when everything else is with the manager, and removed
 * before anybody hears anything of whoever took the state over.  So whenever either of them is killed, the next one takes over
 * all, or begins anew with a higher incarnation, and nothing that was revoked comes back.
 */
#ifndef DAEMON_HANDOVER_H
#define DAEMON_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/service.h"
#include "util/handover.h"

struct listener;
struct vmibus_core;

/** What is handed over, and how. */
struct handover_parts {
    struct vmibus_core *core;
    struct listener *listener;
    bool with_socket;       /**< nobody else gives the listening socket to the next daemon */
    int state_directory;    /**< borrowed */
};

/**
 * Hands over.  It takes up to twice the time: for what is under way, and for the manager.
 * @return 0: whoever calls must end without undoing anything; or a negative errno: nothing is handed over, and the next start
 *         is one as any other
 */
int handover_give(const struct handover_parts *parts, uint32_t timeout_ms);

/**
 * Looks at what was given.
 * @param given its state and the descriptors beside it are taken, if this succeeds
 * @param incarnation to go on with
 * @return 0; -ENOENT: nothing was handed over; -ESTALE: it is of an earlier time; or what handover_open() says
 */
int handover_look(struct handover *handover, struct service_fds *given, int state_directory, uint32_t *incarnation);

/**
 * Restores a core and a listener that have just been made, the latter paused, and removes the token.
 * @return 0, or a negative errno: both must be freed, and nobody was told anything
 */
int handover_take(const struct handover_parts *parts, struct handover *handover);

/** Nothing more of what was given is used: closes it, but for a listening socket if there is none yet. True: there was one. */
bool handover_refuse(struct service_fds *given, struct handover *handover);

#endif
