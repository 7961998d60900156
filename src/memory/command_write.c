/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CMD_MEMWRITE: gates, then execution here if it is small, on the endpoint's worker otherwise.  A small
 * write that follows a long one of the same client waits behind it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/answer.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "util/clock.h"

/* A small write lies in two pages at most. */
#define SMALL_PIECES 2u

static uint64_t audit_write(const struct authority_client *client,
                            const struct vmibus_frame *frame, uint64_t received) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    const struct vmibus_audit_record record = {
        .received = received,
        .generation = frame->header.generation,
        .slot = frame->header.slot,
        .uid = client->principal.uid,
        .pid = (uint32_t)client->principal.pid,
        .kind = VMIBUS_KIND_CMD_MEMWRITE,
        .len = command->len,
        .token = command->token,
        .epoch = command->epoch,
        .cr3 = command->cr3,
        .address = command->gva,
        .correlation = frame->header.correlation,
    };

    return audit_begin(client->authority->options.audit, &record);
}

static void count(struct authority *authority, const struct vmibus_ack *ack) {
    if (ack->error != VMIBUS_ERROR_OK || ack->count == 0)
        return;
    authority->counters.writes++;
    authority->counters.bytes_written += ack->count;
}

static void prepare(struct write *write, const struct gate_passage *passage,
                    const struct vmibus_cmd_memwrite *command) {
    *write = (struct write){
        .memctx = passage->endpoint->current,
        .fence = passage->fence,
        .busy = &passage->endpoint->busy,
        .root = passage->root,
        .gva = command->gva,
        .deadline = passage->deadline,
        .len = command->len,
        .dry_run = command->flags & VMIBUS_MEMWRITE_DRY_RUN,
        .allow_read_only = command->flags & VMIBUS_MEMWRITE_READ_ONLY_PAGE,
        .expect = passage->expect,
        .source = passage->source,
    };
}

/* --- here -------------------------------------------------------------------------------------- */

static void execute_here(const struct gate_passage *passage,
                         const struct vmibus_cmd_memwrite *command, struct vmibus_ack *ack) {
    struct write_piece pieces[SMALL_PIECES];
    uint8_t copy[WRITE_SMALL];
    struct write write;

    prepare(&write, passage, command);
    write.loads = true;
    write.pieces = pieces;
    write.copy = write_needs_copy(write.gva, write.len, write.expect) ? copy : NULL;
    write_execute(&write, ack);
    if (write.end_epoch)
        memory_endpoint_end_epoch_of(passage->endpoint, write.memctx, write.end_epoch);
}

/* --- on a worker ------------------------------------------------------------------------------- */

static void job_free(struct job *job) {
    charge_release(&job->octets);
    account_unref(job->account);
    memctx_unref(job->memctx);
    free(job->memory);
    free(job);
}

/* One block for source, copy and pieces; aligned as the pieces need it because they come first. */
static int job_new(struct job **jobp, struct authority_client *client,
                   const struct gate_passage *passage, const struct vmibus_cmd_memwrite *command) {
    size_t pieces = write_pieces(command->gva, command->len) * sizeof(struct write_piece);
    size_t source = (size_t)command->len << !!passage->expect;
    bool copies = write_needs_copy(command->gva, command->len, passage->expect);
    size_t octets = pieces + source + (copies ? command->len : 0);
    struct job *job = calloc(1, sizeof(*job));
    uint8_t *memory;
    int r;

    if (!job)
        return -ENOMEM;
    list_init(&job->link);
    list_init(&job->client_link);
    r = charge_take(&job->octets, client->account, RESOURCE_BYTES, octets);
    if (!r) {
        job->memory = malloc(octets);
        r = job->memory ? 0 : -ENOMEM;
    }
    if (r) {
        charge_release(&job->octets);
        free(job);
        return r;
    }
    job->account = account_ref(client->account);
    job->memctx = memctx_ref(passage->endpoint->current);
    memory = job->memory;
    prepare(&job->write, passage, command);
    job->write.pieces = job->memory;
    memcpy(memory + pieces, passage->expect ? passage->expect : passage->source, source);
    job->write.expect = passage->expect ? memory + pieces : NULL;
    job->write.source = memory + pieces + (source - command->len);
    job->write.copy = copies ? memory + pieces + source : NULL;
    *jobp = job;
    return 0;
}

static uint16_t refuse_job(const struct authority_client *client, int r, struct vmibus_ack *ack) {
    const struct account *account = client->account;

    if (r == CHARGE_QUOTA)
        return answer_refuse(ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_BYTES,
                             account->limit[RESOURCE_BYTES]);
    if (r == CHARGE_PRESSURE)
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES,
                             account->ledger->limit[RESOURCE_BYTES]);
    if (r == -ENOMEM)
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
    return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
}

/* Hands a write over to the worker. On failure the answer says why. */
static uint16_t execute_there(struct authority_client *client, const struct vmibus_frame *frame,
                              const struct gate_passage *passage, uint64_t sequence,
                              const struct vmibus_frame *answer, struct vmibus_ack *ack) {
    struct memory_endpoint *endpoint = passage->endpoint;
    struct job *job;
    int r = 0;

    if (!endpoint->worker)
        r = worker_new(&endpoint->worker, &client->authority->completions);
    if (!r)
        r = job_new(&job, client, passage, &frame->cmd_memwrite);
    if (r)
        return refuse_job(client, r, ack);
    job->endpoint = endpoint;
    job->client = client;
    job->fence = passage->fence;
    job->audit_sequence = sequence;
    job->command_flags = frame->header.flags;
    job->answer = *answer;
    list_append(&client->jobs, &job->client_link);
    fence_enter(job->fence);
    worker_queue(endpoint->worker, job);
    return 0;
}

void command_write_done(struct job *job) {
    struct memory_endpoint *endpoint = job->endpoint;
    struct authority *authority = endpoint->authority;
    struct authority_client *client = job->client;
    struct vmibus_frame answer = job->answer;
    uint32_t flags = job->command_flags;
    struct fence *fence = job->fence;

    audit_finish(authority->options.audit, job->audit_sequence, &answer.ack);
    count(authority, &answer.ack);
    if (job->write.end_epoch)
        memory_endpoint_end_epoch_of(endpoint, job->memctx, job->write.end_epoch);
    list_unlink(&job->client_link);
    job_free(job);
    if (!endpoint->open && !authority->stopping)
        endpoint->worker = worker_free_if_idle(endpoint->worker);
    if (client)
        client_answer(client, &answer, flags, NULL, NULL);
    fence_leave(fence, memory_endpoint_drained, endpoint);
}

/* --- the command ------------------------------------------------------------------------------- */

/* Whether a job of the same client on the same endpoint is under way, which this one must not overtake. */
static bool must_wait(const struct authority_client *client,
                      const struct memory_endpoint *endpoint) {
    const struct job *job;

    list_for_each(job, &client->jobs, client_link)
        if (job->endpoint == endpoint)
            return true;
    return false;
}

void command_write(struct authority_client *client, const struct vmibus_frame *frame,
                   const void *tail, uint64_t received) {
    struct authority *authority = client->authority;
    uint64_t sequence = audit_write(client, frame, received);
    struct gate_passage passage;
    struct vmibus_frame answer;

    answer_begin(&answer, frame, received);
    if (gate_write(client, frame, tail, received, &passage, &answer.ack) == 0) {
        if (frame->cmd_memwrite.len <= WRITE_SMALL && !must_wait(client, passage.endpoint))
            execute_here(&passage, &frame->cmd_memwrite, &answer.ack);
        else if (!execute_there(client, frame, &passage, sequence, &answer, &answer.ack))
            return;
    }
    answer.ack.finished = clock_now();
    audit_finish(authority->options.audit, sequence, &answer.ack);
    count(authority, &answer.ack);
    client_answer(client, &answer, frame->header.flags, NULL, NULL);
}
