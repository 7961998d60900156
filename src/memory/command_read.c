/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_READ: gates, then execution here if it is small and the VM's process cannot make it block, on the endpoint's
 * worker otherwise.  A small read that follows a long command of the same client waits behind it.
 */
#include <errno.h>
#include <stdlib.h>

#include "memory/answer.h"
#include "memory/buffer.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "memory/read.h"
#include "util/clock.h"
#include "util/deadline.h"
#include "util/refusal.h"

/* A read on its way through a worker. */
struct read_job {
    struct job job;
    struct read read;
    struct buffer *buffer;  /* referenced */
    struct account *account; /* referenced */
    struct charge octets;
};

static uint64_t audit_read(struct authority_client *client, const struct vmibus_frame *frame,
                           uint64_t received) {
    const struct vmibus_mem_read *command = &frame->mem_read;
    struct vmibus_audit_record record = {
        .len = command->len,
        .epoch = command->epoch,
        .cr3 = command->cr3,
        .address = command->gva,
    };

    return client_audit(client, frame, received, &record);
}

static void count(struct authority *authority, const struct vmibus_ack *ack) {
    if (ack->error != VMIBUS_ERROR_OK && ack->count == 0)
        return;
    authority->counters.reads++;
    authority->counters.bytes_read += ack->count;
}

/* --- gates ------------------------------------------------------------------------------------- */

static uint16_t check_shape(const struct vmibus_frame *frame, struct vmibus_ack *ack) {
    const struct vmibus_mem_read *command = &frame->mem_read;
    uint64_t last;

    if (command->flags & ~VMIBUS_MEMREAD_PHYSICAL)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS, command->flags);
    if (frame->header.fd_count)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS,
                             frame->header.fd_count);
    if ((command->flags & VMIBUS_MEMREAD_PHYSICAL) && command->cr3)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, command->cr3);
    if (command->len == 0 || command->len > VMIBUS_BUFFER_BOUND)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, command->len);
    if (__builtin_add_overflow(command->gva, command->len - 1, &last))
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS, command->gva);
    return 0;
}

/* Passes all gates, and prepares the read. */
static uint16_t prepare(struct authority_client *client, const struct vmibus_frame *frame,
                        uint64_t now, struct memory_endpoint **endpointp, struct buffer **bufferp,
                        struct read *read, struct vmibus_ack *ack) {
    const struct vmibus_mem_read *command = &frame->mem_read;
    const uint32_t capability = VMIBUS_CAP_MEM_READ;

    if (check_shape(frame, ack) ||
        gate_grant(client, frame, capability, capability, capability, endpointp, ack) ||
        gate_epoch(*endpointp, command->epoch, ack))
        return ack->error;
    ack->epoch = command->epoch;
    *read = (struct read){
        .memctx = (*endpointp)->current,
        .gva = command->gva,
        .len = command->len,
        .deadline = deadline_of(&frame->header),
    };
    *bufferp = buffer_find(client, command->buffer);
    if (*bufferp)
        read->target = buffer_octets(*bufferp, command->offset, command->len);
    if (!read->target)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER,
                             *bufferp ? command->offset : command->buffer);
    if (deadline_has_passed(&frame->header, now))
        return answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
    return gate_root(read->memctx, command->flags & VMIBUS_MEMREAD_PHYSICAL, command->cr3, command->gva, &read->root,
                     ack);
}

/* --- on a worker ------------------------------------------------------------------------------- */

static void job_execute(struct job *job) {
    struct read_job *read_job = container_of(job, struct read_job, job);

    read_execute(&read_job->read, &job->answer.ack);
}

static void read_job_free(struct read_job *read_job) {
    buffer_unref(read_job->buffer);
    charge_release(&read_job->octets);
    account_unref(read_job->account);
    memctx_unref(read_job->job.memctx);
    free(read_job);
}

static void job_done(struct job *job) {
    struct read_job *read_job = container_of(job, struct read_job, job);
    struct memory_endpoint *endpoint = job->endpoint;
    struct authority *authority = endpoint->authority;
    struct authority_client *client = job->client;
    struct vmibus_frame answer = job->answer;
    uint32_t flags = job->command_flags;

    audit_finish(authority->options.audit, job->audit_sequence, &answer.ack);
    count(authority, &answer.ack);
    if (read_job->read.end_epoch)
        memory_endpoint_end_epoch_of(endpoint, job->memctx, read_job->read.end_epoch);
    list_unlink(&job->client_link);
    read_job_free(read_job);
    if (client)
        client_answer(client, &answer, flags, NULL, NULL);
}

static void job_abandon(struct job *job) {
    struct read_job *read_job = container_of(job, struct read_job, job);

    charge_release(&read_job->octets);
    read_job->account = account_unref(read_job->account);
    buffer_abandon(read_job->buffer);
    memctx_abandon(job->memctx);
}

/* Hands a read over to the worker. On failure the answer says why. */
static uint16_t execute_there(struct authority_client *client, const struct vmibus_frame *frame,
                              struct memory_endpoint *endpoint, struct buffer *buffer,
                              const struct read *read, uint64_t sequence,
                              struct vmibus_frame *answer) {
    struct read_job *read_job;
    struct job *job;

    int r = memory_endpoint_need_worker(endpoint);

    if (r < 0 && r != -ENOMEM)
        return answer_refuse(&answer->ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
    read_job = r == 0 ? calloc(1, sizeof(*read_job)) : NULL;
    if (!read_job)
        return answer_refuse(&answer->ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
    r = charge_take(&read_job->octets, client->account, RESOURCE_BYTES, sizeof(*read_job));
    if (r) {
        free(read_job);
        return refusal_of_charge(&answer->ack, r, client->account, RESOURCE_BYTES);
    }
    read_job->account = account_ref(client->account);
    read_job->read = *read;
    read_job->buffer = buffer_ref(buffer);
    job = &read_job->job;
    job->execute = job_execute;
    job->done = job_done;
    job->abandon = job_abandon;
    job_begin(job, client, endpoint, read->memctx, frame->header.flags, sequence, answer);
    worker_queue(endpoint->worker, job);
    return 0;
}

/* --- the command ------------------------------------------------------------------------------- */

static void execute_here(struct memory_endpoint *endpoint, struct read *read,
                         struct vmibus_ack *ack) {
    read->loads = true;
    read_execute(read, ack);
    if (read->end_epoch)
        memory_endpoint_end_epoch_of(endpoint, read->memctx, read->end_epoch);
}

void command_read(struct authority_client *client, const struct vmibus_frame *frame,
                  uint64_t received) {
    struct authority *authority = client->authority;
    uint64_t sequence = audit_read(client, frame, received);
    struct memory_endpoint *endpoint = NULL;
    struct buffer *buffer = NULL;
    struct vmibus_frame answer;
    struct read read;

    answer_begin(&answer, frame, received);
    if (prepare(client, frame, received, &endpoint, &buffer, &read, &answer.ack) == 0) {
        if (read.len <= READ_SMALL && !memctx_may_block(read.memctx) && !client_must_wait(client, endpoint))
            execute_here(endpoint, &read, &answer.ack);
        else if (!execute_there(client, frame, endpoint, buffer, &read, sequence, &answer))
            return;
    }
    answer.ack.finished = clock_now();
    audit_finish(authority->options.audit, sequence, &answer.ack);
    count(authority, &answer.ack);
    client_answer(client, &answer, frame->header.flags, NULL, NULL);
}
