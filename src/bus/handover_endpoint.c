/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover_record.h"

#include <errno.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/endpoint.h"
#include "bus/sensor.h"
#include "util/fds.h"

/* Of each record its own numbers, never reused. */
enum {
    ENDPOINT_SLOT = 1,
    ENDPOINT_LEASE = 10,
    ENDPOINT_RETAINED = 11,
    ENDPOINT_CLAIM = 12,
    ENDPOINT_MEMCTX_EVENT = 13,
    ENDPOINT_HOLDING = 14,
};

enum {
    CLAIM_SENSOR = 1,
    CLAIM_GROUPS = 2,
};

static const struct handover_member endpoint_members[] = {
    HANDOVER_MEMBER(2, struct endpoint, generation),   HANDOVER_MEMBER(3, struct endpoint, name),
    HANDOVER_MEMBER(4, struct endpoint, uuid),         HANDOVER_MEMBER(5, struct endpoint, pid),
    HANDOVER_MEMBER(6, struct endpoint, start_time),   HANDOVER_MEMBER(7, struct endpoint, publication),
    HANDOVER_MEMBER(8, struct endpoint, announced),
    HANDOVER_MEMBER(15, struct endpoint, pressed),
    HANDOVER_MEMBER(16, struct endpoint, memory_session),
    HANDOVER_MEMBER(17, struct endpoint, memory_session_told),
    HANDOVER_MEMBER(18, struct endpoint, uuid_doubted),
    HANDOVER_MEMBER(19, struct endpoint, introduced_by),
};

/* --- written ----------------------------------------------------------------------------------- */

static void put_claim(struct handover_writer *writer, const char *sensor, uint32_t groups) {
    if (!groups)
        return;
    handover_begin(writer, ENDPOINT_CLAIM);
    handover_put(writer, CLAIM_SENSOR, sensor, strlen(sensor));
    handover_put_number(writer, CLAIM_GROUPS, groups);
    handover_end(writer);
}

void handover_put_endpoint(struct bus_handover *handover, struct handover_writer *writer, uint16_t tag,
                           const struct endpoint *endpoint) {
    const struct provider *provider;
    const struct claim *claim;

    handover_begin(writer, tag);
    handover_put_number(writer, ENDPOINT_SLOT, endpoint->slot);
    PUT(writer, endpoint_members, endpoint);
    for (unsigned i = 0; endpoint->slot && i < LEASE_CLASSES; i++)
        handover_put_lease(writer, ENDPOINT_LEASE, &endpoint->leases[i]);
    for (unsigned i = 0; i < N_RETAINED; i++)
        if (endpoint->retained[i].present) {
            handover_begin(writer, ENDPOINT_RETAINED);
            handover_put_frame(writer, &endpoint->retained[i].frame, endpoint->retained[i].tail);
            handover_end(writer);
        }
    list_for_each(provider, &endpoint->providers, endpoint_link)
        put_claim(writer, provider->sensor->name, provider->groups);
    list_for_each(claim, &endpoint->claims, link)
        put_claim(writer, claim->sensor, claim->groups);
    if (endpoint->memctx_event)
        handover_put_event(handover, writer, ENDPOINT_MEMCTX_EVENT, endpoint->memctx_event);
    handover_put_number(writer, ENDPOINT_HOLDING, endpoint->holding.state);
    handover_end(writer);
}

/* --- read -------------------------------------------------------------------------------------- */

/* Of an incarnation that the bus rose from (bus/resync.h), or of this one and given out already. */
bool handover_was_given(const struct bus *bus, uint64_t number, uint32_t last) {
    uint64_t incarnation = number >> 32;

    if (incarnation == 0 || incarnation > bus->options.incarnation || (uint32_t)number == 0)
        return false;
    return incarnation < bus->options.incarnation || (uint32_t)number <= last;
}

static bool take_retained(struct bus_handover *handover, struct endpoint *endpoint, const struct handover_record *record) {
    struct event_parts parts;
    int kind;

    if (!event_parts_take(handover_in(record), handover->bus->options.tail_bound, &parts)) {
        fds_close(parts.fds, parts.n_fds);
        return false;
    }
    fds_close(parts.fds, parts.n_fds);
    kind = retained_kind_of(&parts.frame);
    if (kind < 0 || parts.n_fds || parts.frame.header.slot != endpoint->slot ||
        parts.frame.header.generation != endpoint->generation)
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
        !handover_was_given(bus, handover_number(&generation), bus->last_generation)) {
        handover_wrong(record->handover, number > bus->n_endpoints ? -ENOSPC : -EBADMSG);
        return NULL;
    }
    r = endpoint_take_over(&endpoint, bus, (uint32_t)number);
    if (r) {
        handover_wrong(record->handover, handover_outcome(r));
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
bool handover_take_endpoint(struct bus_handover *handover, const struct handover_record *record) {
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
            handover_take_lease(endpoint, &member);
            break;
        case ENDPOINT_RETAINED:
            take_retained(handover, endpoint, &member);
            break;
        case ENDPOINT_CLAIM:
            take_claim(endpoint, &member);
            break;
        case ENDPOINT_MEMCTX_EVENT:
            event_unref(endpoint->memctx_event);
            endpoint->memctx_event = handover_take_event(handover, &member, NULL);
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
