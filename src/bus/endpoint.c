/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/endpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/binding.h"
#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/control.h"
#include "bus/sensor.h"
#include "bus/watch.h"
#include "util/clock.h"

/* --- identity ---------------------------------------------------------------------------------- */

static uint32_t free_slot(struct bus *bus) {
    for (uint32_t i = 1; i <= bus->n_endpoints; i++) {
        uint32_t slot = (bus->last_slot + i - 1) % bus->n_endpoints + 1;

        if (!bus->endpoints[slot])
            return slot;
    }
    return 0;
}

void endpoint_set_introducer(struct endpoint *endpoint, const struct sensor *sensor) {
    endpoint->introducer = sensor;
    if (sensor)
        memcpy(endpoint->introduced_by, sensor->name, sizeof(endpoint->introduced_by));
}

const uint8_t *endpoint_granted_uuid(const struct endpoint *endpoint) {
    static const uint8_t unset[16];

    return endpoint->uuid_doubted ? unset : endpoint->uuid;
}

/* --- providers --------------------------------------------------------------------------------- */

uint32_t endpoint_groups(const struct endpoint *endpoint) {
    const struct provider *provider;
    uint32_t groups = claims_groups(endpoint);

    list_for_each(provider, &endpoint->providers, endpoint_link)
        groups |= provider->groups;
    return groups;
}

bool endpoint_has_provider(const struct endpoint *endpoint, const struct sensor *sensor) {
    const struct provider *provider;

    list_for_each(provider, &endpoint->providers, endpoint_link)
        if (provider->sensor == sensor)
            return true;
    return false;
}

struct sensor *endpoint_provider(const struct endpoint *endpoint, uint32_t group) {
    const struct provider *provider = endpoint->active[__builtin_ctz(group)];

    return provider ? provider->sensor : NULL;
}

/* --- publishing -------------------------------------------------------------------------------- */

void endpoint_number(struct endpoint *endpoint, struct vmibus_frame *frame) {
    frame->header.direction = VMIBUS_DIRECTION_UP;
    frame->header.version = VMIBUS_PROTOCOL_VERSION;
    frame->header.slot = endpoint->slot;
    frame->header.generation = endpoint->generation;
    frame->header.publication = ++endpoint->publication;
    frame->header.delivery = 0;
    frame->header.fd_count = 0;
    frame->header.deadline_us = 0;
    if (!frame->header.timestamp)
        frame->header.timestamp = clock_now();
}

/* The memctx that ended must not reach anybody who has not seen it yet. */
static void withdraw_memctx(struct endpoint *endpoint, const struct vmibus_frame *frame) {
    struct event *event = endpoint->memctx_event;

    if (frame->header.kind != VMIBUS_KIND_MEMCTX_INVALIDATED || !event)
        return;
    if (event->frame.memctx.epoch == frame->memctx_invalidated.epoch)
        event->withdrawn = true;
    endpoint->memctx_event = event_unref(event);
}

static void fan_out(struct endpoint *endpoint, struct event *event) {
    uint64_t kind = VMIBUS_KIND_BIT(event->frame.header.kind);
    struct binding *binding, *following;

    list_for_each_safe(binding, following, &endpoint->subscribers, subscriber_link)
        if (binding->kinds & kind)
            binding_deliver(binding, event);
}

/* There is no room for one more event: everybody is told of the gap, and retained state follows by replay. */
static void fan_out_gap(struct endpoint *endpoint, const struct vmibus_frame *frame) {
    uint64_t kind = VMIBUS_KIND_BIT(frame->header.kind);
    struct binding *binding;

    list_for_each(binding, &endpoint->subscribers, subscriber_link)
        if (binding->kinds & kind)
            binding_drop(binding, frame);
}

/* NULL: there is no room, or was none for the tail. */
static struct event *live_event(struct bus *bus, const struct vmibus_frame *frame, const void *tail) {
    uint32_t length = frame->header.tail_length;
    struct event *event = length && !tail ? NULL : event_new(&bus->events, EVENT_LIVE, frame);

    return event && length && event_set_tail(event, NULL, tail, length) ? event_unref(event) : event;
}

void endpoint_publish_to(struct endpoint *endpoint, struct binding *binding, struct vmibus_frame *frame, const void *tail) {
    struct event *event;

    if (!binding)
        return;
    endpoint_number(endpoint, frame);
    endpoint->bus->counters.published++;
    event = live_event(endpoint->bus, frame, tail);
    if (event)
        binding_deliver(binding, event);
    else
        binding_drop(binding, frame);
    event_unref(event);
}

void endpoint_publish(struct endpoint *endpoint, struct vmibus_frame *frame, const void *tail) {
    struct bus *bus = endpoint->bus;
    int retained = retained_kind_of(frame);
    struct event *event;

    endpoint_number(endpoint, frame);
    if (retained >= 0)
        frame->header.priority = VMIBUS_PRIORITY_NORMAL;
    bus->counters.published++;
    if (retained >= 0)
        retained_store(&endpoint->retained[retained], frame, tail);
    withdraw_memctx(endpoint, frame);
    event = live_event(bus, frame, tail);
    if (!event) {
        fan_out_gap(endpoint, frame);
        return;
    }
    fan_out(endpoint, event);
    if (frame->header.kind == VMIBUS_KIND_MEMCTX) {
        /* Only the last is remembered, so it supersedes the one before where that still waits. */
        if (endpoint->memctx_event)
            endpoint->memctx_event->withdrawn = true;
        event_unref(endpoint->memctx_event);
        endpoint->memctx_event = event_ref(event);
    }
    event_unref(event);
}

static struct vmibus_roster roster_of(const struct endpoint *endpoint, enum vmibus_roster_change change) {
    struct vmibus_roster roster = {
        .change = (uint8_t)change,
        .pid = endpoint->pid,
        .start_time = endpoint->start_time,
        .groups = endpoint_groups(endpoint),
    };

    providers_describe(endpoint, &roster);
    memcpy(roster.uuid, endpoint->uuid, sizeof(endpoint->uuid));
    return roster;
}

void endpoint_publish_roster(struct endpoint *endpoint, enum vmibus_roster_change change) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ROSTER, .tail_length = (uint32_t)strlen(endpoint->name)},
    };

    frame.roster = roster_of(endpoint, change);
    endpoint->announced = true;
    endpoint_publish(endpoint, &frame, endpoint->name);
}

bool endpoint_roster_is_current(const struct endpoint *endpoint) {
    const struct retained *told = &endpoint->retained[RETAINED_ROSTER];
    const struct vmibus_roster roster = roster_of(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);

    return told->present && memcmp(&told->frame.roster, &roster, sizeof(roster)) == 0;
}

static uint64_t demanded(const struct endpoint *endpoint) {
    const struct binding *binding;
    uint64_t demand = 0;

    list_for_each(binding, &endpoint->subscribers, subscriber_link)
        demand |= binding->kinds;
    return demand;
}

static void send_demand(const struct endpoint *endpoint, struct sensor *sensor) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_DEMAND,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = endpoint->slot,
                   .generation = endpoint->generation},
        .demand = {.kinds = endpoint->demand},
    };

    sensor->ops->send(sensor, &frame, NULL);
}

/* RESOURCES come from no sensor: whoever makes them learns of the first who wants any, and of the last. */
static void set_demand(struct endpoint *endpoint, uint64_t demand) {
    struct bus *bus = endpoint->bus;
    bool was = endpoint->demand & VMIBUS_KIND_BIT(VMIBUS_KIND_RESOURCES);
    bool is = demand & VMIBUS_KIND_BIT(VMIBUS_KIND_RESOURCES);

    endpoint->demand = demand;
    if (was == is)
        return;
    bus->n_resources_wanted += is ? 1 : -1u;
    if (bus->options.resources_wanted && bus->n_resources_wanted == (is ? 1 : 0))
        bus->options.resources_wanted(bus->options.link_context, is);
}

void endpoint_tell_demand(struct endpoint *endpoint, struct sensor *sensor) {
    set_demand(endpoint, demanded(endpoint));
    if (endpoint->demand)
        send_demand(endpoint, sensor);
}

void endpoint_update_demand(struct endpoint *endpoint) {
    const struct provider *provider;
    uint64_t demand = demanded(endpoint);

    if (demand == endpoint->demand)
        return;
    set_demand(endpoint, demand);
    list_for_each(provider, &endpoint->providers, endpoint_link)
        send_demand(endpoint, provider->sensor);
}

/* --- coming and going -------------------------------------------------------------------------- */

static struct endpoint *endpoint_allocate(struct bus *bus, uint32_t slot) {
    struct endpoint *endpoint = calloc(1, sizeof(*endpoint));

    if (!endpoint)
        return NULL;
    endpoint->bus = bus;
    endpoint->slot = slot;
    list_init(&endpoint->bindings);
    list_init(&endpoint->subscribers);
    list_init(&endpoint->providers);
    list_init(&endpoint->claims);
    list_init(&endpoint->commands);
    list_init(&endpoint->watches);
    for (unsigned i = 0; i < LEASE_CLASSES; i++)
        lease_init(&endpoint->leases[i], endpoint, (enum vmibus_lease_class)(i + 1));
    holding_init(&endpoint->holding, endpoint);
    bus->endpoints[slot] = endpoint;
    return endpoint;
}

int endpoint_new_bus(struct endpoint **endpointp, struct bus *bus) {
    struct endpoint *endpoint = endpoint_allocate(bus, 0);

    if (!endpoint)
        return -ENOMEM;
    *endpointp = endpoint;
    return 0;
}

void endpoint_tell_opened(struct endpoint *endpoint) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_OPENED, .tail_length = (uint32_t)strlen(endpoint->name)},
    };

    memcpy(frame.endpoint_opened.uuid, endpoint_granted_uuid(endpoint), sizeof(endpoint->uuid));
    bus_tell_link(endpoint->bus, endpoint, &frame, endpoint->name);
    providers_tell_authority(endpoint);
}

int endpoint_new(struct endpoint **endpointp, struct bus *bus, const struct endpoint_identity *identity, struct sensor *sensor,
                 uint32_t groups, uint64_t offer) {
    struct endpoint *endpoint;
    struct control *control;
    uint32_t slot = free_slot(bus);
    int r;

    if (!slot || !bus_has_generation(bus))
        return VMIBUS_ERROR_PRESSURE;
    endpoint = endpoint_allocate(bus, slot);
    if (!endpoint)
        return -ENOMEM;
    bus->last_slot = slot;
    bus->n_present++;
    endpoint->generation = bus_next_generation(bus);
    strncpy(endpoint->name, identity->name, VMIBUS_NAME_BOUND);
    memcpy(endpoint->uuid, identity->uuid, sizeof(endpoint->uuid));
    endpoint_set_introducer(endpoint, sensor);
    endpoint->pid = identity->pid;
    endpoint->start_time = identity->start_time;
    r = charge_take(&endpoint->charge, bus->account, RESOURCE_ENDPOINTS, 1);
    if (r) {
        endpoint_free(endpoint, VMIBUS_REASON_NONE);
        return VMIBUS_ERROR_PRESSURE;
    }
    endpoint_tell_opened(endpoint);
    r = provider_add(endpoint, sensor, groups, offer);
    if (r == 0)
        list_for_each(control, &bus->controls, link)
            control_bind_or_fail(control, endpoint);
    if (r < 0) {
        endpoint_free(endpoint, VMIBUS_REASON_NONE);
        return r;
    }
    endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
    *endpointp = endpoint;
    return 0;
}

int endpoint_take_over(struct endpoint **endpointp, struct bus *bus, uint32_t slot) {
    struct endpoint *endpoint = endpoint_allocate(bus, slot);
    int r;

    if (!endpoint)
        return -ENOMEM;
    bus->n_present++;
    endpoint->announced = true;
    *endpointp = endpoint;
    r = charge_take(&endpoint->charge, bus->account, RESOURCE_ENDPOINTS, 1);
    return r; /* it ends with the bus */
}

static struct event *removal_event(struct endpoint *endpoint, enum vmibus_reason reason) {
    struct event *event;
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ROSTER, .priority = VMIBUS_PRIORITY_NORMAL},
        .roster = {.change = VMIBUS_ROSTER_CHANGE_REMOVED,
                   .pid = endpoint->pid,
                   .start_time = endpoint->start_time,
                   .reason = (uint16_t)reason},
    };

    endpoint_number(endpoint, &frame);
    memcpy(frame.roster.uuid, endpoint->uuid, sizeof(endpoint->uuid));
    endpoint->bus->counters.published++;
    /* One block of those kept back for answers: a removal is never dropped. */
    event = event_new(&endpoint->bus->events, EVENT_ANSWER, &frame);
    if (event)
        (void)event_set_tail(event, NULL, endpoint->name, strlen(endpoint->name));
    return event;
}

static void end_binding(struct binding *binding, struct event *event) {
    if (event)
        binding_bid_farewell(binding, event);
    else
        binding_free(binding);
}

void endpoint_leave_control(struct endpoint *endpoint, struct binding *binding) {
    struct event *event = removal_event(endpoint, VMIBUS_REASON_NONE);

    end_binding(binding, event);
    event_unref(event);
    endpoint_update_demand(endpoint);
}

static void bid_farewell(struct endpoint *endpoint, enum vmibus_reason reason) {
    struct event *event = removal_event(endpoint, reason);
    struct binding *binding, *following;

    list_for_each_safe(binding, following, &endpoint->bindings, endpoint_link)
        end_binding(binding, event);
    event_unref(event);
}

struct endpoint *endpoint_free(struct endpoint *endpoint, enum vmibus_reason reason) {
    struct vmibus_frame closed = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_CLOSED},
        .endpoint_closed = {.reason = (uint16_t)reason},
    };
    struct bus *bus;

    if (!endpoint)
        return NULL;
    bus = endpoint->bus;
    if (endpoint->slot)
        bus_tell_link(bus, endpoint, &closed, NULL);
    endpoint->passing_on = true; /* nobody is chosen any more */
    /* Leases first, so that nobody in line is let in by a command that ends. */
    for (unsigned i = 0; i < LEASE_CLASSES; i++)
        lease_deinit(&endpoint->leases[i]);
    holding_deinit(&endpoint->holding);
    command_drop_endpoint(endpoint);
    watch_drop_endpoint(endpoint);
    if (endpoint->memctx_event)
        endpoint->memctx_event->withdrawn = true;
    bid_farewell(endpoint, reason);
    set_demand(endpoint, 0);
    while (!list_is_empty(&endpoint->providers))
        provider_free(list_first(&endpoint->providers, struct provider, endpoint_link));
    claims_drop(endpoint);
    for (unsigned i = 0; i < N_RETAINED; i++)
        retained_clear(&endpoint->retained[i]);
    event_unref(endpoint->memctx_event);
    assert(list_is_empty(&endpoint->commands) && list_is_empty(&endpoint->watches));
    charge_release(&endpoint->charge);
    bus->endpoints[endpoint->slot] = NULL;
    if (endpoint->slot)
        bus->n_present--;
    free(endpoint);
    return NULL;
}
