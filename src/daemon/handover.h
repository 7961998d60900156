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

struct loop;

/** What a daemon does at each step; all with its context. */
struct handover_ops {
    /** Nobody new is heard, and what no restart survives begins to end. */
    void (*settle_begin)(void *context);
    /** Whether nothing is under way. */
    bool (*is_settled)(void *context);
    /** Answers what is still under way. */
    void (*settle)(void *context);
    /** Writes all there is. */
    void (*save)(void *context, struct handover_writer *writer);
    /** The incarnation that the state is of; 0: it is not of such a daemon. */
    uint32_t (*incarnation)(struct handover *handover);
    /** Reads it into what has just been made and has told nobody anything; what is wrong is noted in the handover. */
    void (*restore)(void *context, struct handover *handover);
};

/** Who hands over, and how. */
struct handover_parts {
    const struct handover_ops *ops;
    void *context;
    struct loop *loop;      /**< borrowed */
    const char *product;    /**< at most 31 characters */
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
 * @param parts only ops and state_directory are used
 * @param given its state and the descriptors beside it are taken, if this succeeds
 * @param incarnation to go on with
 * @return 0; -ENOENT: nothing was handed over; -ESTALE: it is of an earlier time; or what handover_open() says
 */
int handover_look(struct handover *handover, const struct handover_parts *parts, struct service_fds *given, uint32_t *incarnation);

/**
 * Restores what has just been made, and removes the token.
 * @return 0, or a negative errno: all of it must be freed, and nobody was told anything
 */
int handover_take(const struct handover_parts *parts, struct handover *handover);

/** Nothing more of what was given is used: closes it, but for a listening socket if there is none yet. True: there was one. */
bool handover_refuse(struct service_fds *given, struct handover *handover);

#endif
