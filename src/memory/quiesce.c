/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/quiesce.h"

#include <assert.h>

#include "memory/answer.h"
#include "memory/endpoint.h"
#include "memory/state.h"
#include "memory/worker.h"
#include "util/clock.h"

void quiesce_init(struct quiesce *quiesce) {
    *quiesce = (struct quiesce){};
    list_init(&quiesce->parked);
}

static void set_still(struct quiesce *quiesce, bool still) {
    atomic_store_explicit(&quiesce->still, still, memory_order_release);
}

/* --- telling the bus --------------------------------------------------------------------------- */

static void tell(const struct memory_endpoint *endpoint, enum vmibus_kind kind, uint64_t hold) {
    const struct authority_options *options = &endpoint->authority->options;
    const struct vmibus_frame frame = {
        .header =
            {
                .kind = (uint16_t)kind,
                .direction = VMIBUS_DIRECTION_UP,
                .priority = VMIBUS_PRIORITY_HIGH,
                .version = VMIBUS_PROTOCOL_VERSION,
                .slot = endpoint->slot,
                .generation = endpoint->generation,
                .correlation = hold,
                .timestamp = clock_now(),
            },
    };

    options->link(options->link_context, &frame, NULL);
}

/* The bus may answer before this returns. */
static void begin(struct memory_endpoint *endpoint) {
    struct quiesce *quiesce = &endpoint->quiesce;

    quiesce->hold = ++quiesce->holds;
    tell(endpoint, VMIBUS_KIND_QUIESCE_BEGIN, quiesce->hold);
}

static void end_if_unused(struct memory_endpoint *endpoint) {
    struct quiesce *quiesce = &endpoint->quiesce;
    uint64_t hold = quiesce->hold;

    if (!hold || quiesce->running || !list_is_empty(&quiesce->parked))
        return;
    quiesce->hold = 0;
    set_still(quiesce, false);
    tell(endpoint, VMIBUS_KIND_QUIESCE_END, hold);
}

void quiesce_go_on(struct memory_endpoint *endpoint) {
    end_if_unused(endpoint);
}

/* --- jobs -------------------------------------------------------------------------------------- */

static struct job *unpark(struct quiesce *quiesce, struct list *jobs) {
    struct job *job = list_first(jobs, struct job, link);

    list_unlink(&job->link);
    quiesce->running++;
    return job;
}

static void let_run(struct memory_endpoint *endpoint) {
    struct quiesce *quiesce = &endpoint->quiesce;

    while (!list_is_empty(&quiesce->parked))
        worker_queue(endpoint->worker, unpark(quiesce, &quiesce->parked));
}

/* Nobody is parked any more when the first is answered: what an answer sets off may park anew. */
static void refuse_all(struct memory_endpoint *endpoint, enum vmibus_error error,
                       enum vmibus_reason reason) {
    struct quiesce *quiesce = &endpoint->quiesce;
    struct list refused;

    list_init(&refused);
    if (!list_is_empty(&quiesce->parked)) {
        list_insert_between(&refused, quiesce->parked.previous, quiesce->parked.next);
        list_init(&quiesce->parked);
    }
    while (!list_is_empty(&refused)) {
        struct job *job = unpark(quiesce, &refused);

        answer_refuse(&job->answer.ack, error, reason, 0);
        job->answer.ack.finished = clock_now();
        job->done(job);
    }
}

void quiesce_park(struct memory_endpoint *endpoint, struct job *job) {
    struct quiesce *quiesce = &endpoint->quiesce;

    assert(endpoint->open && endpoint->worker);
    list_append(&quiesce->parked, &job->link);
    if (quiesce->hold == 0)
        begin(endpoint);
    else if (atomic_load_explicit(&quiesce->still, memory_order_relaxed))
        let_run(endpoint);
}

void quiesce_leave(struct memory_endpoint *endpoint, uint64_t generation) {
    if (generation != endpoint->generation || endpoint->quiesce.running == 0)
        return; /* of an occupant that has gone */
    endpoint->quiesce.running--;
    end_if_unused(endpoint);
}

/* --- the bus ----------------------------------------------------------------------------------- */

static void end_early(struct memory_endpoint *endpoint, enum vmibus_error error,
                      enum vmibus_reason reason) {
    endpoint->quiesce.hold = 0;
    set_still(&endpoint->quiesce, false);
    refuse_all(endpoint, error, reason);
}

void quiesce_hear(struct memory_endpoint *endpoint, const struct vmibus_frame *frame) {
    struct quiesce *quiesce = &endpoint->quiesce;

    if (quiesce->hold == 0 || frame->header.correlation != quiesce->hold)
        return; /* of a hold that has been ended meanwhile */
    if (frame->quiesce_state.error) {
        end_early(endpoint, VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED);
        return;
    }
    set_still(quiesce, true);
    let_run(endpoint);
}

void quiesce_lose(struct memory_endpoint *endpoint) {
    end_early(endpoint, VMIBUS_ERROR_BUSY, VMIBUS_REASON_NO_LINK);
}

void quiesce_close(struct memory_endpoint *endpoint) {
    end_early(endpoint, VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN);
    endpoint->quiesce.running = 0; /* who still runs may never come back, and the next occupant does not wait for it */
}
