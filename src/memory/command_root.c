/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_ROOT: a sensor proposes a kernel root, or says that it finds none.
 *
 * What is read of the guest for it (the tables, the note, the canary of a root that is there already) is read first, and
 * what comes of it is concluded afterwards, on the loop's thread.  Reading happens here too, or where it
 * may block on the endpoint's worker.  The epoch may have ended meanwhile, and its endpoint gone: then nothing comes
 * of it.  A sensor that has gone is answered nothing, but what the tables have proven stands.
 */
#include <errno.h>
#include <stdlib.h>

#include "memory/answer.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "memory/root.h"
#include "util/clock.h"
#include "util/refusal.h"

/* What is to be read, and what was found. */
struct examination {
    struct memctx *memctx;          /* borrowed */
    struct vmibus_mem_root proposal;
    uint64_t now;
    bool loads;                     /* on the loop's thread */
    int result;                     /* of proving what is proposed */
    uint64_t value;                 /* see root_prove() */
    struct memctx_root root;
    struct canary canary;
    uint16_t reason;                /* to end the epoch for; NONE: there is none, or no root yet whose canary could tell */
};

/* On its way through a worker. */
struct root_job {
    struct job job;
    struct examination examination;
    struct account *account;        /* referenced */
    struct charge octets;
};

static void examine(struct examination *examination) {
    bool is_ready = memctx_is_ready(examination->memctx);

    if (examination->proposal.cr3)
        examination->result = root_prove(examination->memctx, &examination->proposal, examination->now, examination->loads,
                                         &examination->root, &examination->canary, &examination->value);
    if (is_ready)
        examination->reason = memory_endpoint_reason_to_end(examination->memctx, examination->loads);
}

/* --- what comes of it -------------------------------------------------------------------------- */

static uint16_t refuse(const struct examination *examination, struct vmibus_ack *ack) {
    switch (examination->result) {
    case ROOT_MALFORMED:
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, examination->value);
    case ROOT_UNPROVEN:
        return answer_refuse(ack, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_ROOT_UNPROVEN, examination->value);
    case -ENOMEM:
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
    default:
        return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-examination->result);
    }
}

static void note_pending(struct memory_endpoint *endpoint, uint16_t reason) {
    struct memctx *memctx = endpoint->current;

    if (memctx_is_ready(memctx) || memctx->pending_reason == reason)
        return;
    memctx->pending_reason = reason;
    memory_endpoint_publish(endpoint);
}

/* The guest was another one in between, whoever noticed: nothing found in the epoch holds any more. */
static uint16_t end_stale(struct memory_endpoint *endpoint, uint16_t reason, struct vmibus_ack *ack) {
    memory_endpoint_end_epoch(endpoint, reason);
    return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH, (enum vmibus_reason)reason, 0);
}

static void take_root(struct memory_endpoint *endpoint, const struct examination *examination) {
    struct memctx *memctx = endpoint->current;

    memctx->root = examination->root;
    memctx->canary = examination->canary;
    atomic_store_explicit(&memctx->ready, true, memory_order_release);
    memory_endpoint_publish(endpoint);
}

/* The epoch is the current one. Where a root is proven and its canary lives, the tables know better than the sensor. */
static uint16_t conclude(struct memory_endpoint *endpoint, const struct examination *examination, struct vmibus_ack *ack) {
    const struct vmibus_mem_root *proposal = &examination->proposal;
    bool is_ready = memctx_is_ready(endpoint->current);
    bool is_proven = proposal->cr3 && examination->result == 0;

    if (is_ready && is_proven && !root_is_same(&endpoint->current->root, &examination->root))
        return end_stale(endpoint, VMIBUS_REASON_RELOADED, ack);
    if (examination->reason)
        return end_stale(endpoint, examination->reason, ack);
    if (proposal->cr3 == 0)
        note_pending(endpoint, proposal->reason ? proposal->reason : VMIBUS_REASON_BOOTING);
    else if (examination->result == ROOT_UNPROVEN)
        note_pending(endpoint, VMIBUS_REASON_ROOT_UNPROVEN);
    if (examination->result)
        return refuse(examination, ack);
    if (is_proven && !is_ready)
        take_root(endpoint, examination);
    return 0;
}

/* --- on a worker ------------------------------------------------------------------------------- */

static void job_execute(struct job *job) {
    examine(&container_of(job, struct root_job, job)->examination);
}

/* As if it had been received by now. */
static void conclude_later(struct root_job *root_job) {
    struct job *job = &root_job->job;
    struct authority *authority = job->endpoint->authority;
    struct memory_endpoint *endpoint;

    if (gate_endpoint(authority, &job->answer, &endpoint, &job->answer.ack) ||
        gate_epoch(endpoint, root_job->examination.proposal.epoch, &job->answer.ack))
        return;
    conclude(endpoint, &root_job->examination, &job->answer.ack);
}

/* Publishing comes first: the client may be gone afterwards. */
static void job_done(struct job *job) {
    struct root_job *root_job = container_of(job, struct root_job, job);

    if (!job->answer.ack.error && !job->endpoint->authority->stopping)
        conclude_later(root_job);
    job->answer.ack.finished = clock_now();
    list_unlink(&job->client_link);
    if (job->client)
        client_answer(job->client, &job->answer, job->command_flags, NULL, NULL);
    charge_release(&root_job->octets);
    account_unref(root_job->account);
    memctx_unref(job->memctx);
    free(root_job);
}

static void job_abandon(struct job *job) {
    struct root_job *root_job = container_of(job, struct root_job, job);

    charge_release(&root_job->octets);
    root_job->account = account_unref(root_job->account);
    memctx_abandon(job->memctx);
}

/* The answer says why, where there is none. */
static struct root_job *root_job_new(struct authority_client *client, const struct examination *examination,
                                     struct vmibus_ack *ack) {
    struct root_job *root_job = calloc(1, sizeof(*root_job));
    int r;

    if (!root_job) {
        answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
        return NULL;
    }
    r = charge_take(&root_job->octets, client->account, RESOURCE_BYTES, sizeof(*root_job));
    if (r) {
        refusal_of_charge(ack, r, client->account, RESOURCE_BYTES);
        free(root_job);
        return NULL;
    }
    root_job->account = account_ref(client->account);
    root_job->examination = *examination;
    return root_job;
}

/* Hands it over to the worker. On failure the answer says why. */
static uint16_t examine_there(struct authority_client *client, struct memory_endpoint *endpoint,
                              const struct examination *examination, uint32_t flags, struct vmibus_frame *answer) {
    struct root_job *root_job;
    struct job *job;
    int r = memory_endpoint_need_worker(endpoint);

    if (r < 0)
        return answer_refuse(&answer->ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
    root_job = root_job_new(client, examination, &answer->ack);
    if (!root_job)
        return answer->ack.error;
    job = &root_job->job;
    job->execute = job_execute;
    job->done = job_done;
    job->abandon = job_abandon;
    job_begin(job, client, endpoint, examination->memctx, flags, 0, answer);
    worker_queue(endpoint->worker, job);
    return 0;
}

/* --- the command ------------------------------------------------------------------------------- */

/* What needs nothing read. */
static bool conclude_unread(struct memory_endpoint *endpoint, const struct vmibus_mem_root *proposal) {
    if (proposal->cr3)
        return false;
    /* There is not even a layout: why not is all there is to publish. */
    if (!endpoint->current && proposal->epoch == 0 && proposal->reason) {
        memory_endpoint_publish_none(endpoint, proposal->reason);
        return true;
    }
    if (!endpoint->current || endpoint->current->epoch != proposal->epoch || proposal->reason != VMIBUS_REASON_CONFIDENTIAL)
        return false;
    memory_endpoint_end_epoch(endpoint, VMIBUS_REASON_CONFIDENTIAL);
    memory_endpoint_publish_none(endpoint, VMIBUS_REASON_CONFIDENTIAL);
    return true;
}

bool command_root(struct authority_client *client, struct memory_endpoint *endpoint, const struct vmibus_mem_root *proposal,
                  uint32_t flags, struct vmibus_frame *answer) {
    struct examination examination = {
        .proposal = *proposal, .now = answer->ack.received, .loads = true, .memctx = endpoint->current};
    struct vmibus_ack *ack = &answer->ack;

    if (endpoint->current && proposal->epoch == endpoint->current->epoch)
        ack->epoch = proposal->epoch;
    if (conclude_unread(endpoint, proposal) || gate_epoch(endpoint, proposal->epoch, ack))
        return false;
    if (memctx_may_block(examination.memctx) &&
        (proposal->cr3 || memctx_is_ready(examination.memctx) || client_must_wait(client, endpoint))) {
        examination.loads = false;
        return examine_there(client, endpoint, &examination, flags, answer) == 0;
    }
    examine(&examination);
    conclude(endpoint, &examination, ack);
    return false;
}
