/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_QUERY: what the authority says about itself.
 *
 * HOLDERS: who holds memory contexts of an endpoint; on slot 0, of all of them, also of those whose VM has gone.
 * Each client sees its own; who may see counters of an endpoint sees everybody's there, and of those that have gone who may
 * see counters of any.
 *
 * COUNTERS: what it has done and holds, for who may see counters.
 *
 * LIMITS: those of its process; the asker's own and the totals, everybody's for who may see counters.
 */
#include <stdlib.h>
#include <string.h>

#include "memory/answer.h"
#include "memory/attachment.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "memory/memctx.h"
#include "util/clock.h"
#include "util/limit_use.h"

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

/* What an answer brings along: on the heap while it is given. */
static void *reserve(struct vmibus_frame *answer, size_t n, size_t size) {
    void *tail = calloc(n ? n : 1, size);

    if (tail)
        answer->header.tail_length = (uint32_t)(n * size);
    else
        answer_refuse(&answer->ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
    return tail;
}

static void *answer_holders(struct authority_client *client, const struct vmibus_frame *frame, struct vmibus_frame *answer) {
    struct vmibus_memory_holder *holders;
    struct question question;
    size_t n;

    if (pass_gates(client, frame, &question, &answer->ack))
        return NULL;
    n = bound(list_holders(&question, NULL, 0));
    holders = reserve(answer, n, sizeof(*holders));
    if (holders)
        answer->ack.count = bound(list_holders(&question, holders, n));
    return holders;
}

static void *answer_counters(const struct authority *authority, struct vmibus_frame *answer) {
    const struct authority_counters *counters = &authority->counters;
    const struct ledger *ledger = authority->options.ledger;
    const struct audit *audit = authority->options.audit;
    const struct vmibus_counter_value values[] = {
        {.counter = VMIBUS_COUNTER_MEMWRITES, .value = counters->writes},
        {.counter = VMIBUS_COUNTER_MEMWRITE_BYTES, .value = counters->bytes_written},
        {.counter = VMIBUS_COUNTER_CONNECTIONS, .value = ledger->used[RESOURCE_CONNECTIONS]},
        {.counter = VMIBUS_COUNTER_AUDIT_RECORDS, .value = audit->header ? audit->header->written : 0},
        {.counter = VMIBUS_COUNTER_ATTACHMENTS, .value = counters->attachments},
        {.counter = VMIBUS_COUNTER_EPOCHS_ENDED, .value = counters->epochs_ended},
        {.counter = VMIBUS_COUNTER_BYTES_CHARGED, .value = ledger->used[RESOURCE_BYTES]},
        {.counter = VMIBUS_COUNTER_FDS_CHARGED, .value = ledger->used[RESOURCE_FDS]},
        {.counter = VMIBUS_COUNTER_BUFFERS, .value = counters->buffers},
        {.counter = VMIBUS_COUNTER_BUFFER_BYTES, .value = counters->buffer_bytes},
        {.counter = VMIBUS_COUNTER_MEM_READS, .value = counters->reads},
        {.counter = VMIBUS_COUNTER_MEM_READ_BYTES, .value = counters->bytes_read},
        {.counter = VMIBUS_COUNTER_EPOCHS_RETIRING, .value = counters->epochs_retiring},
    };
    size_t n = sizeof(values) / sizeof(*values);
    void *tail = reserve(answer, n, sizeof(*values));

    if (!tail)
        return NULL;
    answer->ack.count = n;
    return memcpy(tail, values, sizeof(values));
}

static void *answer_limits(const struct authority_client *client, struct vmibus_frame *answer) {
    const struct ledger *ledger = client->authority->options.ledger;
    bool everybody = policy_evaluate_any(client->authority->policy, &client->principal).capabilities & VMIBUS_CAP_STATS;
    size_t n = limit_use_count(ledger, client->account, everybody);
    struct vmibus_limit_use *use = reserve(answer, n, sizeof(*use));

    if (!use)
        return NULL;
    answer->ack.count = n;
    limit_use_fill(ledger, client->account, everybody, use);
    return use;
}

static void *answer_latencies(const struct authority *authority, struct vmibus_frame *answer) {
    struct vmibus_latency *latencies = reserve(answer, LATENCY_KINDS, sizeof(*latencies));

    if (!latencies)
        return NULL;
    answer->ack.count = latencies_get(&authority->latencies, latencies);
    answer->header.tail_length = (uint32_t)(answer->ack.count * sizeof(*latencies));
    return latencies;
}

/* What is about the authority, and no VM. */
static bool may_ask_of_authority(struct authority_client *client, const struct vmibus_frame *frame, struct vmibus_ack *ack) {
    if (frame->header.slot)
        answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->header.slot);
    else if (!(policy_evaluate_any(client->authority->policy, &client->principal).capabilities & VMIBUS_CAP_STATS))
        answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, VMIBUS_CAP_STATS);
    return ack->error == 0;
}

void command_query(struct authority_client *client, const struct vmibus_frame *frame, uint64_t received) {
    struct vmibus_frame answer;
    void *tail = NULL;

    answer_begin(&answer, frame, received);
    switch (frame->mem_query.query) {
    case VMIBUS_MEMORY_QUERY_HOLDERS:
        tail = answer_holders(client, frame, &answer);
        break;
    case VMIBUS_MEMORY_QUERY_COUNTERS:
        if (may_ask_of_authority(client, frame, &answer.ack))
            tail = answer_counters(client->authority, &answer);
        break;
    case VMIBUS_MEMORY_QUERY_LATENCIES:
        if (may_ask_of_authority(client, frame, &answer.ack))
            tail = answer_latencies(client->authority, &answer);
        break;
    case VMIBUS_MEMORY_QUERY_LIMITS:
        tail = answer_limits(client, &answer);
        break;
    default:
        answer_refuse(&answer.ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->mem_query.query);
        break;
    }
    answer.ack.finished = clock_now();
    client_answer(client, &answer, 0, tail, NULL);
    free(tail);
}
