/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover.h"

#include <errno.h>
#include <stdlib.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/handover_record.h"
#include "bus/sensor.h"
#include "bus/sensor_place.h"
#include "util/clock.h"

/* Never reused. */
enum {
    BUS_INCARNATION = 1,
    BUS_ENDPOINT = 2, /* also slot 0 */
    BUS_GENERATION = 3,
    BUS_TOKEN = 4,
    BUS_SLOT = 5,
    BUS_COUNTERS = 6,
    BUS_SENSOR_PLACES = 7,
};

/* --- settling ---------------------------------------------------------------------------------- */

void bus_settle_begin(struct bus *bus) {
    bus->hands_over = true;
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
            if (command->sensor || audit_waiter_waits(&command->waiter))
                return false;
    }
    return true;
}

void bus_settle(struct bus *bus) {
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            command_end_all(bus->endpoints[slot]);
}

/* --- written ----------------------------------------------------------------------------------- */

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
    handover_begin(writer, BUS_SENSOR_PLACES);
    sensor_places_save(&bus->sensor_places, writer);
    handover_end(writer);
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            handover_put_endpoint(handover, writer, BUS_ENDPOINT, bus->endpoints[slot]);
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

/* --- read -------------------------------------------------------------------------------------- */

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
        case BUS_SENSOR_PLACES:
            sensor_places_restore(&bus->sensor_places, &record);
            break;
        default:
            break;
        }
    while (handover_next(&again, &record))
        if (record.tag == BUS_ENDPOINT && !handover_take_endpoint(handover, &record))
            return handover_wrong(record.handover, -EBADMSG);
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
