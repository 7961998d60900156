/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/gate.h"

#include <string.h>

#include "memory/answer.h"
#include "util/deadline.h"

#define KNOWN_FLAGS                                                                                \
    (VMIBUS_MEMWRITE_SRC_PAYLOAD | VMIBUS_MEMWRITE_SRC_BUFFER | VMIBUS_MEMWRITE_TABLE |            \
     VMIBUS_MEMWRITE_EXPECT | VMIBUS_MEMWRITE_QUIESCE | VMIBUS_MEMWRITE_DRY_RUN |                  \
     VMIBUS_MEMWRITE_READ_ONLY_PAGE | VMIBUS_MEMWRITE_PHYSICAL)
#define NOT_BUILT_FLAGS                                                                            \
    (VMIBUS_MEMWRITE_SRC_BUFFER | VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_QUIESCE)

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

/* --- CMD_MEMWRITE ------------------------------------------------------------------------------ */

static uint16_t check_flags(const struct vmibus_frame *frame, struct vmibus_ack *ack) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    uint32_t flags = command->flags;

    if ((flags & ~KNOWN_FLAGS) ||
        ((flags & VMIBUS_MEMWRITE_SRC_PAYLOAD) && (flags & VMIBUS_MEMWRITE_SRC_BUFFER)))
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS, flags);
    if (frame->header.fd_count)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS,
                             frame->header.fd_count);
    if ((flags & VMIBUS_MEMWRITE_PHYSICAL) && command->cr3)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, command->cr3);
    if (flags & NOT_BUILT_FLAGS)
        return answer_refuse(ack, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT,
                             flags & NOT_BUILT_FLAGS);
    return 0;
}

/* The source is in the frame or behind it, and with EXPECT it is twice as long as the write. */
static uint16_t check_source(const struct vmibus_frame *frame, const void *tail,
                             struct gate_passage *passage, struct vmibus_ack *ack) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    bool expects = command->flags & VMIBUS_MEMWRITE_EXPECT;
    bool follows = command->flags & VMIBUS_MEMWRITE_SRC_PAYLOAD;
    uint64_t octets = (uint64_t)command->len << expects;
    const uint8_t *source = follows ? tail : command->data;

    if (command->len == 0 ||
        (follows ? octets != frame->header.tail_length
                 : octets > sizeof(command->data) || frame->header.tail_length != 0))
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, command->len);
    passage->expect = expects ? source : NULL;
    passage->source = expects ? source + command->len : source;
    return 0;
}

static uint16_t check_address(const struct vmibus_cmd_memwrite *command, struct vmibus_ack *ack) {
    uint64_t last;

    if (__builtin_add_overflow(command->gva, command->len - 1, &last))
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS,
                             command->gva);
    return 0;
}

static uint32_t needed(uint32_t flags) {
    return (uint32_t)VMIBUS_CAP_MEM_WRITE |
           (flags & VMIBUS_MEMWRITE_READ_ONLY_PAGE ? VMIBUS_CAP_WRITE_READ_ONLY : 0u) |
           (flags & VMIBUS_MEMWRITE_PHYSICAL ? VMIBUS_CAP_WRITE_PHYSICAL : 0u);
}

static uint16_t check_fence(const struct authority_client *client, uint64_t token, uint64_t now,
                            struct gate_passage *passage, struct vmibus_ack *ack) {
    const struct fences *fences = &passage->endpoint->fences;
    struct fence *fence = fences->current;
    uint16_t reason;

    if (token == 0 || fences->highest == 0)
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
        return answer_refuse(ack, VMIBUS_ERROR_STALE_TOKEN, reason, 0);
    passage->fence = fence;
    return 0;
}

/* Which address space: the physical one, the kernel's, or one of the sender's choosing at the kernel's depth. */
static uint16_t check_root(const struct vmibus_cmd_memwrite *command, struct gate_passage *passage,
                           struct vmibus_ack *ack) {
    const struct memctx *memctx = passage->endpoint->current;

    passage->root = (struct vmibus_guest_root){};
    if (command->flags & VMIBUS_MEMWRITE_PHYSICAL)
        return 0;
    if (!memctx_is_ready(memctx))
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NO_ROOT, command->gva);
    passage->root = memctx->root.root;
    if (command->cr3)
        passage->root.cr3 = command->cr3;
    return 0;
}

uint16_t gate_write(struct authority_client *client, const struct vmibus_frame *frame,
                    const void *tail, uint64_t now, struct gate_passage *passage,
                    struct vmibus_ack *ack) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    uint32_t all = needed(command->flags);
    uint16_t busy;

    if (check_flags(frame, ack) || check_source(frame, tail, passage, ack) ||
        check_address(command, ack))
        return ack->error;
    if (gate_grant(client, frame, VMIBUS_CAP_MEM_WRITE, all, VMIBUS_CAP_MEM_WRITE,
                   &passage->endpoint, ack) ||
        check_fence(client, command->token, now, passage, ack) ||
        gate_epoch(passage->endpoint, command->epoch, ack))
        return ack->error;
    ack->epoch = command->epoch;
    busy = atomic_load_explicit(&passage->endpoint->busy, memory_order_relaxed);
    if (busy)
        return answer_refuse(ack, VMIBUS_ERROR_BUSY, busy, 0);
    passage->deadline = deadline_of(&frame->header);
    if (deadline_has_passed(&frame->header, now))
        return answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
    return check_root(command, passage, ack);
}
