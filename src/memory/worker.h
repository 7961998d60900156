/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread per endpoint for what is long or could block, so that neither the loop nor the other endpoints
 * wait for it.  It starts with the first job and executes those of one user in order; users take turns, job by
 * job, as does the authority itself.  So whoever queues many jobs keeps another one waiting for one of them.
 * Finished jobs of all workers come back to the loop through one descriptor.
 *
 * A job can block for as long as the process whose memory it touches likes (memctx_may_block()), so nobody waits for
 * a worker without a bound.  When its endpoint goes it leaves: it executes what it has, and is freed when the loop has
 * seen that, while the next occupant gets a worker of its own.  One that does not come back by the time
 * the authority is freed is abandoned: its thread is detached, and all that the thread could touch once it
 * comes back (the worker, the job, the memory context with its descriptors, fence, buffer, the authority's
 * endpoints) is left to it for ever, on purpose.  There is no taking it back: a descriptor that is closed
 * under a thread may be another file when that thread uses it.
 */
#ifndef MEMORY_WORKER_H
#define MEMORY_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/job.h"
#include "util/list.h"
#include "util/loop.h"

struct copier;
struct worker;

/** Where finished jobs of all workers wait for the loop, and workers that leave for the end of their jobs. */
struct completions {
    pthread_mutex_t mutex;
    struct list finished;
    struct list leaving;                /**< workers; the loop's */
    struct loop_source source;          /**< an eventfd, owned */
};

/** Prepares it: `done` of each finished job is called on the loop's thread. 0 or a negative errno. */
int completions_init(struct completions *completions, struct loop *loop);

/**
 * Ends the workers, all of which have been told to leave.  Jobs that have not begun by the deadline are refused.
 * @param deadline CLOCK_MONOTONIC nanoseconds
 * @return whether every worker has ended; if not, what its thread can touch must not be freed, ever
 */
bool completions_deinit(struct completions *completions, uint64_t deadline);

/** Starts a thread. 0 or a negative errno. */
int worker_new(struct worker **workerp, struct completions *completions);

/** It gets no job any more, and is freed once the loop has seen its last one. Takes (also NULL) and returns NULL. */
struct worker *worker_leave(struct worker *worker);

/** Jobs that the loop has not seen finished. */
size_t worker_jobs(const struct worker *worker);

/** Queues a job, for its client's user or, without a client, for the authority. */
void worker_queue(struct worker *worker, struct job *job);

/** The worker's copier, made when it is first asked for. On the worker's thread. 0 or a negative errno. */
int worker_get_copier(struct worker *worker, struct copier **copierp);

#endif
