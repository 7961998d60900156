/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What sensors propose: layouts, roots (command_root.c), ends of epochs, and that memory is being copied elsewhere.
 * Nothing of it is believed that can be checked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/answer.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "memory/layout.h"
#include "util/clock.h"

static uint16_t refuse_errno(struct vmibus_ack *ack, int r) {
    if (r == -ENOMEM)
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
    return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
}

/* --- MEM_LAYOUT -------------------------------------------------------------------------------- */

/*
 * Takes over a context that was proven. The same one again keeps its epoch, so that a sensor which
 * looks twice ends nothing.
 */
static uint16_t adopt(struct authority_client *client, struct memory_endpoint *endpoint,
                      struct memctx *memctx, struct vmibus_ack *ack) {
    struct memctx *old = endpoint->current;
    int r;

    if (old && memctx_is_same_layout(old, memctx) && memctx_is_same_backing(old, memctx)) {
        memctx_unref(memctx);
        old->retiring.provider = client;
        ack->epoch = old->epoch;
        return 0;
    }
    memctx->pending_reason = VMIBUS_REASON_BOOTING;
    memctx->retiring.provider = client;
    r = memory_endpoint_begin_epoch(endpoint, memctx);
    if (r < 0)
        return refuse_errno(ack, r);
    ack->epoch = memctx->epoch;
    memory_endpoint_publish(endpoint);
    return 0;
}

static uint16_t refuse_layout(struct memory_endpoint *endpoint, int r, struct vmibus_ack *ack) {
    if (r < 0)
        return refuse_errno(ack, r);
    /* What the sensor says now does not hold, so what it said before need not hold any more. */
    if (ack->reason == VMIBUS_REASON_LAYOUT_UNPROVEN || ack->reason == VMIBUS_REASON_EXIT) {
        memory_endpoint_end_epoch(endpoint, ack->reason);
        memory_endpoint_publish_none(endpoint, ack->reason);
    }
    return ack->error;
}

/* Whether the client may speak of a process: of this very one only whoever is in it. */
static bool may_name(const struct authority_client *client, uint32_t pid) {
    return pid != (uint32_t)getpid() || client->principal.pid == 0;
}

static uint16_t prove_layout(struct authority_client *client, struct memory_endpoint *endpoint, const struct vmibus_frame *frame,
                             const struct vmibus_layout_range *ranges, const int *fds, struct vmibus_ack *ack) {
    const struct vmibus_mem_layout *body = &frame->mem_layout;
    const struct layout_proposal proposal = {
        .process = {.pid = body->pid, .start_time = body->start_time},
        .ranges = ranges,
        .n_ranges = body->range_count,
        .fds = fds,
        .n_fds = frame->header.fd_count,
        .account = client->account,
    };
    struct memctx *memctx;
    int r = layout_prove(&memctx, client->authority->options.opener, &proposal, ack);

    return r ? refuse_layout(endpoint, r, ack) : adopt(client, endpoint, memctx, ack);
}

/* The tail lies wherever it was received: its ranges are copied to where numbers may be. */
static uint16_t propose_layout(struct authority_client *client, struct memory_endpoint *endpoint,
                               const struct vmibus_frame *frame, const void *tail, const int *fds,
                               struct vmibus_ack *ack) {
    const struct vmibus_mem_layout *body = &frame->mem_layout;
    struct vmibus_layout_range *ranges;
    uint16_t error;

    if (frame->header.tail_length != body->range_count * sizeof(*ranges))
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH,
                             frame->header.tail_length);
    if (!may_name(client, body->pid))
        return answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_FIELD, body->pid);
    if (command_check_identity(client, endpoint, body, ack))
        return ack->error;
    ranges = malloc(frame->header.tail_length + 1);
    if (!ranges)
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
    if (frame->header.tail_length)
        memcpy(ranges, tail, frame->header.tail_length);
    error = prove_layout(client, endpoint, frame, ranges, fds, ack);
    free(ranges);
    return error;
}

/* --- MEM_END, MEM_BUSY ------------------------------------------------------------------------- */

static uint16_t propose_end(struct memory_endpoint *endpoint, const struct vmibus_mem_end *body,
                            struct vmibus_ack *ack) {
    uint64_t epoch = body->epoch;

    if (epoch == 0 && endpoint->current)
        epoch = endpoint->current->epoch;
    if (gate_epoch(endpoint, epoch, ack))
        return ack->error;
    ack->epoch = epoch;
    memory_endpoint_end_epoch(endpoint, body->reason);
    return 0;
}

/* Writes that are under way when it begins are not waited for: ACK.count tells how many. */
static uint16_t propose_busy(struct memory_endpoint *endpoint, const struct vmibus_mem_busy *body,
                             struct vmibus_ack *ack) {
    uint16_t reason = VMIBUS_REASON_NONE;

    if (body->busy > 1)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, body->busy);
    if (body->busy)
        reason = body->reason == VMIBUS_REASON_SNAPSHOT ? VMIBUS_REASON_SNAPSHOT
                                                        : VMIBUS_REASON_MIGRATION;
    atomic_store_explicit(&endpoint->busy, reason, memory_order_release);
    ack->count = endpoint->worker ? worker_jobs(endpoint->worker) : 0;
    return 0;
}

/* Two who speak of one memory would end each other's epochs. */
static bool may_propose(const struct authority_client *client, const struct memory_endpoint *endpoint) {
    return !endpoint->provider_is_known || memcmp(client->session, endpoint->provider, sizeof(endpoint->provider)) == 0;
}

void command_propose(struct authority_client *client, const struct vmibus_frame *frame,
                     const void *tail, const int *fds, uint64_t received) {
    struct memory_endpoint *endpoint;
    struct vmibus_frame answer;
    struct vmibus_ack *ack = &answer.ack;

    answer_begin(&answer, frame, received);
    if (gate_endpoint(client->authority, frame, &endpoint, ack) == 0 && !may_propose(client, endpoint)) {
        (void)answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_OTHER_PROVIDER, 0);
    } else if (!ack->error) {
        switch (frame->header.kind) {
        case VMIBUS_KIND_MEM_IDENTITY:
            command_identity(client, endpoint, frame, tail, ack);
            break;
        case VMIBUS_KIND_MEM_LAYOUT:
            propose_layout(client, endpoint, frame, tail, fds, ack);
            break;
        case VMIBUS_KIND_MEM_ROOT:
            if (command_root(client, endpoint, &frame->mem_root, frame->header.flags, &answer))
                return;
            break;
        case VMIBUS_KIND_MEM_END:
            propose_end(endpoint, &frame->mem_end, ack);
            break;
        case VMIBUS_KIND_MEM_BUSY:
            propose_busy(endpoint, &frame->mem_busy, ack);
            break;
        }
    }
    answer.ack.finished = clock_now();
    client_answer(client, &answer, frame->header.flags, NULL, NULL);
}
