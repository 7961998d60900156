/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "differential/connection.h"

#include "differential/handover.h"
#include "differential/sequence.h"

#define EVERYTHING                                                                                                            \
    (VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |     \
     VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) | VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE))

void connection_lost(int actor) {
    if (!sequence.relaxed)
        sequence_fail("actor %d was lost", actor);
    sequence.lost++;
    handover_forget(actor);
}

bool connection_ask(int actor, struct vmibus_frame *frame, const void *tail, size_t length, struct vmibus_frame *answer) {
    if (actor_ask(&sequence.actors[actor], frame, tail, length, answer))
        return true;
    connection_lost(actor);
    return false;
}

void connection_make(int actor) {
    unsigned attempts = 0;

    while (!actor_connect(&sequence.actors[actor], sequence.daemon.path, model_uid(actor)))
        if (!sequence.relaxed || attempts++ > 1000)
            sequence_fail("actor %d is not let in", actor);
    model.subscribed[actor] = 0;
}

void connection_renew(int actor) {
    actor_close(&sequence.actors[actor]);
    handover_forget(actor);
    connection_make(actor);
}

void connection_change_subscription(int actor) {
    uint64_t kinds = model.subscribed[actor] ? 0 : EVERYTHING;
    struct vmibus_frame answer;

    if (!actor_subscribe(&sequence.actors[actor], kinds, &answer))
        connection_lost(actor);
    else if (sequence_expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, answer.ack.count))
        model.subscribed[actor] = kinds;
}
