/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/resync.h"

#include <string.h>

#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/hold.h"
#include "bus/lease.h"

static struct lease *memwrite_of(struct endpoint *endpoint) {
    return &endpoint->leases[VMIBUS_LEASE_CLASS_MEMWRITE - 1];
}

void bus_tell_all(struct bus *bus) {
    struct vmibus_frame synced = {.header = {.kind = VMIBUS_KIND_LINK_SYNCED}};
    const struct control *control;

    list_for_each(control, &bus->controls, link)
        control_tell_session(control);
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        if (!endpoint)
            continue;
        endpoint_tell_opened(endpoint);
        lease_tell_authority(memwrite_of(endpoint));
    }
    bus_tell_link(bus, NULL, &synced, NULL);
}

void bus_memory_returned(struct bus *bus) {
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            hold_drop_authority(bus->endpoints[slot]);
}

/* The retained context is of an authority that is no more. */
static void end_context(struct bus *bus, struct endpoint *endpoint) {
    const struct retained *retained = &endpoint->retained[RETAINED_MEMCTX];
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEMCTX_INVALIDATED, .slot = endpoint->slot, .generation = endpoint->generation},
        .memctx_invalidated = {.epoch = retained->frame.memctx.epoch, .reason = VMIBUS_REASON_MEMORY_LOST},
    };

    if (retained->present && retained->frame.header.kind == VMIBUS_KIND_MEMCTX && retained->frame.memctx.epoch)
        bus_hear_link(bus, &frame, NULL);
}

void bus_memory_replaced(struct bus *bus, bool was_there) {
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        if (!endpoint)
            continue;
        if (was_there)
            end_context(bus, endpoint);
        lease_memory_replaced(memwrite_of(endpoint), was_there);
    }
}

void bus_rise(struct bus *bus, uint32_t incarnation) {
    bus->options.incarnation = incarnation;
    bus->last_token = 0;
    bus->last_generation = 0;
}

void bus_disown_all(struct bus *bus) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_CLOSED},
        .endpoint_closed = {.reason = VMIBUS_REASON_WITHDRAWN},
    };

    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            bus_tell_link(bus, bus->endpoints[slot], &frame, NULL);
}

void bus_hear_session_lost(struct bus *bus, const struct vmibus_session_lost *lost) {
    struct control *control;

    list_for_each(control, &bus->controls, link)
        if (memcmp(control->session, lost->session, sizeof(control->session)) == 0) {
            lease_end_all(control, VMIBUS_REASON_DISCONNECTED);
            return;
        }
}
