/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CMD_MEMWRITE: gates, then execution here if it is small and the VM's process cannot make it block, on the endpoint's
 * worker otherwise.  A small write that follows a long one of the same client waits behind it.  A write with QUIESCE waits until
 * the guest stands still (quiesce.h), and may be overtaken meanwhile by one without.  Where intents must reach the disk first,
 * each is a job that waits for that before anything else.
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
#include "memory/write_digest.h"
#include "util/clock.h"
#include "util/refusal.h"
#include "util/tails.h"

/* A small extent lies in two pages at most. */
#define SMALL_PIECES (2 * WRITE_SMALL_EXTENTS)

/* Of fewer octets a copy costs less than that there is one tail less to keep for others. */
#define WORTH_KEEPING 65536u

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
    bool quiesced;                  /* was parked for the guest */
    struct audit_waiter waiter;     /* for its intent to be on the disk */
    struct write_digests digests;
    struct kept_tail tail;          /* that expect and source are in; zeros: they are in memory, or in a buffer */
    void *memory;                   /* pieces, spans, results, extents, source and copy */
};

static uint64_t audit_write(struct authority_client *client,
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
    const struct audit *audit = endpoint->authority->options.audit;
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
        .digest = audit_wants_digest(audit, shape->len) ? audit->ops->digest : NULL,
    };
}

static size_t count_pieces(const struct write *write) {
    size_t n = 0;

    for (uint32_t i = 0; i < write->n_extents; i++)
        n += write_pieces(write->extents[i].gva, write->extents[i].len);
    return n;
}

/* Room for a copy of what was there is needed. */
static bool needs_copy(const struct write *write, size_t n_pieces) {
    return write->digest || write_needs_copy(n_pieces, write->expects, write->buffer);
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
           !(client->authority->options.audit->strict && !(flags & VMIBUS_MEMWRITE_DRY_RUN)) &&
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
    uint8_t copy[WRITE_SMALL], source[WRITE_SMALL];
    struct write_digests digests;
    struct write write;

    prepare(&write, passage, &frame->cmd_memwrite);
    shape_get_extents(&passage->shape, extents);
    write.loads = true;
    write.extents = extents;
    write.results = results;
    write.pieces = pieces;
    write.own_source = source;
    if (needs_copy(&write, count_pieces(&write)))
        write.copy = copy;
    write_execute(&write, &answer->ack);
    answer->ack.finished = clock_now();
    write_digests_take(&digests, &write, &answer->ack);
    write_digests_note(&digests, authority->options.audit, sequence, &write, &answer->ack);
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
    kept_tail_give(&job->tail);
    free(job->memory);
    free(job);
}

/* Where the parts of a job's memory are. Those of greatest alignment come first. */
struct job_parts {
    size_t n_pieces;
    size_t spans, results, extents, source, own_source, copy; /* offsets */
    size_t octets;                          /* in all */
};

/* What a copier has room for needs none here. */
static bool brings_copy(const struct write *write, size_t n_pieces) {
    return write->digest || (write_needs_copy(n_pieces, write->expects, write->buffer) &&
           (write->len < COPIER_WORTH || write->len > COPIER_ROOM));
}

static bool protects(const struct write *write) {
    return write->allowance && write->allowance->protects;
}

static struct job_parts lay_out(const struct write *write, const struct write_shape *shape, size_t n_pieces, bool kept) {
    struct job_parts parts = {.n_pieces = n_pieces};

    parts.spans = n_pieces * sizeof(struct write_piece);
    parts.results = parts.spans + (protects(write) ? n_pieces * sizeof(struct protect_span) : 0);
    parts.extents = parts.results + shape->n_extents * sizeof(struct vmibus_extent_result);
    parts.source = parts.extents + shape->n_extents * sizeof(struct vmibus_write_extent);
    parts.own_source = parts.source + (write->buffer || kept ? 0 : (size_t)shape_octets(shape));
    parts.copy = parts.own_source + (write->buffer && write->digest ? write->len : 0);
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
    write->own_source = memory + parts->own_source;
    if (write->buffer || job->tail.octets)
        return; /* they stay where prepare() found them */
    write->expect = memcpy(memory + parts->source, passage->octets, (size_t)shape_octets(shape));
    write->source = write->expect + (shape->expects ? shape->len : 0);
}

/* Keeps the tail that the octets came in, where that can be, so that they need not be copied. */
static void keep_tail(struct write_job *job, const struct gate_passage *passage) {
    uint64_t octets = shape_octets(&passage->shape);

    if (!job->write.buffer && octets >= WORTH_KEEPING)
        (void)kept_tail_take(&job->tail, passage->octets);
}

/* Takes memory for a job; octets in a kept tail are paid for as if they were copied. As charge_take(), or -ENOMEM. */
static int take_memory(struct write_job *job, const struct authority_client *client, const struct write_shape *shape,
                       struct job_parts *parts) {
    uint64_t kept;
    int r;

    *parts = lay_out(&job->write, shape, count_shape_pieces(shape), job->tail.octets);
    kept = job->tail.octets ? shape_octets(shape) : 0;
    r = charge_take(&job->octets, client->account, RESOURCE_BYTES, parts->octets + kept);
    if (r)
        return r;
    job->memory = malloc(parts->octets);
    return job->memory ? 0 : -ENOMEM;
}

/* The answer says why, where there is none. */
static struct write_job *write_job_new(struct authority_client *client, const struct gate_passage *passage,
                                       const struct vmibus_cmd_memwrite *command, struct vmibus_ack *ack) {
    struct write_job *job = calloc(1, sizeof(*job));
    struct job_parts parts;
    int r = -ENOMEM;

    if (job) {
        prepare(&job->write, passage, command);
        keep_tail(job, passage);
        r = take_memory(job, client, &passage->shape, &parts);
    }
    if (r) {
        if (job) {
            charge_release(&job->octets);
            kept_tail_give(&job->tail);
        }
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

    if (write->digest || write->len < COPIER_WORTH || !write_needs_copy(count_pieces(write), write->expects, write->buffer))
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
    write_digests_take(&write_job->digests, &write_job->write, &job->answer.ack);
}

static void job_done(struct job *job) {
    struct write_job *write_job = container_of(job, struct write_job, job);
    struct memory_endpoint *endpoint = job->endpoint;
    struct authority *authority = endpoint->authority;
    struct authority_client *client = job->client;
    struct write *write = &write_job->write;
    struct fence *fence = write_job->fence;

    write_digests_note(&write_job->digests, authority->options.audit, job->audit_sequence, write, &job->answer.ack);
    audit_finish(authority->options.audit, job->audit_sequence, &job->answer.ack);
    count(authority, write_job->account->uid, write_job->metered, &job->answer.ack);
    if (write->end_epoch)
        memory_endpoint_end_epoch_of(endpoint, job->memctx, write->end_epoch);
    if (write_job->quiesced)
        quiesce_leave(endpoint, job->memctx->generation);
    list_unlink(&job->client_link);
    job->memctx->writes--;
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
    kept_tail_abandon(&write_job->tail);
    fence_abandon(&job->endpoint->fences, write_job->fence);
    memctx_abandon(job->memctx);
}

/* To the worker, perhaps by way of the guest's standing still. */
static void send_there(struct write_job *write_job) {
    struct memory_endpoint *endpoint = write_job->job.endpoint;

    if (write_job->quiesced)
        quiesce_park(endpoint, &write_job->job);
    else
        worker_queue(endpoint->worker, &write_job->job);
}

/* Its intent is on the disk, or policy lets it go on without, or it must not be executed. Endpoint and worker may have gone. */
static void write_recorded(struct audit_waiter *waiter, int error) {
    struct write_job *write_job = container_of(waiter, struct write_job, waiter);
    struct job *job = &write_job->job;
    struct memory_endpoint *endpoint = job->endpoint;
    struct vmibus_ack *ack = &job->answer.ack;
    int r;

    if (error)
        audit_refuse(ack, error);
    else if (!endpoint->open || endpoint->generation != job->memctx->generation)
        answer_refuse(ack, VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN, 0);
    else if ((r = memory_endpoint_need_worker(endpoint)) < 0)
        answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
    if (!ack->error) {
        send_there(write_job);
        return;
    }
    write_job->quiesced = false; /* it never was */
    ack->finished = clock_now();
    job->done(job);
}

/* Hands a write over to the worker, or has it wait for its record or for the guest. On failure the answer says why. */
static uint16_t execute_there(struct authority_client *client, const struct vmibus_frame *frame,
                              const struct gate_passage *passage, uint64_t sequence,
                              struct vmibus_frame *answer) {
    struct memory_endpoint *endpoint = passage->endpoint;
    enum audit_answer recorded = AUDIT_GO_ON;
    struct write_job *write_job;
    struct job *job;
    int r = memory_endpoint_need_worker(endpoint);

    if (r < 0)
        return answer_refuse(&answer->ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
    write_job = write_job_new(client, passage, &frame->cmd_memwrite, &answer->ack);
    if (!write_job)
        return answer->ack.error;
    write_job->waiter.recorded = write_recorded;
    write_job->waiter.deadline = passage->deadline;
    if (!write_job->write.dry_run)
        recorded = audit_require(client->authority->options.audit, sequence, &write_job->waiter, &answer->ack);
    if (recorded == AUDIT_REFUSED) {
        write_job_free(write_job);
        return answer->ack.error;
    }
    job = &write_job->job;
    job->execute = job_execute;
    job->done = job_done;
    job->abandon = job_abandon;
    job_begin(job, client, endpoint, endpoint->current, frame->header.flags, sequence, answer);
    fence_enter(write_job->fence);
    job->memctx->writes++;
    if (recorded == AUDIT_GO_ON)
        send_there(write_job);
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
