/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_QUERY: what the authority says about itself.
 *
 * HOLDERS: who holds memory contexts of an endpoint; on slot 0, of all of them, also of those whose VM has gone.
 * Each client sees its own; who may see counters of an endpoint sees everybody's there, and of those that have gone who may
 * see counters of any.
 */
#include <stdlib.h>

#include "memory/answer.h"
#include "memory/attachment.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "memory/memctx.h"
#include "util/clock.h"

/* Whose contexts are meant, and how much of it the asker may see. */
struct question {
    struct authority_client *asker;
    const struct memory_endpoint *endpoint; /* NULL: all */
    bool everybody;
};

static uint16_t pass_gates(struct authority_client *client, const struct vmibus_frame *frame,
                           struct question *question, struct vmibus_ack *ack) {
    struct memory_endpoint *endpoint;
    uint32_t capabilities;

    if (frame->mem_query.query != VMIBUS_MEMORY_QUERY_HOLDERS)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->mem_query.query);
    *question = (struct question){.asker = client};
    if (frame->header.slot == 0) {
        capabilities = policy_evaluate_any(client->authority->policy, &client->principal).capabilities;
    } else {
        if (gate_grant(client, frame, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_STATS, 0, VMIBUS_CAP_OBSERVE, &endpoint, ack))
            return ack->error;
        question->endpoint = endpoint;
        capabilities = client_capabilities(client, endpoint);
    }
    question->everybody = capabilities & VMIBUS_CAP_STATS;
    return 0;
}

static bool may_see_others(const struct question *question, const struct memctx *memctx) {
    const struct memory_endpoint *endpoint = question->endpoint;

    if (!endpoint)
        endpoint = authority_slot(question->asker->authority, memctx->slot);
    if (!endpoint || !endpoint->open || endpoint->generation != memctx->generation)
        return question->everybody;
    return client_capabilities(question->asker, endpoint) & VMIBUS_CAP_STATS;
}

static bool is_asked_for(const struct question *question, const struct authority_client *client,
                         const struct memctx *memctx) {
    if (client != question->asker && !may_see_others(question, memctx))
        return false;
    return !question->endpoint ||
           (memctx->slot == question->endpoint->slot && memctx->generation == question->endpoint->generation);
}

static void describe(const struct authority_client *client, const struct attachment *attachment,
                     struct vmibus_memory_holder *holder) {
    const struct memctx *memctx = attachment->memctx;

    *holder = (struct vmibus_memory_holder){
        .epoch = memctx->epoch,
        .overdue = memctx->retiring.authority ? memctx->retiring.deadline : 0,
        .uid = client->principal.uid,
        .pid = (uint32_t)client->principal.pid,
        .descriptors = attachment->n_objects_given,
    };
}

/* How many there are; of these the first `room` are described. */
static size_t list_holders(const struct question *question, struct vmibus_memory_holder *holders, size_t room) {
    const struct authority_client *client;
    const struct attachment *attachment;
    size_t n = 0;

    list_for_each(client, &question->asker->authority->clients, link) {
        list_for_each(attachment, &client->attachments, link) {
            if (!is_asked_for(question, client, attachment->memctx))
                continue;
            if (n < room)
                describe(client, attachment, &holders[n]);
            n++;
        }
    }
    return n;
}

/* As many as a tail can hold: whoever has more of them than that finds those of one endpoint. */
static size_t bound(size_t n) {
    const size_t most = VMIBUS_TAIL_BOUND_DEFAULT / sizeof(struct vmibus_memory_holder);

    return n < most ? n : most;
}

void command_query(struct authority_client *client, const struct vmibus_frame *frame, uint64_t received) {
    struct vmibus_memory_holder *holders = NULL;
    struct vmibus_frame answer;
    struct question question;

    answer_begin(&answer, frame, received);
    if (pass_gates(client, frame, &question, &answer.ack) == 0) {
        size_t n = bound(list_holders(&question, NULL, 0));

        holders = calloc(n ? n : 1, sizeof(*holders));
        if (holders) {
            answer.ack.count = bound(list_holders(&question, holders, n));
            answer.header.tail_length = (uint32_t)(n * sizeof(*holders));
        } else {
            answer_refuse(&answer.ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
        }
    }
    answer.ack.finished = clock_now();
    client_answer(client, &answer, 0, holders, NULL);
    free(holders);
}
