/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/binding.h"

#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/watch.h"

int binding_new(struct binding **bindingp, struct control *control, struct endpoint *endpoint, struct grant grant) {
    struct binding *binding;
    void *memory;
    int r = region_take(&control->region, sizeof(*binding), &memory);

    if (r)
        return r;
    binding = memory;
    r = slot_table_set(&control->bindings, &control->region, endpoint->slot, binding);
    if (r) {
        region_give(&control->region, binding, sizeof(*binding));
        return r;
    }
    binding->control = control;
    binding->endpoint = endpoint;
    binding->grant = grant;
    list_init(&binding->subscriber_link);
    list_init(&binding->replay_link);
    list_append(&endpoint->bindings, &binding->endpoint_link);
    *bindingp = binding;
    return 0;
}

static void binding_detach(struct binding *binding) {
    struct endpoint *endpoint = binding->endpoint;

    if (!endpoint)
        return;
    list_unlink(&binding->replay_link);
    list_unlink(&binding->subscriber_link);
    list_unlink(&binding->endpoint_link);
    (void)slot_table_set(&binding->control->bindings, &binding->control->region, endpoint->slot, NULL);
    binding->endpoint = NULL;
}

struct binding *binding_free(struct binding *binding) {
    if (!binding)
        return NULL;
    if (binding->farewell.event)
        binding->control->n_farewells--;
    binding_detach(binding);
    region_give(&binding->control->region, binding, sizeof(*binding));
    return NULL;
}

void binding_bid_farewell(struct binding *binding, struct event *event) {
    struct control *control = binding->control;

    /* What a replay has overtaken is known here only. */
    if (binding->n_queued)
        outbox_withdraw(&control->outbox, binding->endpoint->slot, binding->endpoint->generation, UINT64_MAX, binding->floor);
    if (!binding->announced || !(binding->kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER))) {
        binding_free(binding);
        return;
    }
    binding_detach(binding);
    control->n_farewells++;
    outbox_push_farewell(&control->outbox, &binding->farewell, event, binding);
    control_wake(control);
    /* A control that took nothing while more endpoints than the bus can hold went is not coming back. */
    if (control->n_farewells > control->bus->n_endpoints)
        control_fail_with(control, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_QUEUE, 0, control->n_farewells,
                          control->bus->n_endpoints);
}

static void binding_set_kinds(struct binding *binding, uint64_t kinds) {
    binding->kinds = kinds;
    if (kinds && !list_is_linked(&binding->subscriber_link))
        list_append(&binding->endpoint->subscribers, &binding->subscriber_link);
    else if (!kinds)
        list_unlink(&binding->subscriber_link);
}

void binding_set_grant(struct binding *binding, struct grant grant) {
    uint64_t kinds = binding->kinds & bus_kinds_granted(binding->control->bus, grant.capabilities), told = kinds;
    bool watched = binding->grant.capabilities & VMIBUS_CAP_WATCH, watches = grant.capabilities & VMIBUS_CAP_WATCH;

    binding->grant = grant;
    if (kinds == binding->kinds && (watches || !watched))
        return;
    binding_set_kinds(binding, kinds);
    /* Nobody subscribes to what a watch tells. */
    if (watches)
        told |= VMIBUS_KIND_BIT(VMIBUS_KIND_WATCH_CHANGED);
    binding->n_queued -=
        outbox_withdraw(&binding->control->outbox, binding->endpoint->slot, binding->endpoint->generation, told, 0);
}

/*
 * Marks retained state to be replayed.  A replay may go before the lanes; were other retained state of the same endpoint still
 * waiting there, it would be overtaken.  So all that has not been told yet is replayed then, and what waits is superseded.
 */
static void binding_mark_stale(struct binding *binding, unsigned retained) {
    binding->stale |= (uint8_t)(1u << retained);
    for (unsigned i = 0; binding->n_queued && i < N_RETAINED; i++)
        if (binding->endpoint->retained[i].frame.header.publication > binding->floor)
            binding->stale |= (uint8_t)(1u << i);
    if (!list_is_linked(&binding->replay_link))
        list_append(&binding->control->outbox.replays, &binding->replay_link);
}

void binding_subscribe(struct binding *binding, uint64_t kinds) {
    struct endpoint *endpoint = binding->endpoint;
    uint64_t fresh;

    kinds &= bus_kinds_granted(binding->control->bus, binding->grant.capabilities);
    fresh = kinds & ~binding->kinds;
    binding_set_kinds(binding, kinds);
    for (unsigned i = 0; i < N_RETAINED; i++) {
        const struct retained *retained = &endpoint->retained[i];

        if (retained->present && fresh & VMIBUS_KIND_BIT(retained->frame.header.kind)) {
            binding_mark_stale(binding, i);
            outbox_hurry_head(&binding->control->outbox);
        }
    }
}

void binding_take_over(struct binding *binding, uint64_t kinds, uint8_t stale) {
    binding_set_kinds(binding, kinds);
    binding->stale = stale;
    list_unlink(&binding->replay_link);
    if (stale)
        list_append(&binding->control->outbox.replays, &binding->replay_link);
}

void binding_drop(struct binding *binding, const struct vmibus_frame *frame) {
    struct control *control = binding->control;
    int retained = retained_kind_of(frame);

    outbox_note_drop(&control->outbox, frame->header.kind);
    control->bus->counters.dropped++;
    if (retained >= 0) {
        binding_mark_stale(binding, (unsigned)retained);
        binding->lossy = true;
    }
    if (frame->header.kind == VMIBUS_KIND_WATCH_CHANGED)
        watch_see_taken(control, frame);
    control_wake(control);
}

void binding_deliver(struct binding *binding, struct event *event) {
    struct control *control = binding->control;
    int retained = event->retained;

    if (event->frame.header.kind == VMIBUS_KIND_ROSTER)
        binding->announced = true;
    if (retained >= 0 && binding->stale) {
        /* While a replay is due, newer state joins it: queued behind, it could be told twice, or out of order. */
        binding_mark_stale(binding, (unsigned)retained);
        control->bus->counters.coalesced++;
        if (binding->lossy)
            outbox_note_drop(&control->outbox, event->frame.header.kind);
    } else if (!outbox_push_event(&control->outbox, event)) {
        binding_drop(binding, &event->frame);
        return;
    } else if (retained >= 0) {
        binding->n_queued++;
    }
    control_wake(control);
}

/* The oldest piece that is to be replayed, of those that are wanted still; NULL: none. */
static const struct retained *oldest_stale(struct binding *binding) {
    const struct retained *oldest = NULL;

    for (unsigned i = 0; i < N_RETAINED; i++) {
        const struct retained *retained = &binding->endpoint->retained[i];

        if (!(binding->stale & (1u << i)))
            continue;
        if (!retained->present || !(binding->kinds & VMIBUS_KIND_BIT(retained->frame.header.kind)))
            binding->stale &= (uint8_t)~(1u << i);
        else if (!oldest || retained->frame.header.publication < oldest->frame.header.publication)
            oldest = retained;
    }
    return oldest;
}

bool binding_take_replay(struct binding *binding, struct vmibus_frame *frame, struct tail **tailp) {
    const struct retained *oldest = oldest_stale(binding), *next = oldest;
    const struct retained *roster = &binding->endpoint->retained[RETAINED_ROSTER];

    /* Nobody hears of an endpoint before its name. */
    if (!binding->announced && binding->stale & 1u << RETAINED_ROSTER)
        next = roster;
    if (next) {
        *frame = next->frame;
        *tailp = tail_ref(next->tail);
        if (frame->header.publication > binding->floor)
            binding->floor = frame->header.publication;
        if (next == roster)
            binding->announced = true;
        if (next != oldest)
            frame->header.publication = oldest->frame.header.publication - 1;
        binding->stale &= (uint8_t)~(1u << (unsigned)(next - binding->endpoint->retained));
    }
    if (!binding->stale) {
        list_unlink(&binding->replay_link);
        binding->lossy = false;
    }
    return next != NULL;
}

bool binding_settle(struct binding *binding, const struct event *event) {
    const struct vmibus_header *header = &event->frame.header;

    if (binding->endpoint->generation != header->generation)
        return false;
    binding->n_queued--;
    if (header->publication <= binding->floor)
        return true;
    binding->floor = header->publication;
    if (binding->endpoint->retained[event->retained].frame.header.publication == header->publication)
        binding->stale &= (uint8_t)~(1u << event->retained);
    return false;
}
