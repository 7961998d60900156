/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "differential/handover.h"

#include <string.h>

#include "differential/sequence.h"

void handover_grant(struct vm *vm, unsigned lease_class, int actor, const struct vmibus_ack *ack) {
    struct lease *lease = model_lease(vm, lease_class);

    /* With faults, and apart, grants of several leases are heard of in any order; those of one lease never are. */
    uint64_t before = sequence.relaxed || channels_are_apart() ? lease->token : model.highest;

    if (ack->token <= before)
        sequence_fail("token %#llx after %#llx", (unsigned long long)ack->token, (unsigned long long)before);
    model.highest = ack->token > model.highest ? ack->token : model.highest;
    lease->holder = actor;
    lease->token = ack->token;
    lease->reason = VMIBUS_REASON_NONE;
    if (lease_class == VMIBUS_LEASE_CLASS_MEMWRITE)
        model.fences[vm->at.slot] = ack->token;
}

/* Nobody holds it any more: the first in line does, and is told so. */
static void pass_on(struct vm *vm, unsigned lease_class) {
    struct lease *lease = model_lease(vm, lease_class);

    lease->holder = -1;
    while (!sequence.relaxed && lease->holder < 0 && lease->n_line > 0) {
        struct waiter first = lease->line[0];
        struct vmibus_frame answer;

        model_line_remove(lease, 0);
        if (!actor_answer(&sequence.actors[first.actor], first.correlation, &answer))
            sequence_fail("actor %d was lost waiting for a lease", first.actor);
        sequence_expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
        handover_grant(vm, lease_class, first.actor, &answer.ack);
    }
}

void handover_end(struct vm *vm, unsigned lease_class, enum vmibus_reason reason) {
    model_lease(vm, lease_class)->reason = reason;
    pass_on(vm, lease_class);
}

void handover_forget(int actor) {
    unsigned lease_class;
    struct vm *vm;

    for (unsigned v = 0; v < MODEL_VMS; v++)
        for (unsigned c = 1; c <= MODEL_CLASSES; c++) {
            struct lease *lease = model_lease(&model.vms[v], c);
            int place = model_line_find(lease, actor);

            if (place >= 0)
                model_line_remove(lease, (size_t)place);
        }
    while (model_longest_held(actor, &vm, &lease_class))
        handover_end(vm, lease_class, VMIBUS_REASON_DISCONNECTED);
    memset(model.attached[actor], 0, sizeof(model.attached[actor]));
    model.subscribed[actor] = 0;
}

/* Takes the first grant that has come of those that wait for a lease; whether there was something to take. */
static bool collect_one(struct vm *vm, unsigned lease_class) {
    struct lease *lease = model_lease(vm, lease_class);

    for (size_t i = 0; i < lease->n_line; i++) {
        struct waiter waiter = lease->line[i];
        struct vmibus_frame answer;
        int r = actor_poll_answer(&sequence.actors[waiter.actor], waiter.correlation, &answer);

        if (r == 0)
            continue;
        if (r < 0) {
            handover_forget(waiter.actor);
            return true;
        }
        model_line_remove(lease, i);
        if (answer.ack.error == VMIBUS_ERROR_OK)
            handover_grant(vm, lease_class, waiter.actor, &answer.ack);
        return true;
    }
    return false;
}

void handover_collect(void) {
    for (unsigned v = 0; v < MODEL_VMS; v++)
        for (unsigned c = 1; c <= MODEL_CLASSES; c++)
            while (collect_one(&model.vms[v], c))
                ;
}
