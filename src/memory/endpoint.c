/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/endpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/reader.h"
#include "memory/state.h"
#include "memory/worker.h"
#include "util/clock.h"

void memory_endpoint_init(struct memory_endpoint *endpoint, struct authority *authority,
                          uint32_t slot) {
    *endpoint = (struct memory_endpoint){.authority = authority, .slot = slot};
    epoch_page_init(&endpoint->page);
    fences_init(&endpoint->fences);
    quiesce_init(&endpoint->quiesce);
}

static void release_current(struct memory_endpoint *endpoint) {
    loop_source_deinit(&endpoint->exit_source);
    endpoint->current = memctx_unref(endpoint->current);
}

/* Of one that was handed over to an authority that never went on. */
static void nobody_is_told(void *context, uint64_t generation, uint64_t token) {
    (void)context;
    (void)generation;
    (void)token;
}

void memory_endpoint_deinit(struct memory_endpoint *endpoint) {
    assert(!endpoint->worker);
    assert(list_is_empty(&endpoint->quiesce.parked) && endpoint->quiesce.running == 0);
    epoch_page_deinit(&endpoint->page);
    release_current(endpoint);
    fences_end_draining(&endpoint->fences, nobody_is_told, NULL);
    fences_deinit(&endpoint->fences);
}

/* --- telling the bus --------------------------------------------------------------------------- */

static void frame_begin(const struct memory_endpoint *endpoint, struct vmibus_frame *frame,
                        enum vmibus_kind kind) {
    *frame = (struct vmibus_frame){
        .header =
            {
                .kind = (uint16_t)kind,
                .direction = VMIBUS_DIRECTION_UP,
                .priority = VMIBUS_PRIORITY_NORMAL,
                .version = VMIBUS_PROTOCOL_VERSION,
                .flags = endpoint->authority->again ? VMIBUS_FRAME_RETAINED : 0,
                .slot = endpoint->slot,
                .generation = endpoint->generation,
                .timestamp = clock_now(),
            },
    };
}

static void tell(const struct memory_endpoint *endpoint, const struct vmibus_frame *frame,
                 const void *tail) {
    const struct authority_options *options = &endpoint->authority->options;

    options->link(options->link_context, frame, tail);
}

void memory_endpoint_drained(void *context, uint64_t generation, uint64_t token) {
    struct memory_endpoint *endpoint = context;
    struct vmibus_frame frame;

    frame_begin(endpoint, &frame, VMIBUS_KIND_FENCE_DRAINED);
    frame.header.generation = generation;
    frame.fence_drained.token = token;
    tell(endpoint, &frame, NULL);
}

static void describe_root(const struct memctx *memctx, struct vmibus_memctx *body) {
    body->state = VMIBUS_MEMCTX_STATE_READY;
    body->cr3 = memctx->root.root.cr3;
    body->levels = memctx->root.root.levels;
    body->note = memctx->root.note;
    body->vcpu_cr3 = memctx->root.vcpu_cr3;
    body->evidence = memctx->root.evidence;
    body->confidence = memctx->root.confidence;
}

void memory_endpoint_publish(struct memory_endpoint *endpoint) {
    const struct memctx *memctx = endpoint->current;
    struct vmibus_frame frame;

    frame_begin(endpoint, &frame, VMIBUS_KIND_MEMCTX);
    frame.header.tail_length = (uint32_t)(memctx->n_ranges * sizeof(*memctx->ranges));
    frame.memctx.epoch = memctx->epoch;
    frame.memctx.ram_size = memctx->ram_size;
    frame.memctx.range_count = (uint16_t)memctx->n_ranges;
    frame.memctx.object_count = (uint16_t)memctx->n_objects;
    frame.memctx.access = memctx->access;
    if (memctx_is_ready(memctx)) {
        describe_root(memctx, &frame.memctx);
    } else {
        frame.memctx.state = VMIBUS_MEMCTX_STATE_PENDING;
        frame.memctx.evidence = memctx->process.pid ? VMIBUS_EVIDENCE_LAYOUT_MAPS : 0;
        frame.memctx.reason = memctx->pending_reason;
    }
    tell(endpoint, &frame, memctx->ranges);
}

void memory_endpoint_publish_none(struct memory_endpoint *endpoint, uint16_t reason) {
    struct vmibus_frame frame;

    frame_begin(endpoint, &frame, VMIBUS_KIND_MEMCTX);
    frame.memctx.state = VMIBUS_MEMCTX_STATE_NONE;
    frame.memctx.reason = reason;
    tell(endpoint, &frame, NULL);
}

void memory_endpoint_publish_end(struct memory_endpoint *endpoint) {
    struct vmibus_frame frame;

    frame_begin(endpoint, &frame, VMIBUS_KIND_MEMCTX_INVALIDATED);
    frame.memctx_invalidated.epoch = endpoint->last_epoch;
    frame.memctx_invalidated.reason = endpoint->last_reason;
    tell(endpoint, &frame, NULL);
}

/* --- epochs ------------------------------------------------------------------------------------ */

void memory_endpoint_end_epoch(struct memory_endpoint *endpoint, uint16_t reason) {
    struct memctx *memctx = endpoint->current;

    if (!memctx)
        return;
    epoch_page_end(&endpoint->page);
    if (reason == VMIBUS_REASON_NONE)
        reason = VMIBUS_REASON_WITHDRAWN;
    atomic_store_explicit(&memctx->ended, reason, memory_order_release);
    endpoint->last_epoch = memctx->epoch;
    endpoint->last_reason = reason;
    endpoint->authority->counters.epochs_ended++;
    retire_begin(endpoint, memctx);
    loop_source_deinit(&endpoint->exit_source);
    endpoint->current = NULL;
    memory_endpoint_publish_end(endpoint);
    /* The provider hears that nobody holds it after everybody has heard that it ended. */
    memctx_unref(memctx);
}

void memory_endpoint_end_epoch_of(struct memory_endpoint *endpoint, const struct memctx *memctx,
                                  uint16_t reason) {
    if (endpoint->current && endpoint->current == memctx)
        memory_endpoint_end_epoch(endpoint, reason);
}

static void process_exited(struct loop_source *source, uint32_t events) {
    struct memory_endpoint *endpoint =
        container_of(source, struct memory_endpoint, exit_source);

    (void)events;
    memory_endpoint_end_epoch(endpoint, VMIBUS_REASON_EXIT);
}

/* Why the context that follows is another one. */
static uint16_t reason_of_change(const struct memctx *old, const struct memctx *new) {
    if (memctx_is_same_layout(old, new) && !memctx_is_same_backing(old, new))
        return VMIBUS_REASON_BACKING_CHANGED;
    return VMIBUS_REASON_HOTPLUG;
}

int memory_endpoint_begin_epoch(struct memory_endpoint *endpoint, struct memctx *memctx) {
    struct authority *authority = endpoint->authority;
    int r;

    if (endpoint->current)
        memory_endpoint_end_epoch(endpoint, reason_of_change(endpoint->current, memctx));
    if (authority->epochs == UINT32_MAX) {
        memctx_unref(memctx);
        return -EOVERFLOW;
    }
    if (memctx->process_fd >= 0) {
        r = loop_source_init(&endpoint->exit_source, authority->options.loop, memctx->process_fd,
                             EPOLLIN, process_exited);
        if (r < 0) {
            memctx_unref(memctx);
            return r;
        }
    }
    memctx->epoch = (uint64_t)authority->options.incarnation << 32 | ++authority->epochs;
    memctx->slot = endpoint->slot;
    memctx->generation = endpoint->generation;
    endpoint->current = memctx;
    epoch_page_begin(&endpoint->page, memctx->epoch, memctx->generation);
    authority_rely(authority);
    return 0;
}

/* --- occupants --------------------------------------------------------------------------------- */

void memory_endpoint_open(struct memory_endpoint *endpoint, uint64_t generation,
                          const uint8_t *uuid, const char *name, size_t name_length) {
    if (endpoint->open && endpoint->generation == generation) {
        /* Told again: grants that name the UUID count from now on, unless whoever has the memory said what it is. */
        if (endpoint->identified)
            return;
        if (memcmp(endpoint->uuid, uuid, sizeof(endpoint->uuid)) != 0)
            endpoint->authority->policy_version++;
        memcpy(endpoint->uuid, uuid, sizeof(endpoint->uuid));
        return;
    }
    if (endpoint->open)
        memory_endpoint_close(endpoint, VMIBUS_REASON_WITHDRAWN);
    if (name_length > VMIBUS_NAME_BOUND)
        name_length = VMIBUS_NAME_BOUND;
    memcpy(endpoint->name, name, name_length);
    endpoint->name[name_length] = '\0';
    memcpy(endpoint->uuid, uuid, sizeof(endpoint->uuid));
    endpoint->generation = generation;
    endpoint->identity = (struct memory_identity){0};
    endpoint->identified = false;
    endpoint->last_epoch = 0;
    endpoint->last_reason = VMIBUS_REASON_NONE;
    atomic_store_explicit(&endpoint->busy, VMIBUS_REASON_NONE, memory_order_release);
    endpoint->provider_is_known = false;
    endpoint->open = true;
}

void memory_endpoint_set_provider(struct memory_endpoint *endpoint, const uint8_t *session) {
    static const uint8_t nobody[16];

    endpoint->provider_is_known = true;
    memcpy(endpoint->provider, session, sizeof(endpoint->provider));
    if (memcmp(session, nobody, sizeof(nobody)) == 0)
        memory_endpoint_end_epoch(endpoint, VMIBUS_REASON_WITHDRAWN);
}

/* Who has mapped it sees no epoch in it for ever. Slots are taken in turn, so pages that stayed would become many. */
static void drop_page(struct memory_endpoint *endpoint) {
    const struct authority_options *options = &endpoint->authority->options;

    if (!epoch_page_is_there(&endpoint->page))
        return;
    epoch_page_deinit(&endpoint->page);
    if (options->keep)
        options->keep(options->keep_context, endpoint->slot, -1);
}

void memory_endpoint_close(struct memory_endpoint *endpoint, uint16_t reason) {
    if (!endpoint->open)
        return;
    endpoint->open = false;
    memory_endpoint_end_epoch(endpoint, reason);
    drop_page(endpoint);
    quiesce_close(endpoint);
    endpoint->worker = worker_leave(endpoint->worker);
    endpoint->look = NULL;
    fences_close(&endpoint->fences, memory_endpoint_drained, endpoint);
}

/* --- looking ----------------------------------------------------------------------------------- */

bool memory_endpoint_is_relied_on(const struct memory_endpoint *endpoint) {
    return endpoint->current && (endpoint->current->attachments > 0 || endpoint->fences.current);
}

uint16_t memory_endpoint_reason_to_end(const struct memctx *memctx, bool loads) {
    struct memory_reader context;
    struct vmibus_guest_reader reader = memory_reader_init(&context, memctx, loads, clock_now());
    int r = memctx_is_whole(memctx);

    if (r == 0)
        return VMIBUS_REASON_BACKING_CHANGED;
    r = memctx_is_ready(memctx) ? canary_look(&memctx->canary, &reader) : 0;
    if (r == -ESRCH)
        return VMIBUS_REASON_EXIT;
    return r == CANARY_CHANGED ? VMIBUS_REASON_CANARY : VMIBUS_REASON_NONE;
}

/* A look on its way through the worker. */
struct look {
    struct job job;
    uint16_t reason;
};

static void look_execute(struct job *job) {
    container_of(job, struct look, job)->reason = memory_endpoint_reason_to_end(job->memctx, false);
}

static void look_done(struct job *job) {
    struct look *look = container_of(job, struct look, job);
    struct memory_endpoint *endpoint = job->endpoint;

    if (endpoint->look == job)
        endpoint->look = NULL;
    if (look->reason && !endpoint->authority->stopping)
        memory_endpoint_end_epoch_of(endpoint, job->memctx, look->reason);
    memctx_unref(job->memctx);
    free(look);
}

static void look_abandon(struct job *job) {
    memctx_abandon(job->memctx);
}

/* Without a worker or memory for it the canary is still looked at before each write, and the next look is tried. */
static void look_there(struct memory_endpoint *endpoint) {
    struct look *look;

    if (endpoint->look || memory_endpoint_need_worker(endpoint) < 0)
        return;
    look = calloc(1, sizeof(*look));
    if (!look)
        return;
    list_init(&look->job.link);
    list_init(&look->job.client_link);
    look->job.execute = look_execute;
    look->job.done = look_done;
    look->job.abandon = look_abandon;
    look->job.endpoint = endpoint;
    look->job.memctx = memctx_ref(endpoint->current);
    endpoint->look = &look->job;
    worker_queue(endpoint->worker, &look->job);
}

void memory_endpoint_look(struct memory_endpoint *endpoint) {
    uint16_t reason;

    if (!endpoint->current)
        return;
    if (memctx_may_block(endpoint->current)) {
        look_there(endpoint);
        return;
    }
    reason = memory_endpoint_reason_to_end(endpoint->current, true);
    if (reason)
        memory_endpoint_end_epoch(endpoint, reason);
}

void memory_endpoint_go_on(struct memory_endpoint *endpoint) {
    const struct memctx *memctx = endpoint->current;

    fences_end_draining(&endpoint->fences, memory_endpoint_drained, endpoint);
    quiesce_go_on(endpoint);
    if (!memctx)
        return;
    if (memctx->process_fd >= 0 && loop_source_init(&endpoint->exit_source, endpoint->authority->options.loop, memctx->process_fd,
                                                    EPOLLIN, process_exited) < 0)
        memory_endpoint_end_epoch(endpoint, VMIBUS_REASON_RESTARTED);
    else
        memory_endpoint_look(endpoint);
}

int memory_endpoint_need_worker(struct memory_endpoint *endpoint) {
    return endpoint->worker ? 0 : worker_new(&endpoint->worker, &endpoint->authority->completions);
}
