/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/gate.h"

#include <string.h>

#include "memory/answer.h"
#include "memory/buffer.h"
#include "util/deadline.h"

/* --- shared by all commands -------------------------------------------------------------------- */

uint16_t gate_endpoint(struct authority *authority, const struct vmibus_frame *frame,
                       struct memory_endpoint **endpointp, struct vmibus_ack *ack) {
    struct memory_endpoint *endpoint = authority_slot(authority, frame->header.slot);

    if (!endpoint || !endpoint->open || endpoint->generation != frame->header.generation)
        return answer_refuse(ack, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, 0);
    *endpointp = endpoint;
    return 0;
}

static bool has(uint32_t capabilities, uint32_t any, uint32_t all) {
    return (capabilities & any) && (capabilities & all) == all;
}

/* The bit that is missing: the one of `named` if it is among them. */
static uint16_t refuse_capability(uint32_t capabilities, uint32_t any, uint32_t all,
                                  uint32_t named, struct vmibus_ack *ack) {
    uint32_t missing = capabilities & any ? all & ~capabilities : named;

    return answer_refuse(ack, VMIBUS_ERROR_DENIED,
                         capabilities ? VMIBUS_REASON_NO_CAPABILITY : VMIBUS_REASON_NO_GRANT,
                         missing & (0 - missing));
}

uint16_t gate_grant(struct authority_client *client, const struct vmibus_frame *frame,
                    uint32_t any, uint32_t all, uint32_t named,
                    struct memory_endpoint **endpointp, struct vmibus_ack *ack) {
    struct authority *authority = client->authority;
    uint32_t capabilities;

    if (gate_endpoint(authority, frame, endpointp, ack)) {
        capabilities = policy_evaluate_any(authority->policy, &client->principal).capabilities;
        if (!has(capabilities, any, all))
            return refuse_capability(capabilities, any, all, named, ack);
        return ack->error;
    }
    capabilities = client_capabilities(client, *endpointp);
    if (!has(capabilities, any, all))
        return refuse_capability(capabilities, any, all, named, ack);
    return 0;
}

uint16_t gate_epoch(const struct memory_endpoint *endpoint, uint64_t epoch,
                    struct vmibus_ack *ack) {
    uint64_t current = endpoint->current ? endpoint->current->epoch : 0;

    if (current && epoch == current)
        return 0;
    return answer_refuse(ack, VMIBUS_ERROR_STALE_EPOCH,
                         epoch && epoch == endpoint->last_epoch ? endpoint->last_reason
                                                                : VMIBUS_REASON_NONE,
                         current);
}

uint16_t gate_root(const struct memctx *memctx, bool physical, uint64_t cr3, uint64_t gva,
                   struct vmibus_guest_root *root, struct vmibus_ack *ack) {
    *root = (struct vmibus_guest_root){};
    if (physical)
        return 0;
    if (!memctx_is_ready(memctx))
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NO_ROOT, gva);
    *root = memctx->root.root;
    if (cr3)
        root->cr3 = cr3;
    return 0;
}

/* --- CMD_MEMWRITE ------------------------------------------------------------------------------ */

/* Looked up after the grant: who may do nothing does not learn which buffers there are. */
static uint16_t check_buffer(const struct authority_client *client, struct gate_passage *passage,
                             struct vmibus_ack *ack) {
    const struct write_shape *shape = &passage->shape;

    passage->buffer = NULL;
    passage->octets = shape->octets;
    if (!passage->octets) {
        passage->buffer = buffer_find(client, shape->buffer);
        if (passage->buffer)
            passage->octets = buffer_octets(passage->buffer, shape->offset, shape_octets(shape));
    }
    if (!passage->octets)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER,
                             passage->buffer ? shape->offset : shape->buffer);
    return 0;
}

static uint32_t needed(uint32_t flags) {
    return (uint32_t)VMIBUS_CAP_MEM_WRITE |
           (flags & VMIBUS_MEMWRITE_READ_ONLY_PAGE ? VMIBUS_CAP_WRITE_READ_ONLY : 0u) |
           (flags & VMIBUS_MEMWRITE_PHYSICAL ? VMIBUS_CAP_WRITE_PHYSICAL : 0u) |
           (flags & VMIBUS_MEMWRITE_QUIESCE ? VMIBUS_CAP_QUIESCE : 0u);
}

static uint16_t check_fence(const struct authority_client *client, uint64_t token, uint64_t now,
                            struct gate_passage *passage, struct vmibus_ack *ack) {
    const struct fences *fences = &passage->endpoint->fences;
    struct fence *fence = fences->current;
    uint16_t reason;

    if (token == 0)
        return answer_refuse(ack, VMIBUS_ERROR_NO_LEASE, VMIBUS_REASON_NONE, 0);
    /* What the bus has said since is not known. */
    if (client->authority->suspended)
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_NO_LINK, 0);
    if (fences->highest == 0)
        return answer_refuse(ack, VMIBUS_ERROR_NO_LEASE, VMIBUS_REASON_NONE, 0);
    if (!fence || fence->token != token)
        return answer_refuse(ack, VMIBUS_ERROR_STALE_TOKEN,
                             token <= fences->highest ? VMIBUS_REASON_REVOKED : VMIBUS_REASON_NONE,
                             0);
    if (fence->generation != passage->endpoint->generation)
        return answer_refuse(ack, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED, 0);
    if (fence->uid != client->principal.uid ||
        memcmp(fence->session, client->session, sizeof(fence->session)) != 0)
        return answer_refuse(ack, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NOT_RIGHTS_HOLDER, 0);
    reason = fence_check(fence, now);
    if (reason)
        return answer_refuse(ack, fence_error(reason), reason, 0);
    passage->fence = fence;
    return 0;
}

/* The last gate: what is taken from the meter here was not refused for anything else at receipt. */
static uint16_t check_bounds(struct authority_client *client, const struct vmibus_cmd_memwrite *command, uint64_t now,
                             struct gate_passage *passage, struct vmibus_ack *ack) {
    struct write_allowance *allowance;
    uint32_t len = passage->shape.len;
    uint64_t wait_us;
    int r;

    passage->metered = 0;
    /* Where nothing can be remembered it is looked up anew: bounds that cannot be learnt are not none. */
    if (!client_write_allowance(client, passage->endpoint, &allowance))
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_MEMORY, 0);
    passage->allowance = allowance;
    if (!allowance)
        return 0;
    if (allowance->size && len > allowance->size)
        return answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_SIZE, allowance->size);
    if (!allowance->rate || command->flags & VMIBUS_MEMWRITE_DRY_RUN)
        return 0;
    r = meter_take(&client->authority->meters, client->principal.uid, allowance->rate, len, now, &wait_us);
    if (r == METER_WAIT)
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_WRITE_RATE, wait_us);
    if (r < 0)
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_MEMORY, 0);
    passage->metered = meter_worth(len, allowance->rate);
    return 0;
}

uint16_t gate_write(struct authority_client *client, const struct vmibus_frame *frame,
                    const void *tail, uint64_t now, struct gate_passage *passage,
                    struct vmibus_ack *ack) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    uint32_t all = needed(command->flags);
    uint16_t busy;

    if (shape_parse(frame, tail, &passage->shape, ack))
        return ack->error;
    if (gate_grant(client, frame, VMIBUS_CAP_MEM_WRITE, all, VMIBUS_CAP_MEM_WRITE,
                   &passage->endpoint, ack) ||
        check_buffer(client, passage, ack) ||
        check_fence(client, command->token, now, passage, ack) ||
        gate_epoch(passage->endpoint, command->epoch, ack))
        return ack->error;
    ack->epoch = command->epoch;
    /* Whoever lost the bus, and with it the endpoint, may be writing yet: the bus that issued this token knows nothing of it. */
    if (retire_is_written(passage->endpoint))
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_REVOKING, 0);
    busy = atomic_load_explicit(&passage->endpoint->busy, memory_order_relaxed);
    if (busy)
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, busy, 0);
    passage->deadline = deadline_of(&frame->header);
    if (deadline_has_passed(&frame->header, now))
        return answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
    if (gate_root(passage->endpoint->current, command->flags & VMIBUS_MEMWRITE_PHYSICAL, command->cr3,
                  passage->shape.plain.gva, &passage->root, ack))
        return ack->error;
    return check_bounds(client, command, now, passage, ack);
}
