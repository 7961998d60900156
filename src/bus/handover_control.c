/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/binding.h"
#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/subscription.h"

/* Of each record its own numbers, never reused; CONTROL_ ones in handover_record.h. */
enum {
    SUBSCRIPTION_PATTERN = 1,
    SUBSCRIPTION_KINDS = 2,
};

static const struct handover_member place_members[] = {
    HANDOVER_MEMBER(40, struct place, slot),
    HANDOVER_MEMBER(41, struct place, generation),
    HANDOVER_MEMBER(42, struct place, lease_class),
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

/* --- written ----------------------------------------------------------------------------------- */

void handover_put_place(struct handover_writer *writer, const struct endpoint *endpoint, uint32_t lease_class) {
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
        handover_put_place(writer, binding->endpoint, 0);
        PUT(writer, binding_members, &state);
        handover_end(writer);
    }
}

void control_handover_save(struct bus_handover *handover, struct handover_writer *writer, const struct control *control) {
    put_subscriptions(writer, control);
    put_bindings(writer, control);
    handover_put_leases(writer, control);
    handover_put_holds(writer, control);
    handover_put_watches(writer, control);
    handover_put_commands(writer, control);
    handover_put_outbox(handover, writer, &control->outbox);
}

/* --- read -------------------------------------------------------------------------------------- */

/* The endpoint that a record names. NULL: something was wrong. */
struct endpoint *handover_take_place(const struct bus_handover *handover, const struct handover_record *record,
                                     struct place *place) {
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
    struct endpoint *endpoint = handover_take_place(handover, record, &place);
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
        handover_wrong(record->handover, handover_outcome(r));
        return;
    }
    subscription_match(control, endpoint);
    binding->floor = state.floor;
    binding->lossy = state.lossy;
    binding->announced = state.announced;
    binding_take_over(binding, state.kinds, state.stale);
    *replay = state.replay;
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
                if (handover_take_place(handover, &record, &place))
                    replays[place.slot] = replay;
            } else if (record.tag == CONTROL_LEASE)
                handover_take_held_lease(handover, control, &record);
            else if (record.tag == CONTROL_WAITER)
                handover_take_waiter(handover, control, &record);
            else if (record.tag == CONTROL_HOLD)
                handover_take_hold(handover, control, &record);
            else if (record.tag == CONTROL_WATCH)
                handover_take_watch(handover, control, &record);
            else if (record.tag == CONTROL_COMMAND)
                handover_take_command(handover, control, &record);
            else
                handover_take_outbox(handover, control, &record);
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
