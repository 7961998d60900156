/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CMD_MEMWRITE: gates, then execution here if it is small and the VM's process cannot make it block, on the endpoint's
 * worker otherwise.  A small write that follows a long one of the same client waits behind it.  A write with QUIESCE waits until
 * the guest stands still (quiesce.h), and may be overtaken meanwhile by one without.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/answer.h"
#include "memory/buffer.h"
#include "memory/command.h"
#include "memory/copier.h"
#include "memory/gate.h"
#include "memory/quiesce.h"
#include "memory/write.h"
#include "util/clock.h"
#include "util/refusal.h"

/* A small extent lies in two pages at most. */
#define SMALL_PIECES (2 * WRITE_SMALL_EXTENTS)

/* A write on its way through a worker. */
struct write_job {
    struct job job;
    struct write write;
    struct fence *fence;            /* entered */
    struct account *account;        /* referenced */
    struct charge octets;
    struct buffer *buffer;          /* referenced; NULL: the source is in memory */
    struct write_allowance *allowance; /* referenced; may be NULL */
    uint64_t metered;               /* see gate_passage */
    bool has_table;
    bool quiesced;                  /* was parked */
    void *memory;                   /* pieces, spans, results, extents, source and copy */
};

static uint64_t audit_write(const struct authority_client *client,
                            const struct vmibus_frame *frame, uint64_t received) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    struct vmibus_audit_record record = {
        .len = command->len,
        .token = command->token,
        .epoch = command->epoch,
        .cr3 = command->cr3,
        .address = command->gva,
    };

    return client_audit(client, frame, received, &record);
}

/* What was written, for statistics; what was not, for the user's meter. */
static void count(struct authority *authority, uid_t uid, uint64_t metered, const struct vmibus_ack *ack) {
    if (metered && ack->count == 0)
        meter_give_back(&authority->meters, uid, metered);
    if (ack->error != VMIBUS_ERROR_OK || ack->count == 0)
        return;
    authority->counters.writes++;
    authority->counters.bytes_written += ack->count;
}

static void prepare(struct write *write, const struct gate_passage *passage,
                    const struct vmibus_cmd_memwrite *command) {
    struct memory_endpoint *endpoint = passage->endpoint;
    const struct write_shape *shape = &passage->shape;

    *write = (struct write){
        .memctx = endpoint->current,
        .fence = passage->fence,
        .busy = &endpoint->busy,
        .still = command->flags & VMIBUS_MEMWRITE_QUIESCE ? &endpoint->quiesce.still : NULL,
        .root = passage->root,
        .allowance = passage->allowance,
        .deadline = passage->deadline,
        .n_extents = shape->n_extents,
        .len = shape->len,
        .dry_run = command->flags & VMIBUS_MEMWRITE_DRY_RUN,
        .allow_read_only = command->flags & VMIBUS_MEMWRITE_READ_ONLY_PAGE,
        .expect_gpa = command->flags & VMIBUS_MEMWRITE_EXPECT_GPA,
        .expects = shape->expects,
        .buffer = passage->buffer,
        .expect_offset = shape->offset,
        .expect = passage->octets,
        .source = passage->octets + (shape->expects ? shape->len : 0),
    };
}

static size_t count_pieces(const struct write *write) {
    size_t n = 0;

    for (uint32_t i = 0; i < write->n_extents; i++)
        n += write_pieces(write->extents[i].gva, write->extents[i].len);
    return n;
}

/* Gives the answer, with results if the command has a table that was looked at. */
static void answer_with(struct authority_client *client, struct vmibus_frame *answer, uint32_t flags,
                        const struct write *write, bool has_table) {
    if (has_table)
        answer->header.tail_length = (uint32_t)(write->n_extents * sizeof(*write->results));
    client_answer(client, answer, flags, has_table ? write->results : NULL, NULL);
}

/* --- here -------------------------------------------------------------------------------------- */

static bool is_small(const struct authority_client *client, const struct gate_passage *passage,
                     uint32_t flags) {
    return passage->shape.len <= WRITE_SMALL && passage->shape.n_extents <= WRITE_SMALL_EXTENTS &&
           !(flags & VMIBUS_MEMWRITE_QUIESCE) && !(passage->allowance && passage->allowance->protects) &&
           !memctx_may_block(passage->endpoint->current) && !client->authority->options.small_writes_on_worker &&
           !client_must_wait(client, passage->endpoint);
}

static void execute_here(struct authority_client *client, const struct vmibus_frame *frame,
                         const struct gate_passage *passage, uint64_t sequence,
                         struct vmibus_frame *answer) {
    struct vmibus_extent_result results[WRITE_SMALL_EXTENTS];
    struct vmibus_write_extent extents[WRITE_SMALL_EXTENTS];
    struct authority *authority = client->authority;
    struct write_piece pieces[SMALL_PIECES];
    uint8_t copy[WRITE_SMALL];
    struct write write;

    prepare(&write, passage, &frame->cmd_memwrite);
    shape_get_extents(&passage->shape, extents);
    write.loads = true;
    write.extents = extents;
    write.results = results;
    write.pieces = pieces;
    if (write_needs_copy(count_pieces(&write), write.expects, write.buffer))
        write.copy = copy;
    write_execute(&write, &answer->ack);
    answer->ack.finished = clock_now();
    audit_finish(authority->options.audit, sequence, &answer->ack);
    count(authority, client->principal.uid, passage->metered, &answer->ack);
    if (write.end_epoch)
        memory_endpoint_end_epoch_of(passage->endpoint, write.memctx, write.end_epoch);
    answer_with(client, answer, frame->header.flags, &write, passage->shape.table);
}

/* --- on a worker ------------------------------------------------------------------------------- */

static void write_job_free(struct write_job *job) {
    write_allowance_unref(job->allowance);
    buffer_unref(job->buffer);
    charge_release(&job->octets);
    account_unref(job->account);
    memctx_unref(job->job.memctx);
    free(job->memory);
    free(job);
}

/* Where the parts of a job's memory are. Those of greatest alignment come first. */
struct job_parts {
    size_t n_pieces;
    size_t spans, results, extents, source, copy; /* offsets */
    size_t octets;                          /* in all */
};

/* What a copier has room for needs none here. */
static bool brings_copy(const struct write *write, size_t n_pieces) {
    return write_needs_copy(n_pieces, write->expects, write->buffer) &&
           (write->len < COPIER_WORTH || write->len > COPIER_ROOM);
}

static bool protects(const struct write *write) {
    return write->allowance && write->allowance->protects;
}

static struct job_parts lay_out(const struct write *write, const struct write_shape *shape, size_t n_pieces) {
    struct job_parts parts = {.n_pieces = n_pieces};

    parts.spans = n_pieces * sizeof(struct write_piece);
    parts.results = parts.spans + (protects(write) ? n_pieces * sizeof(struct protect_span) : 0);
    parts.extents = parts.results + shape->n_extents * sizeof(struct vmibus_extent_result);
    parts.source = parts.extents + shape->n_extents * sizeof(struct vmibus_write_extent);
    parts.copy = parts.source + (write->buffer ? 0 : (size_t)shape_octets(shape));
    parts.octets = parts.copy + (brings_copy(write, n_pieces) ? write->len : 0);
    return parts;
}

static size_t count_shape_pieces(const struct write_shape *shape) {
    size_t n = 0;

    for (uint32_t i = 0; i < shape->n_extents; i++) {
        struct vmibus_write_extent extent = shape_get_extent(shape, i);

        n += write_pieces(extent.gva, extent.len);
    }
    return n;
}

static void fill(struct write_job *job, const struct gate_passage *passage, const struct job_parts *parts) {
    const struct write_shape *shape = &passage->shape;
    struct write *write = &job->write;
    uint8_t *memory = job->memory;
    struct vmibus_write_extent *extents = (void *)(memory + parts->extents);

    shape_get_extents(shape, extents);
    write->extents = extents;
    write->results = memset(memory + parts->results, 0, shape->n_extents * sizeof(*write->results));
    write->pieces = job->memory;
    write->spans = (void *)(memory + parts->spans);
    if (parts->octets > parts->copy)
        write->copy = memory + parts->copy;
    if (write->buffer)
        return;
    write->expect = memcpy(memory + parts->source, passage->octets, (size_t)shape_octets(shape));
    write->source = write->expect + (shape->expects ? shape->len : 0);
}

/* The answer says why, where there is none. */
static struct write_job *write_job_new(struct authority_client *client, const struct gate_passage *passage,
                                       const struct vmibus_cmd_memwrite *command, struct vmibus_ack *ack) {
    struct write_job *job = calloc(1, sizeof(*job));
    struct job_parts parts;
    int r = -ENOMEM;

    if (job) {
        prepare(&job->write, passage, command);
        parts = lay_out(&job->write, &passage->shape, count_shape_pieces(&passage->shape));
        r = charge_take(&job->octets, client->account, RESOURCE_BYTES, parts.octets);
    }
    if (r == 0) {
        job->memory = malloc(parts.octets);
        r = job->memory ? 0 : -ENOMEM;
    }
    if (r) {
        if (job)
            charge_release(&job->octets);
        free(job);
        if (r > 0)
            refusal_of_charge(ack, r, client->account, RESOURCE_BYTES);
        else
            answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
        return NULL;
    }
    job->account = account_ref(client->account);
    job->buffer = passage->buffer ? buffer_ref(passage->buffer) : NULL;
    job->fence = passage->fence;
    job->allowance = write_allowance_ref(passage->allowance);
    job->metered = passage->metered;
    job->has_table = passage->shape.table;
    job->quiesced = command->flags & VMIBUS_MEMWRITE_QUIESCE;
    fill(job, passage, &parts);
    return job;
}

static uint16_t find_copier(struct write_job *job) {
    struct write *write = &job->write;
    int r;

    if (write->len < COPIER_WORTH || !write_needs_copy(count_pieces(write), write->expects, write->buffer))
        return 0;
    r = worker_get_copier(job->job.worker, &write->copier);
    if (r < 0)
        return write_refuse_errno(write, &job->job.answer.ack, r);
    if (!write->copy)
        write->copy = copier_room(write->copier);
    return 0;
}

static void job_execute(struct job *job) {
    struct write_job *write_job = container_of(job, struct write_job, job);

    if (find_copier(write_job) == 0)
        write_execute(&write_job->write, &job->answer.ack);
}

static void job_done(struct job *job) {
    struct write_job *write_job = container_of(job, struct write_job, job);
    struct memory_endpoint *endpoint = job->endpoint;
    struct authority *authority = endpoint->authority;
    struct authority_client *client = job->client;
    struct write *write = &write_job->write;
    struct fence *fence = write_job->fence;

    audit_finish(authority->options.audit, job->audit_sequence, &job->answer.ack);
    count(authority, write_job->account->uid, write_job->metered, &job->answer.ack);
    if (write->end_epoch)
        memory_endpoint_end_epoch_of(endpoint, job->memctx, write->end_epoch);
    if (write_job->quiesced)
        quiesce_leave(endpoint, job->memctx->generation);
    list_unlink(&job->client_link);
    if (job->answer.ack.error)
        write_refuse_results(write, &job->answer.ack); /* it may not have come to execution */
    if (client)
        answer_with(client, &job->answer, job->command_flags, write, write_job->has_table);
    write_job_free(write_job);
    fence_leave(fence, memory_endpoint_drained, endpoint);
}

/* The audit log keeps it as one that was begun: nobody can tell more of it. */
static void job_abandon(struct job *job) {
    struct write_job *write_job = container_of(job, struct write_job, job);

    charge_release(&write_job->octets);
    write_job->account = account_unref(write_job->account);
    if (write_job->buffer)
        buffer_abandon(write_job->buffer);
    fence_abandon(&job->endpoint->fences, write_job->fence);
    memctx_abandon(job->memctx);
}

/* Hands a write over to the worker, or has it wait for the guest. On failure the answer says why. */
static uint16_t execute_there(struct authority_client *client, const struct vmibus_frame *frame,
                              const struct gate_passage *passage, uint64_t sequence,
                              struct vmibus_frame *answer) {
    struct memory_endpoint *endpoint = passage->endpoint;
    struct write_job *write_job;
    struct job *job;
    int r = memory_endpoint_need_worker(endpoint);

    if (r < 0)
        return answer_refuse(&answer->ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
    write_job = write_job_new(client, passage, &frame->cmd_memwrite, &answer->ack);
    if (!write_job)
        return answer->ack.error;
    job = &write_job->job;
    job->execute = job_execute;
    job->done = job_done;
    job->abandon = job_abandon;
    job_begin(job, client, endpoint, endpoint->current, frame->header.flags, sequence, answer);
    fence_enter(write_job->fence);
    if (write_job->quiesced)
        quiesce_park(endpoint, job);
    else
        worker_queue(endpoint->worker, job);
    return 0;
}

/* --- the command ------------------------------------------------------------------------------- */

void command_write(struct authority_client *client, const struct vmibus_frame *frame,
                   const void *tail, uint64_t received) {
    struct authority *authority = client->authority;
    struct gate_passage passage = {};
    struct vmibus_frame answer;
    uint64_t sequence;

    answer_begin(&answer, frame, received);
    sequence = audit_write(client, frame, received);
    if (gate_write(client, frame, tail, received, &passage, &answer.ack) == 0) {
        if (is_small(client, &passage, frame->cmd_memwrite.flags)) {
            execute_here(client, frame, &passage, sequence, &answer);
            return;
        }
        if (execute_there(client, frame, &passage, sequence, &answer) == 0)
            return;
    }
    answer.ack.finished = clock_now();
    audit_finish(authority->options.audit, sequence, &answer.ack);
    count(authority, client->principal.uid, passage.metered, &answer.ack);
    client_answer(client, &answer, frame->header.flags, NULL, NULL);
}
