/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/binding.h"
#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/sensor.h"
#include "bus/subscription.h"
#include "bus/watch.h"
#include "util/clock.h"
#include "util/fds.h"

/* --- the format -------------------------------------------------------------------------------- */

/* Of each record its own numbers, never reused. */
enum {
    BUS_INCARNATION = 1,
    BUS_ENDPOINT = 2, /* also slot 0 */
    BUS_GENERATION = 3,
    BUS_TOKEN = 4,
    BUS_SLOT = 5,
    BUS_COUNTERS = 6,
};

enum {
    ENDPOINT_SLOT = 1,
    ENDPOINT_LEASE = 10,
    ENDPOINT_RETAINED = 11,
    ENDPOINT_CLAIM = 12,
    ENDPOINT_MEMCTX_EVENT = 13,
    ENDPOINT_HOLDING = 14,
};

enum {
    LEASE_TIMER = 20,
};

enum {
    CLAIM_SENSOR = 1,
    CLAIM_GROUPS = 2,
};

enum {
    EVENT_PLACE = 1,
    EVENT_FRAME = 2,
    EVENT_TAIL = 3,
    EVENT_FD = 4,
    EVENT_IS_LIVE = 5,
    EVENT_WITHDRAWN = 6,
    EVENT_TAIL_CHARGED = 7,
};

enum {
    CONTROL_SUBSCRIPTION = 1,
    CONTROL_BINDING = 2,
    CONTROL_LEASE = 3,
    CONTROL_WAITER = 4,
    CONTROL_HOLD = 5,
    CONTROL_WATCH = 6,
    CONTROL_COMMAND = 7,
    CONTROL_OUTBOX = 8,
};

enum {
    SUBSCRIPTION_PATTERN = 1,
    SUBSCRIPTION_KINDS = 2,
};

enum {
    OUTBOX_DELIVERY = 20,
    OUTBOX_PASSED = 21, /* of each lane, in order */
};

enum {
    DELIVERY_EVENT = 1,
    DELIVERY_KIND = 2,
};

enum delivery_kind {
    DELIVERY_OF_EVENT,
    DELIVERY_OF_ANSWER,
    DELIVERY_OF_FAREWELL,
};

enum {
    COMMAND_FRAME = 20,
    COMMAND_TAIL = 21,
};

static const struct handover_member endpoint_members[] = {
    HANDOVER_MEMBER(2, struct endpoint, generation),   HANDOVER_MEMBER(3, struct endpoint, name),
    HANDOVER_MEMBER(4, struct endpoint, uuid),         HANDOVER_MEMBER(5, struct endpoint, pid),
    HANDOVER_MEMBER(6, struct endpoint, start_time),   HANDOVER_MEMBER(7, struct endpoint, publication),
    HANDOVER_MEMBER(8, struct endpoint, announced),
    HANDOVER_MEMBER(15, struct endpoint, pressed),
};

static const struct handover_member lease_members[] = {
    HANDOVER_MEMBER(1, struct lease, lease_class),   HANDOVER_MEMBER(2, struct lease, state),
    HANDOVER_MEMBER(3, struct lease, reason),        HANDOVER_MEMBER(4, struct lease, token),
    HANDOVER_MEMBER(5, struct lease, expires),       HANDOVER_MEMBER(6, struct lease, holder_uid),
    HANDOVER_MEMBER(7, struct lease, holder_pid),    HANDOVER_MEMBER(8, struct lease, rank),
    HANDOVER_MEMBER(9, struct lease, fence_drains),  HANDOVER_MEMBER(10, struct lease, input_drains),
};

/* An endpoint as something of a control's names it, and what belongs there. */
struct place {
    uint32_t slot;
    uint64_t generation;
    uint32_t lease_class;
};

static const struct handover_member place_members[] = {
    HANDOVER_MEMBER(40, struct place, slot),
    HANDOVER_MEMBER(41, struct place, generation),
    HANDOVER_MEMBER(42, struct place, lease_class),
};

static const struct handover_member waiter_members[] = {
    HANDOVER_MEMBER(1, struct lease_waiter, header), HANDOVER_MEMBER(2, struct lease_waiter, received),
    HANDOVER_MEMBER(3, struct lease_waiter, audit),  HANDOVER_MEMBER(4, struct lease_waiter, ttl_ms),
    HANDOVER_MEMBER(5, struct lease_waiter, rank),   HANDOVER_MEMBER(6, struct lease_waiter, place),
};

static const struct handover_member hold_members[] = {
    HANDOVER_MEMBER(1, struct hold, still),    HANDOVER_MEMBER(2, struct hold, expires),
    HANDOVER_MEMBER(3, struct hold, header),   HANDOVER_MEMBER(4, struct hold, received),
    HANDOVER_MEMBER(5, struct hold, audit),    HANDOVER_MEMBER(6, struct hold, place),
};

static const struct handover_member watch_members[] = {
    HANDOVER_MEMBER(1, struct watch, number),
    HANDOVER_MEMBER(2, struct watch, state),
    HANDOVER_MEMBER(3, struct watch, request),
    HANDOVER_MEMBER(4, struct watch, epoch),
};

/* A binding, as far as it is not what the policy says anyway. */
struct binding_state {
    struct grant grant;
    uint64_t kinds, floor;
    uint32_t replay;    /* its place among those with something to be replayed, from 1; 0: nothing is */
    uint8_t stale;
    bool lossy, announced;
};

static const struct handover_member binding_members[] = {
    HANDOVER_MEMBER(1, struct binding_state, grant.capabilities), HANDOVER_MEMBER(2, struct binding_state, grant.rank),
    HANDOVER_MEMBER(3, struct binding_state, grant.lease_ttl_ms), HANDOVER_MEMBER(4, struct binding_state, kinds),
    HANDOVER_MEMBER(5, struct binding_state, floor),              HANDOVER_MEMBER(6, struct binding_state, replay),
    HANDOVER_MEMBER(7, struct binding_state, stale),              HANDOVER_MEMBER(8, struct binding_state, lossy),
    HANDOVER_MEMBER(9, struct binding_state, announced),
};

static const struct handover_member outbox_members[] = {
    HANDOVER_MEMBER(1, struct outbox, sequence), HANDOVER_MEMBER(2, struct outbox, head_waits),
    HANDOVER_MEMBER(3, struct outbox, gaps),     HANDOVER_MEMBER(4, struct outbox, gaps_due),
    HANDOVER_MEMBER(5, struct outbox, replay_owed), HANDOVER_MEMBER(6, struct outbox, dropped),
};

struct command_state {
    uint32_t group;
    uint32_t watch;     /* its number */
    uint64_t received, audit;
    bool leased;
};

static const struct handover_member command_members[] = {
    HANDOVER_MEMBER(1, struct command_state, group),    HANDOVER_MEMBER(2, struct command_state, watch),
    HANDOVER_MEMBER(3, struct command_state, received), HANDOVER_MEMBER(4, struct command_state, audit),
    HANDOVER_MEMBER(5, struct command_state, leased),
};

#define PUT(writer, table, object) handover_put_members((writer), (table), HANDOVER_N(table), (object))
#define TAKE(record, table, object) handover_take_member((record), (table), HANDOVER_N(table), (object))

/* --- settling ---------------------------------------------------------------------------------- */

void bus_settle_begin(struct bus *bus) {
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        if (endpoint && endpoint->holding.sensor && !endpoint->holding.sensor->keeps)
            hold_end_all(endpoint);
    }
}

bool bus_is_settled(const struct bus *bus) {
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++) {
        const struct endpoint *endpoint = bus->endpoints[slot];
        const struct command *command;

        if (!endpoint)
            continue;
        list_for_each(command, &endpoint->commands, endpoint_link)
            if (command->sensor)
                return false;
    }
    return true;
}

void bus_settle(struct bus *bus) {
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            command_end_all(bus->endpoints[slot]);
}

/* --- events, written --------------------------------------------------------------------------- */

static void put_fds(struct handover_writer *writer, const struct event_fds *fds) {
    for (size_t i = 0; fds && i < fds->n_fds; i++)
        handover_put_fd(writer, EVENT_FD, fds->fds[i]);
}

static void put_tail(struct handover_writer *writer, const struct tail *tail) {
    if (!tail)
        return;
    handover_put(writer, EVENT_TAIL, tail->data, tail->length);
    handover_put_number(writer, EVENT_TAIL_CHARGED, tail->charge.account != NULL);
}

static void put_event(struct bus_handover *handover, struct handover_writer *writer, uint16_t tag, struct event *event) {
    handover_begin(writer, tag);
    if (event->place) {
        handover_put_number(writer, EVENT_PLACE, event->place);
    } else {
        event->place = ++handover->n_places;
        handover_put(writer, EVENT_FRAME, &event->frame, sizeof(event->frame));
        put_tail(writer, event->tail);
        put_fds(writer, event->fds);
        handover_put_number(writer, EVENT_IS_LIVE, event->live);
        handover_put_number(writer, EVENT_WITHDRAWN, event->withdrawn);
    }
    handover_end(writer);
}

void control_item_handover_save(struct handover_writer *writer, const struct control_item *item) {
    handover_put(writer, EVENT_FRAME, &item->frame, sizeof(item->frame));
    put_tail(writer, item->tail);
    put_fds(writer, item->fds);
}

/* --- endpoints, written ------------------------------------------------------------------------ */

static void put_lease(struct handover_writer *writer, const struct lease *lease) {
    handover_begin(writer, ENDPOINT_LEASE);
    PUT(writer, lease_members, lease);
    if (loop_timer_is_armed(&lease->timer))
        handover_put_number(writer, LEASE_TIMER, lease->timer.deadline);
    handover_end(writer);
}

static void put_claim(struct handover_writer *writer, const char *sensor, uint32_t groups) {
    if (!groups)
        return;
    handover_begin(writer, ENDPOINT_CLAIM);
    handover_put(writer, CLAIM_SENSOR, sensor, strlen(sensor));
    handover_put_number(writer, CLAIM_GROUPS, groups);
    handover_end(writer);
}

static void put_endpoint(struct bus_handover *handover, struct handover_writer *writer, const struct endpoint *endpoint) {
    const struct provider *provider;
    const struct claim *claim;

    handover_begin(writer, BUS_ENDPOINT);
    handover_put_number(writer, ENDPOINT_SLOT, endpoint->slot);
    PUT(writer, endpoint_members, endpoint);
    for (unsigned i = 0; endpoint->slot && i < LEASE_CLASSES; i++)
        put_lease(writer, &endpoint->leases[i]);
    for (unsigned i = 0; i < N_RETAINED; i++)
        if (endpoint->retained[i].present) {
            handover_begin(writer, ENDPOINT_RETAINED);
            handover_put(writer, EVENT_FRAME, &endpoint->retained[i].frame, sizeof(struct vmibus_frame));
            put_tail(writer, endpoint->retained[i].tail);
            handover_end(writer);
        }
    list_for_each(provider, &endpoint->providers, endpoint_link)
        put_claim(writer, provider->sensor->name, provider->groups);
    list_for_each(claim, &endpoint->claims, link)
        put_claim(writer, claim->sensor, claim->groups);
    if (endpoint->memctx_event)
        put_event(handover, writer, ENDPOINT_MEMCTX_EVENT, endpoint->memctx_event);
    handover_put_number(writer, ENDPOINT_HOLDING, endpoint->holding.state);
    handover_end(writer);
}

static void forget_places(const struct bus *bus) {
    const struct control *control;

    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot] && bus->endpoints[slot]->memctx_event)
            bus->endpoints[slot]->memctx_event->place = 0;
    list_for_each(control, &bus->controls, link)
        for (size_t i = 0; i < OUTBOX_LANES; i++)
            for (const struct delivery *delivery = control->outbox.lanes[i].first; delivery; delivery = delivery->next)
                delivery->event->place = 0;
}

/* Their order in line, which each control's own record tells. */
static void number_lines(struct bus *bus) {
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];
        struct lease_waiter *waiter;
        struct hold *hold;
        uint64_t place = 0;

        if (!endpoint)
            continue;
        for (unsigned i = 0; i < LEASE_CLASSES; i++)
            list_for_each(waiter, &endpoint->leases[i].waiters, lease_link)
                waiter->place = ++place;
        list_for_each(hold, &endpoint->holding.holds, link)
            hold->place = ++place;
    }
}

void bus_handover_save(struct bus_handover *handover, struct handover_writer *writer) {
    struct bus *bus = handover->bus;

    forget_places(bus);
    number_lines(bus);
    handover_put_number(writer, BUS_INCARNATION, bus->options.incarnation);
    handover_put_number(writer, BUS_GENERATION, bus->last_generation);
    handover_put_number(writer, BUS_TOKEN, bus->last_token);
    handover_put_number(writer, BUS_SLOT, bus->last_slot);
    handover_put(writer, BUS_COUNTERS, &bus->counters, sizeof(bus->counters));
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            put_endpoint(handover, writer, bus->endpoints[slot]);
}

/* --- controls, written ------------------------------------------------------------------------- */

static void put_place(struct handover_writer *writer, const struct endpoint *endpoint, uint32_t lease_class) {
    const struct place place = {.slot = endpoint->slot, .generation = endpoint->generation, .lease_class = lease_class};

    PUT(writer, place_members, &place);
}

static void put_subscriptions(struct handover_writer *writer, const struct control *control) {
    const struct subscription *subscription;

    list_for_each(subscription, &control->subscriptions, link) {
        handover_begin(writer, CONTROL_SUBSCRIPTION);
        handover_put(writer, SUBSCRIPTION_PATTERN, subscription->pattern, strlen(subscription->pattern));
        handover_put_number(writer, SUBSCRIPTION_KINDS, subscription->kinds);
        handover_end(writer);
    }
}

static uint32_t replay_place(const struct control *control, const struct binding *binding) {
    const struct binding *other;
    uint32_t place = 0;

    list_for_each(other, &control->outbox.replays, replay_link) {
        place++;
        if (other == binding)
            return place;
    }
    return 0;
}

static void put_bindings(struct handover_writer *writer, const struct control *control) {
    for (uint32_t slot = 0; slot <= control->bus->n_endpoints; slot++) {
        const struct binding *binding = control_binding_in(control, slot);
        struct binding_state state;

        if (!binding)
            continue;
        state = (struct binding_state){
            .grant = binding->grant,
            .kinds = binding->kinds,
            .floor = binding->floor,
            .replay = replay_place(control, binding),
            .stale = binding->stale,
            .lossy = binding->lossy,
            .announced = binding->announced,
        };
        handover_begin(writer, CONTROL_BINDING);
        put_place(writer, binding->endpoint, 0);
        PUT(writer, binding_members, &state);
        handover_end(writer);
    }
}

static void put_leases(struct handover_writer *writer, const struct control *control) {
    const struct lease_waiter *waiter;
    const struct lease *lease;

    list_for_each(lease, &control->leases, holder_link) {
        handover_begin(writer, CONTROL_LEASE);
        put_place(writer, lease->endpoint, lease->lease_class);
        handover_end(writer);
    }
    list_for_each(waiter, &control->waiters, control_link) {
        handover_begin(writer, CONTROL_WAITER);
        put_place(writer, waiter->lease->endpoint, waiter->lease->lease_class);
        PUT(writer, waiter_members, waiter);
        handover_end(writer);
    }
}

static void put_holds(struct handover_writer *writer, const struct control *control) {
    const struct hold *hold;

    list_for_each(hold, &control->holds, control_link) {
        handover_begin(writer, CONTROL_HOLD);
        put_place(writer, hold->endpoint, 0);
        PUT(writer, hold_members, hold);
        handover_end(writer);
    }
}

static void put_watches(struct handover_writer *writer, const struct control *control) {
    const struct watch *watch;

    list_for_each(watch, &control->watches, control_link) {
        handover_begin(writer, CONTROL_WATCH);
        put_place(writer, watch->endpoint, 0);
        PUT(writer, watch_members, watch);
        handover_end(writer);
    }
}

static void put_commands(struct handover_writer *writer, const struct control *control) {
    const struct command *command;

    list_for_each(command, &control->commands, control_link) {
        const struct command_state state = {
            .group = command->group,
            .watch = command->watch ? command->watch->number : 0,
            .received = command->received,
            .audit = command->audit,
            .leased = command->lease != NULL,
        };

        if (command->sensor)
            continue;
        handover_begin(writer, CONTROL_COMMAND);
        put_place(writer, command->endpoint, command->lease ? command->lease->lease_class : 0);
        PUT(writer, command_members, &state);
        handover_put(writer, COMMAND_FRAME, &command->frame, sizeof(command->frame));
        if (command->tail)
            handover_put(writer, COMMAND_TAIL, command->tail->data, command->tail->length);
        handover_end(writer);
    }
}

static void put_outbox(struct bus_handover *handover, struct handover_writer *writer, const struct outbox *outbox) {
    uint32_t passed[OUTBOX_LANES];

    handover_begin(writer, CONTROL_OUTBOX);
    PUT(writer, outbox_members, outbox);
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        passed[i] = outbox->lanes[i].passed;
    handover_put(writer, OUTBOX_PASSED, passed, sizeof(passed));
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        for (const struct delivery *delivery = outbox->lanes[i].first; delivery; delivery = delivery->next) {
            handover_begin(writer, OUTBOX_DELIVERY);
            put_event(handover, writer, DELIVERY_EVENT, delivery->event);
            handover_put_number(writer, DELIVERY_KIND,
                                delivery->farewell ? DELIVERY_OF_FAREWELL
                                : delivery->answer ? DELIVERY_OF_ANSWER
                                                   : DELIVERY_OF_EVENT);
            handover_end(writer);
        }
    handover_end(writer);
}

void control_handover_save(struct bus_handover *handover, struct handover_writer *writer, const struct control *control) {
    put_subscriptions(writer, control);
    put_bindings(writer, control);
    put_leases(writer, control);
    put_holds(writer, control);
    put_watches(writer, control);
    put_commands(writer, control);
    put_outbox(handover, writer, &control->outbox);
}

/* --- either side ------------------------------------------------------------------------------- */

void bus_handover_init(struct bus_handover *handover, struct bus *bus) {
    *handover = (struct bus_handover){.bus = bus};
}

void bus_handover_deinit(struct bus_handover *handover) {
    for (size_t i = 0; i < handover->n_events; i++)
        event_unref(handover->events[i]);
    free(handover->events);
    *handover = (struct bus_handover){};
}

/* --- events, read ------------------------------------------------------------------------------ */

/* What is read of an event, or of a frame on its way out. */
struct parts {
    struct vmibus_frame frame;
    const uint8_t *tail;
    size_t tail_length;
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n_fds;
    uint64_t place;
    bool is_live, withdrawn, tail_charged;
};

static bool take_fd(const struct handover_record *record, struct parts *parts) {
    int fd;

    if (parts->n_fds == VMIBUS_FDS_PER_FRAME)
        return handover_wrong(record->handover, -EBADMSG);
    fd = handover_take_fd(record);
    if (fd >= 0)
        parts->fds[parts->n_fds++] = fd;
    return fd >= 0;
}

/* What indexes anything is checked here. */
static bool is_sound(const struct parts *parts, uint32_t tail_bound) {
    const struct vmibus_frame *frame = &parts->frame;

    if (frame->header.priority > VMIBUS_PRIORITY_URGENT || parts->tail_length > tail_bound ||
        frame->header.tail_length != parts->tail_length || frame->header.fd_count != parts->n_fds)
        return false;
    return frame->header.kind != VMIBUS_KIND_LEASE ||
           (frame->lease.lease_class >= VMIBUS_LEASE_CLASS_INPUT && frame->lease.lease_class < VMIBUS_LEASE_CLASS_INPUT + LEASE_CLASSES);
}

/* Descriptors that were taken are the caller's, also if this fails. */
static bool take_parts(struct handover_records records, uint32_t tail_bound, struct parts *parts) {
    struct handover *whole = records.handover;
    struct handover_record record;

    *parts = (struct parts){};
    while (handover_next(&records, &record))
        switch (record.tag) {
        case EVENT_FRAME:
            handover_copy(&record, &parts->frame, sizeof(parts->frame));
            break;
        case EVENT_TAIL:
            parts->tail = record.octets;
            parts->tail_length = record.length;
            break;
        case EVENT_FD:
            take_fd(&record, parts);
            break;
        case EVENT_PLACE:
            parts->place = handover_number(&record);
            break;
        case EVENT_IS_LIVE:
            parts->is_live = handover_number(&record);
            break;
        case EVENT_WITHDRAWN:
            parts->withdrawn = handover_number(&record);
            break;
        case EVENT_TAIL_CHARGED:
            parts->tail_charged = handover_number(&record);
            break;
        default:
            break;
        }
    if (!whole->error && !parts->place && !is_sound(parts, tail_bound))
        handover_wrong(whole, -EBADMSG);
    return !whole->error;
}

/* Without room for what was there before nothing can go on as it was. */
static int outcome(int r) {
    return r < 0 ? r : r > 0 ? -ENOBUFS : 0;
}

static struct event *event_from(struct bus *bus, struct account *account, const struct parts *parts, struct handover *whole) {
    struct event *event = event_new(&bus->events, parts->is_live ? EVENT_LIVE : EVENT_ANSWER, &parts->frame);
    int r = event ? 0 : -ENOBUFS;

    if (r == 0)
        r = outcome(event_set_tail(event, parts->tail_charged ? account : NULL, parts->tail, parts->tail_length));
    if (r == 0 && parts->n_fds && !account)
        r = -EBADMSG;
    if (r == 0)
        r = outcome(event_dup_fds(event, account, parts->fds, parts->n_fds));
    if (r < 0) {
        handover_wrong(whole, r);
        return event_unref(event);
    }
    event->withdrawn = parts->withdrawn;
    return event;
}

static bool remember(struct bus_handover *handover, struct event *event) {
    if (handover->n_events == handover->events_capacity) {
        size_t capacity = 2 * handover->events_capacity + 64;
        struct event **events = reallocarray(handover->events, capacity, sizeof(*events));

        if (!events)
            return false;
        handover->events = events;
        handover->events_capacity = capacity;
    }
    handover->events[handover->n_events++] = event;
    return true;
}

/* Borrowed from the handover. NULL: something was wrong. */
static struct event *take_event(struct bus_handover *handover, const struct handover_record *record, struct account *account) {
    struct handover *whole = record->handover;
    struct event *event = NULL;
    struct parts parts;

    if (take_parts(handover_in(record), handover->bus->options.tail_bound, &parts) && !parts.place) {
        event = event_from(handover->bus, account, &parts, whole);
        if (event && !remember(handover, event)) {
            event = event_unref(event);
            handover_wrong(whole, -ENOMEM);
        }
    } else if (!whole->error && parts.place <= handover->n_events) {
        event = handover->events[parts.place - 1];
    } else {
        handover_wrong(whole, -EBADMSG);
    }
    fds_close(parts.fds, parts.n_fds);
    return event;
}

bool control_item_handover_restore(struct control *control, struct control_item *item, struct handover_records records) {
    struct handover *whole = records.handover;
    struct event *event = NULL;
    struct parts parts;

    *item = (struct control_item){};
    if (take_parts(records, control->bus->options.tail_bound, &parts) && !parts.place)
        event = event_from(control->bus, control->account, &parts, whole);
    else
        handover_wrong(whole, -EBADMSG);
    fds_close(parts.fds, parts.n_fds);
    if (!event)
        return false;
    item->frame = event->frame;
    item->tail = tail_ref(event->tail);
    item->fds = event->fds;
    event->fds = NULL;
    event_unref(event);
    return true;
}

/* --- endpoints, read --------------------------------------------------------------------------- */

/* A number of this incarnation, given out already. */
static bool was_given(const struct bus *bus, uint64_t number, uint32_t last) {
    return number >> 32 == bus->options.incarnation && (uint32_t)number != 0 && (uint32_t)number <= last;
}

static bool take_lease(struct endpoint *endpoint, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct lease state = {};
    struct handover_record member;
    struct lease *lease;
    uint64_t timer = 0;

    while (handover_next(&records, &member))
        if (member.tag == LEASE_TIMER)
            timer = handover_number(&member);
        else
            (void)TAKE(&member, lease_members, &state);
    if (record->handover->error)
        return false;
    if (state.lease_class < 1 || state.lease_class > LEASE_CLASSES || state.state > VMIBUS_LEASE_STATE_OUT_OF_SERVICE ||
        (state.token && !was_given(endpoint->bus, state.token, endpoint->bus->last_token)) ||
        (state.state == VMIBUS_LEASE_STATE_HELD && !state.token))
        return handover_wrong(record->handover, -EBADMSG);
    lease = &endpoint->leases[state.lease_class - 1];
    lease->state = state.state;
    lease->reason = state.reason;
    lease->token = state.token;
    lease->expires = state.expires;
    lease->holder_uid = state.holder_uid;
    lease->holder_pid = state.holder_pid;
    lease->rank = state.rank;
    lease->fence_drains = state.fence_drains;
    lease->input_drains = state.input_drains;
    lease->timer.deadline = timer; /* not armed yet: lease_go_on() */
    return true;
}

static bool take_retained(struct bus_handover *handover, struct endpoint *endpoint, const struct handover_record *record) {
    struct parts parts;
    int kind;

    if (!take_parts(handover_in(record), handover->bus->options.tail_bound, &parts)) {
        fds_close(parts.fds, parts.n_fds);
        return false;
    }
    fds_close(parts.fds, parts.n_fds);
    kind = retained_kind_of(&parts.frame);
    if (kind < 0 || parts.n_fds || parts.frame.header.slot != endpoint->slot || parts.frame.header.generation != endpoint->generation)
        return handover_wrong(record->handover, -EBADMSG);
    retained_store(&endpoint->retained[kind], &parts.frame, parts.tail);
    return endpoint->retained[kind].present || handover_wrong(record->handover, -ENOMEM);
}

static bool take_claim(struct endpoint *endpoint, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    uint32_t groups = 0;
    char sensor[32] = "";

    while (handover_next(&records, &member))
        if (member.tag == CLAIM_SENSOR)
            handover_copy(&member, sensor, sizeof(sensor) - 1);
        else if (member.tag == CLAIM_GROUPS)
            groups = (uint32_t)handover_number_below(&member, UINT32_MAX);
    if (record->handover->error)
        return false;
    return claim_new(endpoint, sensor, groups) == 0 || handover_wrong(record->handover, -ENOMEM);
}

/* Of slot and generation. NULL: something was wrong, or there is no room. */
static struct endpoint *endpoint_from(struct bus *bus, const struct handover_record *record) {
    struct handover_record slot, generation;
    struct endpoint *endpoint = NULL;
    uint64_t number;
    int r;

    if (!handover_find(handover_in(record), ENDPOINT_SLOT, &slot))
        return record->handover->error ? NULL : bus->endpoints[0];
    number = handover_number(&slot);
    if (number == 0 || number > bus->n_endpoints || bus->endpoints[number] ||
        !handover_find(handover_in(record), endpoint_members[0].tag, &generation) ||
        !was_given(bus, handover_number(&generation), bus->last_generation)) {
        handover_wrong(record->handover, number > bus->n_endpoints ? -ENOSPC : -EBADMSG);
        return NULL;
    }
    r = endpoint_take_over(&endpoint, bus, (uint32_t)number);
    if (r) {
        handover_wrong(record->handover, outcome(r));
        return NULL;
    }
    return endpoint;
}

static bool is_complete(const struct endpoint *endpoint, struct handover *whole) {
    if (whole->error)
        return false;
    if (endpoint->slot && (!endpoint->name[0] || endpoint->name[sizeof(endpoint->name) - 1] || list_is_empty(&endpoint->claims)))
        return handover_wrong(whole, -EBADMSG);
    return true;
}

/* The members first: what comes after is checked against them. */
static bool take_endpoint(struct bus_handover *handover, const struct handover_record *record) {
    struct endpoint *endpoint = endpoint_from(handover->bus, record);
    struct handover_records records = handover_in(record);
    struct handover_record member;

    if (!endpoint)
        return false;
    while (handover_next(&records, &member))
        (void)TAKE(&member, endpoint_members, endpoint);
    records = handover_in(record);
    while (handover_next(&records, &member))
        switch (member.tag) {
        case ENDPOINT_LEASE:
            take_lease(endpoint, &member);
            break;
        case ENDPOINT_RETAINED:
            take_retained(handover, endpoint, &member);
            break;
        case ENDPOINT_CLAIM:
            take_claim(endpoint, &member);
            break;
        case ENDPOINT_MEMCTX_EVENT:
            event_unref(endpoint->memctx_event);
            endpoint->memctx_event = take_event(handover, &member, NULL);
            if (endpoint->memctx_event)
                event_ref(endpoint->memctx_event);
            break;
        case ENDPOINT_HOLDING:
            hold_take_over_state(&endpoint->holding, (enum holding_state)handover_number_below(&member, HOLDING_ENDING));
            break;
        default:
            break;
        }
    return is_complete(endpoint, record->handover);
}

uint32_t bus_handover_incarnation(struct handover_records records) {
    struct handover_record record;

    return handover_find(records, BUS_INCARNATION, &record) ? (uint32_t)handover_number_below(&record, UINT32_MAX) : 0;
}

bool bus_handover_restore(struct bus_handover *handover, struct handover_records records) {
    struct handover_records again = records;
    struct bus *bus = handover->bus;
    struct handover_record record;

    if (bus_handover_incarnation(records) != bus->options.incarnation)
        return handover_wrong(records.handover, -EBADMSG);
    while (handover_next(&records, &record))
        switch (record.tag) {
        case BUS_GENERATION:
            bus->last_generation = (uint32_t)handover_number_below(&record, UINT32_MAX);
            break;
        case BUS_TOKEN:
            bus->last_token = (uint32_t)handover_number_below(&record, UINT32_MAX);
            break;
        case BUS_SLOT:
            bus->last_slot = (uint32_t)handover_number_below(&record, bus->n_endpoints);
            break;
        case BUS_COUNTERS:
            handover_copy(&record, &bus->counters, sizeof(bus->counters));
            break;
        default:
            break;
        }
    while (handover_next(&again, &record))
        if (record.tag == BUS_ENDPOINT && !take_endpoint(handover, &record))
            return handover_wrong(record.handover, -EBADMSG);
    return !records.handover->error;
}

/* --- controls, read ---------------------------------------------------------------------------- */

/* The endpoint that a record names. NULL: something was wrong. */
static struct endpoint *take_place(const struct bus_handover *handover, const struct handover_record *record, struct place *place) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct endpoint *endpoint;

    *place = (struct place){};
    while (handover_next(&records, &member))
        (void)TAKE(&member, place_members, place);
    if (record->handover->error)
        return NULL;
    endpoint = place->slot ? bus_endpoint(handover->bus, place->slot, place->generation) : handover->bus->endpoints[0];
    if (!endpoint || place->lease_class > LEASE_CLASSES || (place->lease_class && !place->slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return NULL;
    }
    return endpoint;
}

static void take_subscription(struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member, pattern = {};
    struct vmibus_ack refusal = {};
    uint64_t kinds = 0;

    while (handover_next(&records, &member))
        if (member.tag == SUBSCRIPTION_PATTERN)
            pattern = member;
        else if (member.tag == SUBSCRIPTION_KINDS)
            kinds = handover_number(&member);
    if (record->handover->error)
        return;
    if (!pattern.length || pattern.length > VMIBUS_NAME_BOUND || memchr(pattern.octets, '\0', pattern.length) || !kinds)
        handover_wrong(record->handover, -EBADMSG);
    else if (subscription_set(control, (const char *)pattern.octets, pattern.length, kinds, &refusal))
        handover_wrong(record->handover, -ENOBUFS);
}

static void take_binding(struct bus_handover *handover, struct control *control, const struct handover_record *record,
                         uint32_t *replay) {
    struct handover_records records = handover_in(record);
    struct binding_state state = {};
    struct handover_record member;
    struct binding *binding;
    struct place place;
    struct endpoint *endpoint = take_place(handover, record, &place);
    int r;

    while (handover_next(&records, &member))
        (void)TAKE(&member, binding_members, &state);
    if (!endpoint || record->handover->error)
        return;
    if (control_binding_in(control, place.slot) || !state.grant.capabilities || state.stale >> N_RETAINED) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = binding_new(&binding, control, endpoint, state.grant);
    if (r) {
        handover_wrong(record->handover, outcome(r));
        return;
    }
    subscription_match(control, endpoint);
    binding->floor = state.floor;
    binding->lossy = state.lossy;
    binding->announced = state.announced;
    binding_take_over(binding, state.kinds, state.stale);
    *replay = state.replay;
}

static void take_waiter(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct lease_waiter waiter = {};
    struct handover_record member;
    struct place place;
    struct endpoint *endpoint = take_place(handover, record, &place);
    int r;

    while (handover_next(&records, &member))
        (void)TAKE(&member, waiter_members, &waiter);
    if (!endpoint || record->handover->error)
        return;
    if (!place.lease_class || !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = lease_take_over_waiter(&endpoint->leases[place.lease_class - 1], control, &waiter);
    if (r)
        handover_wrong(record->handover, outcome(r));
}

static void take_held_lease(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct place place;
    struct endpoint *endpoint = take_place(handover, record, &place);
    struct lease *lease;
    int r;

    if (!endpoint)
        return;
    lease = place.lease_class ? &endpoint->leases[place.lease_class - 1] : NULL;
    if (!lease || lease->state != VMIBUS_LEASE_STATE_HELD || lease->holder || lease->holder_uid != control->principal.uid ||
        !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = lease_take_over_holder(lease, control);
    if (r)
        handover_wrong(record->handover, outcome(r));
}

static void take_hold(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct hold hold = {};
    struct place place;
    int r;

    hold.endpoint = take_place(handover, record, &place);
    while (handover_next(&records, &member))
        (void)TAKE(&member, hold_members, &hold);
    if (!hold.endpoint || record->handover->error)
        return;
    if (!place.slot || !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = hold_take_over(control, &hold);
    if (r)
        handover_wrong(record->handover, outcome(r));
}

static void take_watch(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct watch watch = {};
    struct place place;
    int r;

    watch.endpoint = take_place(handover, record, &place);
    while (handover_next(&records, &member))
        (void)TAKE(&member, watch_members, &watch);
    if (!watch.endpoint || record->handover->error)
        return;
    if (watch.state > WATCH_ENDS || !place.slot || !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = watch_take_over(control, &watch);
    if (r)
        handover_wrong(record->handover, outcome(r));
}

/* Which watch a command is for; false: it is none that it could be for. */
static bool find_watch(const struct bus_handover *handover, const struct control *control, uint32_t number, struct watch **watchp) {
    *watchp = watch_of_number(&handover->bus->watches, number);
    return number == 0 || (*watchp && (*watchp)->control == control);
}

static void take_command(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member, tail = {};
    struct command_state state = {};
    struct vmibus_frame frame = {};
    struct command_request request;
    struct watch *watch;
    struct place place;
    struct endpoint *endpoint = take_place(handover, record, &place);
    int r;

    while (handover_next(&records, &member))
        if (member.tag == COMMAND_FRAME)
            handover_copy(&member, &frame, sizeof(frame));
        else if (member.tag == COMMAND_TAIL)
            tail = member;
        else
            (void)TAKE(&member, command_members, &state);
    if (!endpoint || record->handover->error)
        return;
    if (!place.slot || !control_binding_in(control, place.slot) || frame.header.slot != place.slot ||
        frame.header.generation != place.generation || frame.header.tail_length != tail.length ||
        tail.length > handover->bus->options.tail_bound || __builtin_popcount(state.group) != 1 || state.group >> N_GROUPS ||
        state.leased != (place.lease_class != 0) || !find_watch(handover, control, state.watch, &watch)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    request = (struct command_request){
        .control = control,
        .endpoint = endpoint,
        .lease = place.lease_class ? &endpoint->leases[place.lease_class - 1] : NULL,
        .watch = watch,
        .group = state.group,
        .frame = &frame,
        .tail = tail.octets,
        .received = state.received,
        .audit = state.audit,
    };
    r = command_take_over(&request);
    if (r)
        handover_wrong(record->handover, outcome(r));
}

/* --- what waits to be delivered, read ---------------------------------------------------------- */

/* The binding that a removal is embedded in: of an endpoint that is gone already. */
static bool push_farewell(struct control *control, struct event *event) {
    struct binding *binding;
    void *memory;

    if (region_take(&control->region, sizeof(*binding), &memory))
        return false;
    binding = memory;
    binding->control = control;
    control->n_farewells++;
    outbox_push_farewell(&control->outbox, &binding->farewell, event, binding);
    return true;
}

static void push_event(struct control *control, struct event *event) {
    const struct vmibus_header *header = &event->frame.header;
    struct binding *binding = control_binding(control, header->slot, header->generation);

    if (!outbox_push_event(&control->outbox, event)) {
        /* There is less room than there was. */
        if (binding)
            binding_drop(binding, &event->frame);
    } else if (binding && retained_kind_of(&event->frame) >= 0) {
        binding->n_queued++;
    }
}

static void take_delivery(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    enum delivery_kind kind = DELIVERY_OF_EVENT;
    struct handover_record member;
    struct event *event = NULL;

    while (handover_next(&records, &member))
        if (member.tag == DELIVERY_EVENT)
            event = take_event(handover, &member, control->account);
        else if (member.tag == DELIVERY_KIND)
            kind = (enum delivery_kind)handover_number_below(&member, DELIVERY_OF_FAREWELL);
    if (record->handover->error)
        return;
    if (!event || (kind == DELIVERY_OF_EVENT && event->fds))
        handover_wrong(record->handover, -EBADMSG);
    else if (kind == DELIVERY_OF_EVENT)
        push_event(control, event);
    else if (kind == DELIVERY_OF_FAREWELL && !push_farewell(control, event))
        handover_wrong(record->handover, -ENOBUFS);
    else if (kind == DELIVERY_OF_ANSWER && outbox_has_room_for_answer(&control->outbox))
        outbox_push_answer(&control->outbox, event_ref(event));
    else if (kind == DELIVERY_OF_ANSWER)
        handover_wrong(record->handover, -ENOBUFS);
}

static void take_outbox(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct outbox *outbox = &control->outbox, state = {};
    uint32_t passed[OUTBOX_LANES] = {};
    struct handover_record member;

    while (handover_next(&records, &member))
        if (member.tag == OUTBOX_DELIVERY)
            take_delivery(handover, control, &member);
        else if (member.tag == OUTBOX_PASSED)
            handover_copy(&member, passed, sizeof(passed));
        else
            (void)TAKE(&member, outbox_members, &state);
    outbox->sequence = state.sequence;
    outbox->head_waits = state.head_waits <= outbox->lanes[VMIBUS_PRIORITY_NORMAL].length
                             ? state.head_waits
                             : outbox->lanes[VMIBUS_PRIORITY_NORMAL].length;
    outbox->gaps |= state.gaps;
    outbox->gaps_due = state.gaps_due & state.gaps;
    outbox->replay_owed = state.replay_owed;
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        outbox->lanes[i].passed = passed[i];
    for (size_t i = 0; i < 64; i++)
        outbox->dropped[i] += state.dropped[i];
}

/* Bindings with something to replay, in their order: each is taken to the end when its turn has come. */
static void order_replays(struct control *control, const uint32_t *replays) {
    uint32_t n = control->bus->n_endpoints + 1;

    for (uint32_t place = 1; place <= n; place++)
        for (uint32_t slot = 0; slot < n; slot++) {
            struct binding *binding = replays[slot] == place ? control_binding_in(control, slot) : NULL;

            if (binding && binding->stale) {
                list_unlink(&binding->replay_link);
                list_append(&control->outbox.replays, &binding->replay_link);
            }
        }
}

/* Each kind of record for itself: what is needed by others comes first. */
static void take_all(struct bus_handover *handover, struct control *control, struct handover_records records, uint32_t *replays) {
    static const uint16_t order[] = {CONTROL_SUBSCRIPTION, CONTROL_BINDING, CONTROL_LEASE,   CONTROL_WAITER,
                                     CONTROL_HOLD,         CONTROL_WATCH,   CONTROL_COMMAND, CONTROL_OUTBOX};

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        struct handover_records all = records;
        struct handover_record record;
        struct place place;
        uint32_t replay = 0;

        while (handover_next(&all, &record)) {
            if (record.tag != order[i])
                continue;
            if (record.tag == CONTROL_SUBSCRIPTION)
                take_subscription(control, &record);
            else if (record.tag == CONTROL_BINDING) {
                take_binding(handover, control, &record, &replay);
                if (take_place(handover, &record, &place))
                    replays[place.slot] = replay;
            } else if (record.tag == CONTROL_LEASE)
                take_held_lease(handover, control, &record);
            else if (record.tag == CONTROL_WAITER)
                take_waiter(handover, control, &record);
            else if (record.tag == CONTROL_HOLD)
                take_hold(handover, control, &record);
            else if (record.tag == CONTROL_WATCH)
                take_watch(handover, control, &record);
            else if (record.tag == CONTROL_COMMAND)
                take_command(handover, control, &record);
            else
                take_outbox(handover, control, &record);
        }
    }
}

bool control_handover_restore(struct bus_handover *handover, struct control *control, struct handover_records records) {
    uint32_t *replays = calloc(handover->bus->n_endpoints + 1, sizeof(*replays));

    if (!replays)
        return handover_wrong(records.handover, -ENOMEM);
    take_all(handover, control, records, replays);
    order_replays(control, replays);
    free(replays);
    return !records.handover->error;
}

/* --- going on ---------------------------------------------------------------------------------- */

bool bus_handover_check(const struct bus_handover *handover, struct handover *whole) {
    for (uint32_t slot = 1; slot <= handover->bus->n_endpoints; slot++) {
        const struct endpoint *endpoint = handover->bus->endpoints[slot];

        for (unsigned i = 0; endpoint && i < LEASE_CLASSES; i++)
            if ((endpoint->leases[i].state == VMIBUS_LEASE_STATE_HELD) != (endpoint->leases[i].holder != NULL))
                return handover_wrong(whole, -EBADMSG);
    }
    return !whole->error;
}

void bus_handover_go_on(struct bus *bus) {
    struct control *control;

    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        if (!endpoint)
            continue;
        for (unsigned i = 0; slot && i < LEASE_CLASSES; i++)
            lease_go_on(&endpoint->leases[i], endpoint->leases[i].timer.deadline);
        if (slot)
            hold_go_on(&endpoint->holding);
        endpoint_update_demand(endpoint);
    }
    /* Without a timer sensors are waited for until they come. */
    (void)loop_timer_set(&bus->claims, clock_now() + CLAIM_MS * NS_PER_MS);
    bus_set_policy(bus, bus->policy);
    list_for_each(control, &bus->controls, link)
        if (!outbox_is_empty(&control->outbox))
            control_wake(control);
}
