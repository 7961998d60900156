/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/bus.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "bus/claim.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/resync.h"
#include "bus/sensor.h"
#include "util/region.h"

/* Which event kinds a capability opens: taken from the definition of the wire, so that it is said in one place. */
static void learn_kinds(struct bus *bus) {
    for (unsigned kind = 0x0100; kind < 0x0140; kind++) {
        const struct vmibus_frame_description *description = vmibus_frame_describe(kind);

        if (!description)
            continue;
        if (description->capability)
            bus->kinds_by_capability[__builtin_ctz(description->capability)] |= VMIBUS_KIND_BIT(kind);
    }
}

uint64_t bus_kinds_granted(const struct bus *bus, uint32_t capabilities) {
    uint64_t kinds = 0;

    for (; capabilities; capabilities &= capabilities - 1)
        kinds |= bus->kinds_by_capability[__builtin_ctz(capabilities)];
    return kinds;
}

static uint32_t n_watches(const struct bus_options *options) {
    return watch_table_capacity(options->policy->limits_total[RESOURCE_WATCHES]);
}

/*
 * Answers, per connection: commands being executed, their answers and those of refused ones, what tells of the connection's own
 * end, and one removal of each endpoint.  Leases, places in their queues, holds and watches may all end at once.
 */
static struct event_room event_room(const struct bus_options *options) {
    const uint64_t *limits = options->policy->limits_total;

    return (struct event_room){
        .live = limits[RESOURCE_EVENTS],
        .answers = (size_t)options->n_connections * (3 * (size_t)options->commands + 1 + options->n_endpoints + 1) +
                   limits[RESOURCE_LEASES] + limits[RESOURCE_WAITERS] + limits[RESOURCE_HOLDS] + n_watches(options),
        .fds = limits[RESOURCE_FDS],
        .tail_octets = options->region_octets,
        .tail_bound = options->tail_bound,
    };
}

/* The bus's own: an INPUT_RELEASE, a release of keys and a HOLD or LET_GO of each endpoint, and the end of each watch. */
static uint32_t n_commands(const struct bus_options *options) {
    return (uint32_t)options->policy->limits_total[RESOURCE_COMMANDS] + 3 * options->n_endpoints + n_watches(options);
}

static size_t n_deliveries(const struct bus_options *options) {
    const struct event_room room = event_room(options);

    return room.live + room.answers;
}

size_t bus_memory_needed(const struct bus_options *options) {
    const struct event_room room = event_room(options);

    return event_pool_cost(&room) + arena_cost(sizeof(struct delivery), n_deliveries(options)) +
           command_table_cost(n_commands(options)) + watch_table_cost(n_watches(options)) +
           arena_cost(REGION_BLOCK, options->region_octets / REGION_BLOCK);
}

static int reserve(struct bus *bus) {
    const struct bus_options *options = &bus->options;
    const struct event_room room = event_room(options);
    int r;

    bus->endpoints = calloc(bus->n_endpoints + 1, sizeof(struct endpoint *));
    if (!bus->endpoints)
        return -ENOMEM;
    r = event_pool_init(&bus->events, options->arena, &room);
    if (r == 0)
        r = pool_init(&bus->deliveries, options->arena, sizeof(struct delivery), n_deliveries(options));
    if (r == 0)
        r = region_pool_init(&bus->regions, options->arena, options->region_octets);
    if (r == 0)
        r = command_table_init(&bus->commands, bus, n_commands(options));
    if (r == 0)
        r = watch_table_init(&bus->watches, options->arena, n_watches(options));
    if (r == 0)
        ledger_bound(options->ledger, RESOURCE_WATCHES, n_watches(options));
    if (r == 0)
        ledger_bound(options->ledger, RESOURCE_ANSWERS, store_for_peers(&bus->events.tails));
    return r;
}

int bus_new(struct bus **busp, const struct bus_options *options) {
    struct bus *bus;
    int r;

    if (options->n_endpoints == 0 || options->n_connections == 0 || options->commands == 0 || options->queue_depth == 0)
        return -EINVAL;
    bus = calloc(1, sizeof(*bus));
    if (!bus)
        return -ENOMEM;
    bus->options = *options;
    bus->loop = options->loop;
    bus->ledger = options->ledger;
    bus->audit = options->audit;
    bus->policy = options->policy;
    bus->n_endpoints = options->n_endpoints;
    list_init(&bus->controls);
    list_init(&bus->sensors);
    learn_kinds(bus);
    loop_timer_init(&bus->claims, bus->loop, claims_time_out);
    r = ledger_ref_account(bus->ledger, geteuid(), bus->policy->limits, &bus->account);
    if (r == 0)
        r = reserve(bus);
    if (r == 0)
        r = endpoint_new_bus(&bus->endpoints[0], bus);
    if (r < 0) {
        bus_free(bus);
        return r;
    }
    *busp = bus;
    return 0;
}

struct bus *bus_free(struct bus *bus) {
    if (!bus)
        return NULL;
    assert(list_is_empty(&bus->controls));
    assert(list_is_empty(&bus->sensors));
    loop_timer_cancel(&bus->claims);
    /* What was handed over and not claimed yet is still there. */
    for (uint32_t slot = bus->endpoints ? bus->n_endpoints : 0; slot > 0; slot--)
        endpoint_free(bus->endpoints[slot], VMIBUS_REASON_WITHDRAWN);
    if (bus->endpoints)
        endpoint_free(bus->endpoints[0], VMIBUS_REASON_NONE);
    assert(bus->n_present == 0 && bus->n_leases == 0 && bus->n_held == 0);
    command_table_deinit(&bus->commands);
    watch_table_deinit(&bus->watches);
    pool_deinit(&bus->deliveries);
    pool_deinit(&bus->regions);
    event_pool_deinit(&bus->events);
    account_unref(bus->account);
    free(bus->endpoints);
    free(bus);
    return NULL;
}

/* Leases whose class the holder may not have any more end with the policy that allowed them. */
static void revoke_ungranted(struct bus *bus) {
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        for (unsigned i = 0; endpoint && i < LEASE_CLASSES; i++) {
            struct lease *lease = &endpoint->leases[i];
            const struct binding *binding;

            if (lease->state != VMIBUS_LEASE_STATE_HELD)
                continue;
            binding = control_binding(lease->holder, slot, endpoint->generation);
            if (!binding || !(binding->grant.capabilities & policy_lease_capabilities(lease->lease_class)))
                lease_revoke(lease, VMIBUS_REASON_NO_CAPABILITY);
        }
    }
}

void bus_set_policy(struct bus *bus, const struct policy *policy) {
    struct control *control;

    bus->policy = policy;
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            watch_revoke_ungranted(bus->endpoints[slot]);
    list_for_each(control, &bus->controls, link) {
        struct account *account;

        /* The same account with the limits of the new policy. */
        if (ledger_ref_account(bus->ledger, control->principal.uid, policy->limits, &account) == 0)
            account_unref(account);
        control_renew_grants(control);
        if (!control->grant.capabilities)
            control_fail(control, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT, 0);
    }
    revoke_ungranted(bus);
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            hold_revoke_ungranted(bus->endpoints[slot]);
}

static void hear_fence_drained(struct bus *bus, const struct vmibus_frame *frame) {
    struct endpoint *endpoint = bus_endpoint(bus, frame->header.slot, frame->header.generation);

    if (endpoint)
        lease_fence_drained(&endpoint->leases[VMIBUS_LEASE_CLASS_MEMWRITE - 1], frame->fence_drained.token);
}

/* An authority that comes again tells all there is, what is known already too. */
static bool is_retained_already(const struct endpoint *endpoint, const struct vmibus_frame *frame, const void *tail) {
    const struct retained *retained = &endpoint->retained[RETAINED_MEMCTX];

    return retained->present && retained->frame.header.kind == frame->header.kind &&
           memcmp(retained->frame.body, frame->body, sizeof(frame->body)) == 0 &&
           retained->frame.header.tail_length == frame->header.tail_length &&
           (!frame->header.tail_length || (retained->tail && memcmp(retained->tail->data, tail, frame->header.tail_length) == 0));
}

void bus_hear_link(struct bus *bus, const struct vmibus_frame *frame, const void *tail) {
    struct endpoint *endpoint = bus_endpoint(bus, frame->header.slot, frame->header.generation);
    struct vmibus_frame event = *frame;

    switch (frame->header.kind) {
    case VMIBUS_KIND_FENCE_DRAINED:
        hear_fence_drained(bus, frame);
        break;
    case VMIBUS_KIND_MEMCTX:
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        event.header.flags = 0;
        if (endpoint && !(frame->header.flags & VMIBUS_FRAME_RETAINED && is_retained_already(endpoint, frame, tail)))
            endpoint_publish(endpoint, &event, tail);
        if (endpoint && frame->header.kind == VMIBUS_KIND_MEMCTX_INVALIDATED)
            watch_end_epoch(endpoint, frame->memctx_invalidated.epoch);
        break;
    case VMIBUS_KIND_QUIESCE_BEGIN:
    case VMIBUS_KIND_QUIESCE_END:
        if (endpoint)
            hold_hear_link(endpoint, frame);
        break;
    case VMIBUS_KIND_SESSION_LOST:
        bus_hear_session_lost(bus, &frame->session_lost);
        break;
    default:
        break;
    }
}

void bus_tell_link(struct bus *bus, const struct endpoint *endpoint, struct vmibus_frame *frame, const void *tail) {
    if (!bus->options.link)
        return;
    frame->header.direction = VMIBUS_DIRECTION_DOWN;
    frame->header.version = VMIBUS_PROTOCOL_VERSION;
    if (endpoint) {
        frame->header.slot = endpoint->slot;
        frame->header.generation = endpoint->generation;
    }
    bus->options.link(bus->options.link_context, frame, tail);
}

struct endpoint *bus_endpoint(const struct bus *bus, uint32_t slot, uint64_t generation) {
    struct endpoint *endpoint = slot && slot <= bus->n_endpoints ? bus->endpoints[slot] : NULL;

    return endpoint && endpoint->generation == generation ? endpoint : NULL;
}

bool bus_has_token(const struct bus *bus) {
    return bus->last_token < UINT32_MAX;
}

uint64_t bus_next_token(struct bus *bus) {
    assert(bus_has_token(bus));
    return (uint64_t)bus->options.incarnation << 32 | ++bus->last_token;
}

bool bus_has_generation(const struct bus *bus) {
    return bus->last_generation < UINT32_MAX;
}

uint64_t bus_next_generation(struct bus *bus) {
    assert(bus_has_generation(bus));
    return (uint64_t)bus->options.incarnation << 32 | ++bus->last_generation;
}
