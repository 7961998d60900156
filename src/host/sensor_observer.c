/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/sensor_observer.h"

#include <stdlib.h>
#include <string.h>

#include "host/sensor_api.h"
#include "host/sensor_host.h"

/* An event that is kept: a memory context of an endpoint not heard of yet, or whatever waits for the answer to an offer. */
struct kept {
    struct list link;
    struct vmibus_frame frame;
    uint8_t tail[];
};

static void keep(struct list *list, const struct vmibus_frame *frame, const void *tail) {
    uint32_t length = tail ? frame->header.tail_length : 0;
    struct kept *kept = malloc(sizeof(*kept) + length);

    if (!kept)
        return;
    kept->frame = *frame;
    kept->frame.header.tail_length = length;
    if (length)
        memcpy(kept->tail, tail, length);
    list_append(list, &kept->link);
}

static void drop(struct kept *kept) {
    list_unlink(&kept->link);
    free(kept);
}

/* --- memory contexts that come before their endpoints ------------------------------------------- */

/*
 * Replays come in the order of publication, and a roster entry is published anew when somebody joins the endpoint, so a memory
 * context may come first.  At most one of each slot is kept: until it has ended, or its endpoint is heard of.
 */
static void drop_early(struct vmibus_sensor_host *host, uint32_t slot) {
    struct kept *kept, *following;

    list_for_each_safe(kept, following, &host->early, link)
        if (kept->frame.header.slot == slot)
            drop(kept);
}

static void tell_early(struct vmibus_sensor_host *host, const struct vmibus_sensor_endpoint *endpoint) {
    const struct kept *kept;

    list_for_each(kept, &host->early, link)
        if (kept->frame.header.slot == endpoint->slot && kept->frame.header.generation == endpoint->generation) {
            const struct vmibus_memctx memctx = kept->frame.memctx;

            host->module->memctx_changed(host->instance, endpoint->userdata, &memctx);
            return;
        }
}

/* --- what is observed ---------------------------------------------------------------------------- */

static void appeared(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *name) {
    size_t length = frame->header.tail_length < VMIBUS_NAME_BOUND ? frame->header.tail_length : VMIBUS_NAME_BOUND;
    struct vmibus_frame join = {.header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER}};
    char text[VMIBUS_NAME_BOUND + 1] = "";
    struct vmibus_sensor_offer offer = {
        .name = text,
        .pid = frame->roster.pid,
        .start_time = frame->roster.start_time,
        .groups = frame->roster.groups,
    };
    struct vmibus_sensor_endpoint *endpoint = sensor_endpoint_find(host, &frame->header);

    if (endpoint || length == 0 || !host->module->endpoint_appeared)
        return;
    endpoint = sensor_endpoint_new(host, NULL, 0);
    if (!endpoint)
        return;
    memcpy(text, name, length);
    memcpy(offer.uuid, frame->roster.uuid, sizeof(offer.uuid));
    sensor_endpoint_identify(endpoint, &offer);
    endpoint->slot = frame->header.slot;
    endpoint->generation = frame->header.generation;
    endpoint->offer = join.header.correlation = ++host->last_offer;
    endpoint->answered = true; /* slot and generation are known */
    endpoint->appearing = true;
    (void)sensor_endpoint_say(endpoint, &join, name, length);
    endpoint->appearing = false;
    host->module->endpoint_appeared(host->instance, endpoint, &offer, &endpoint->userdata);
    if (endpoint->demand && host->module->demand)
        host->module->demand(host->instance, endpoint->userdata, endpoint->demand);
    if (host->module->memctx_changed)
        tell_early(host, endpoint);
}

static void vanished(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    struct vmibus_sensor_endpoint *endpoint = sensor_endpoint_find(host, &frame->header);

    if (!endpoint || endpoint->groups)
        return;
    endpoint->withdrawn = true;
    if (host->module->endpoint_vanished)
        host->module->endpoint_vanished(host->instance, endpoint->userdata);
    sensor_endpoint_free(endpoint);
}

static void memctx_changed(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    struct vmibus_sensor_endpoint *endpoint = sensor_endpoint_find(host, &frame->header);
    struct vmibus_memctx memctx = {};

    drop_early(host, frame->header.slot);
    if (frame->header.kind == VMIBUS_KIND_MEMCTX) {
        memctx = frame->memctx;
    } else {
        memctx.epoch = frame->memctx_invalidated.epoch;
        memctx.reason = frame->memctx_invalidated.reason;
    }
    if (endpoint && host->module->memctx_changed)
        host->module->memctx_changed(host->instance, endpoint->userdata, &memctx);
    else if (!endpoint && frame->header.kind == VMIBUS_KIND_MEMCTX)
        keep(&host->early, frame, NULL);
}

static void observe(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_ROSTER:
        if (frame->roster.change == VMIBUS_ROSTER_CHANGE_ADDED)
            appeared(host, frame, tail);
        else
            vanished(host, frame);
        drop_early(host, frame->header.slot);
        break;
    case VMIBUS_KIND_MEMCTX:
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        memctx_changed(host, frame);
        break;
    default:
        break;
    }
}

void sensor_observer_hear(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail) {
    if (host->n_unanswered || !list_is_empty(&host->withheld))
        keep(&host->withheld, frame, tail);
    else
        observe(host, frame, tail);
}

void sensor_observer_go_on(struct vmibus_sensor_host *host) {
    while (host->n_unanswered == 0 && !list_is_empty(&host->withheld)) {
        struct kept *kept = list_first(&host->withheld, struct kept, link);

        list_unlink(&kept->link);
        observe(host, &kept->frame, kept->tail);
        free(kept);
    }
}

/* --- coming and going ---------------------------------------------------------------------------- */

void sensor_observer_subscribe(struct vmibus_frame *frame) {
    *frame = (struct vmibus_frame){
        .header = {.kind = VMIBUS_KIND_SUBSCRIBE,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .flags = VMIBUS_FRAME_NO_ACK,
                   .tail_length = sizeof(SENSOR_OBSERVER_PATTERN) - 1},
        .subscribe = {.kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |
                               VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED)},
    };
}

void sensor_observer_init(struct vmibus_sensor_host *host) {
    list_init(&host->early);
    list_init(&host->withheld);
}

void sensor_observer_deinit(struct vmibus_sensor_host *host) {
    while (!list_is_empty(&host->early))
        drop(list_first(&host->early, struct kept, link));
    while (!list_is_empty(&host->withheld))
        drop(list_first(&host->withheld, struct kept, link));
}
