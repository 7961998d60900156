/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes with QUIESCE: the guest is held still around them.
 *
 * The first such write of an endpoint asks the bus to hold the guest (QUIESCE_BEGIN); it and those that
 * come meanwhile are parked.  Once the bus says that the guest stands still they go to the worker, in
 * order; when the last has ended, the hold is ended too (QUIESCE_END).  If the guest cannot be held, or
 * the hold ends early, every write that has not committed is refused: BUSY, QUIESCE_FAILED.  One that was being
 * committed then is answered the same, and how much of it is written.
 *
 * The loop's thread only, but for `still`, which a worker reads at commit.
 */
#ifndef MEMORY_QUIESCE_H
#define MEMORY_QUIESCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/list.h"

struct job;
struct memory_endpoint;

/** Of one endpoint; embedded in it. */
struct quiesce {
    uint64_t hold;          /**< names the hold asked for; 0: none */
    uint64_t holds;         /**< asked for ever, also for earlier occupants: no name returns */
    struct list parked;     /**< jobs that wait for the guest to stand still */
    size_t running;         /**< jobs that were parked, and are not finished */
    _Atomic bool still;     /**< the bus says that the guest stands still */
};

/** Prepares it. */
void quiesce_init(struct quiesce *quiesce);

/**
 * Takes a job that is ready for the worker, and queues it there once the guest stands still.  If that cannot be, the
 * job is finished as one that the worker has refused.
 */
void quiesce_park(struct memory_endpoint *endpoint, struct job *job);

/**
 * A job that was parked once has been finished; called for each exactly once.
 * @param generation of the endpoint when it was parked: one of an earlier occupant holds nobody still
 */
void quiesce_leave(struct memory_endpoint *endpoint, uint64_t generation);

/** QUIESCE_STATE of the bus. */
void quiesce_hear(struct memory_endpoint *endpoint, const struct vmibus_frame *frame);

/** The endpoint is gone: nothing is held any more, what is parked is refused. */
void quiesce_close(struct memory_endpoint *endpoint);

/** The link to the bus is gone: whatever it held still may go on, and what waits for that is refused. */
void quiesce_lose(struct memory_endpoint *endpoint);

/** One that was handed over: what asked for it has been answered, so the guest goes on. */
void quiesce_go_on(struct memory_endpoint *endpoint);

#endif
