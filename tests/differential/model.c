/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "differential/model.h"

#include <string.h>
#include <unistd.h>

struct model model;

/* Who the actors are: of different ranks, and one that may only watch and type. As an ordinary user all are the same. */
static const struct {
    uid_t uid;
    uint32_t rank;
    bool writes;
} characters[MODEL_ACTORS] = {{0, 30, true}, {60001, 20, true}, {60002, 20, true}, {60003, 10, false}};

/* Few slots, so that they are used again. */
#define SETTINGS "[daemon]\nrevoke-timeout-ms = 100\nmax-endpoints = 4\n"
#define RULES                                                                                                                  \
    SETTINGS                                                                                                                   \
    "[rule zero]\nuser = 0\ncapabilities = all\nrank = 30\n"                                                                   \
    "[rule one]\nuser = 60001\ncapabilities = all\nrank = 20\n"                                                                \
    "[rule two]\nuser = 60002\ncapabilities = all\nrank = 20\n"                                                                \
    "[rule three]\nuser = 60003\ncapabilities = observe input preempt\nrank = 10\n"

const char *model_config(void) {
    return model.many ? RULES : SETTINGS;
}

uid_t model_uid(int actor) {
    return model.many ? characters[actor].uid : geteuid();
}

uint32_t model_rank(int actor) {
    return model.many ? characters[actor].rank : 0;
}

bool model_may(int actor, unsigned lease_class) {
    return !model.many || characters[actor].writes || lease_class == VMIBUS_LEASE_CLASS_INPUT;
}

/* --- leases ------------------------------------------------------------------------------------ */

void model_line_remove(struct lease *lease, size_t i) {
    lease->n_line--;
    memmove(&lease->line[i], &lease->line[i + 1], (lease->n_line - i) * sizeof(lease->line[0]));
}

int model_line_find(const struct lease *lease, int actor) {
    for (size_t i = 0; i < lease->n_line; i++)
        if (lease->line[i].actor == actor)
            return (int)i;
    return -1;
}

void model_line_add(struct lease *lease, struct waiter waiter, bool preempts) {
    size_t i = lease->n_line;

    for (size_t j = 0; preempts && j < lease->n_line; j++)
        if (lease->line[j].rank < waiter.rank) {
            i = j;
            break;
        }
    memmove(&lease->line[i + 1], &lease->line[i], (lease->n_line - i) * sizeof(lease->line[0]));
    lease->line[i] = waiter;
    lease->n_line++;
}

struct lease *model_longest_held(int actor, struct vm **vm, unsigned *lease_class) {
    struct lease *found = NULL;

    for (unsigned v = 0; v < MODEL_VMS; v++)
        for (unsigned c = 1; c <= MODEL_CLASSES; c++) {
            struct lease *lease = model_lease(&model.vms[v], c);

            if (lease->holder != actor || (found && found->token < lease->token))
                continue;
            found = lease;
            *vm = &model.vms[v];
            *lease_class = c;
        }
    return found;
}

/* --- judgement --------------------------------------------------------------------------------- */

enum vmibus_error model_judge_token(const struct lease *lease, int actor, uint64_t token, enum vmibus_reason *reason) {
    *reason = VMIBUS_REASON_NONE;
    if (token == 0) {
        if (lease->holder >= 0 && lease->holder != actor)
            *reason = VMIBUS_REASON_HELD;
        return VMIBUS_ERROR_NO_LEASE;
    }
    if (token != lease->token)
        *reason = VMIBUS_REASON_REVOKED;
    else if (lease->holder < 0)
        *reason = lease->reason;
    else if (lease->holder != actor)
        *reason = VMIBUS_REASON_NOT_RIGHTS_HOLDER;
    else
        return VMIBUS_ERROR_OK;
    return VMIBUS_ERROR_STALE_TOKEN;
}

enum vmibus_error model_judge_write(int actor, const struct vm *vm, const struct vmibus_cmd_memwrite *body,
                                    enum vmibus_reason *reason) {
    const struct lease *lease = &vm->leases[VMIBUS_LEASE_CLASS_MEMWRITE - 1];

    *reason = VMIBUS_REASON_NONE;
    if (!model_may(actor, VMIBUS_LEASE_CLASS_MEMWRITE)) {
        *reason = VMIBUS_REASON_NO_CAPABILITY;
        return VMIBUS_ERROR_DENIED;
    }
    if (body->token == 0 || !model.fences[vm->at.slot])
        return VMIBUS_ERROR_NO_LEASE;
    if (body->token != lease->token || lease->holder < 0) {
        *reason = body->token <= model.fences[vm->at.slot] ? VMIBUS_REASON_REVOKED : VMIBUS_REASON_NONE;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    if (lease->holder != actor) {
        *reason = VMIBUS_REASON_NOT_RIGHTS_HOLDER;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    if (body->epoch != vm->at.epoch) {
        *reason = body->epoch && body->epoch == vm->last_epoch ? VMIBUS_REASON_RESET : VMIBUS_REASON_NONE;
        return VMIBUS_ERROR_STALE_EPOCH;
    }
    return VMIBUS_ERROR_OK;
}
