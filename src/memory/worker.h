/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread per endpoint for the commands that are long or could block, so that neither the loop nor the
 * other endpoints wait for them.  It starts with the first job and executes jobs in order.  Finished
 * jobs of all workers come back to the loop through one descriptor.
 */
#ifndef MEMORY_WORKER_H
#define MEMORY_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/list.h"
#include "util/loop.h"

struct authority_client;
struct copier;
struct job;
struct memctx;
struct memory_endpoint;
struct worker;

typedef void (*job_fn)(struct job *job);

/** A command on its way through a worker, embedded in what it is. Between queueing and completion the worker owns `answer`. */
struct job {
    struct list link;                   /**< in a queue */
    struct list client_link;            /**< among the client's */
    job_fn execute;                     /**< on the worker: fills answer.ack, but for its stamps */
    job_fn done;                        /**< afterwards on the loop's thread, and owns the job */
    struct worker *worker;
    struct memory_endpoint *endpoint;   /**< borrowed */
    struct authority_client *client;    /**< NULL once it is gone */
    struct memctx *memctx;              /**< referenced */
    uint64_t audit_sequence;
    uint32_t command_flags;
    struct vmibus_frame answer;
};

/** Where finished jobs of all workers wait for the loop. */
struct completions {
    pthread_mutex_t mutex;
    struct list finished;
    struct loop_source source;          /**< an eventfd, owned */
};

/** Prepares it: `done` of each finished job is called on the loop's thread. 0 or a negative errno. */
int completions_init(struct completions *completions, struct loop *loop);

/** Hands finished jobs over that nobody has seen yet. */
void completions_collect(struct completions *completions);

/** Takes the finished jobs, then goes; every worker must be gone. */
void completions_deinit(struct completions *completions);

/** Starts a thread. 0 or a negative errno. */
int worker_new(struct worker **workerp, struct completions *completions);

/** Waits for all jobs and ends the thread; the jobs are among the finished ones then. Takes and returns NULL. */
struct worker *worker_free(struct worker *worker);

/** Ends the thread if it has no job that the loop has not seen finished; returns NULL then, else the worker. */
struct worker *worker_free_if_idle(struct worker *worker);

/** Jobs that the loop has not seen finished. */
size_t worker_jobs(const struct worker *worker);

/** Queues a job. */
void worker_queue(struct worker *worker, struct job *job);

/** The worker's copier, made when it is first asked for. On the worker's thread. 0 or a negative errno. */
int worker_get_copier(struct worker *worker, struct copier **copierp);

/** The loop has seen a job finished. */
void worker_retire(struct worker *worker);

#endif
