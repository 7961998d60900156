/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs: commands that do not end at once, because a worker (worker.h) executes them, perhaps after the guest has come
 * to stand still (quiesce.h).  A client's jobs are listed from their beginning until they are done: so that what it
 * commands next on the same endpoint is not executed here, before them; and so that they outlive it, and answer
 * nobody then.
 */
#ifndef MEMORY_JOB_H
#define MEMORY_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#include "util/list.h"

struct authority_client;
struct job;
struct memctx;
struct memory_endpoint;
struct worker;

typedef void (*job_fn)(struct job *job);

/** Something on its way through a worker, embedded in what it is. Between queueing and completion the worker owns `answer`. */
struct job {
    struct list link;                   /**< in a queue */
    struct list client_link;            /**< among the client's */
    job_fn execute;                     /**< on the worker: fills answer.ack, but for its stamps */
    job_fn done;                        /**< afterwards on the loop's thread, and owns the job */
    job_fn abandon;                     /**< instead, if it never comes back: takes it off the books, and frees nothing */
    struct worker *worker;
    uid_t uid;                          /**< whose turn it takes; the worker's */
    uint64_t turn;                      /**< when; the worker's */
    struct memory_endpoint *endpoint;   /**< borrowed */
    struct authority_client *client;    /**< NULL once it is gone, or if nobody has asked for it */
    struct memctx *memctx;              /**< referenced */
    uint64_t audit_sequence;
    uint32_t command_flags;
    struct vmibus_frame answer;
};

/**
 * Begins a job of a client; execute, done and abandon are the caller's to set, before or after.
 * @param memctx a reference is taken
 * @param answer copied
 */
void job_begin(struct job *job, struct authority_client *client, struct memory_endpoint *endpoint, struct memctx *memctx,
               uint32_t command_flags, uint64_t audit_sequence, const struct vmibus_frame *answer);

/**
 * Whether a job of the client on the endpoint is under way, which its next command must not overtake.
 * The loop's thread only, as for all that concerns a client.
 */
bool client_must_wait(const struct authority_client *client,
                      const struct memory_endpoint *endpoint);

/** The client is gone: its jobs go on without it. */
void client_leave_jobs(struct authority_client *client);

#endif
