/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/sensor_observer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/control.h"
#include "core/core.h"
#include "core/sensor_api.h"
#include "core/sensor_host.h"
#include "util/clock.h"

/*
 * A memory context that came before its endpoint: replays come in the order of publication, and a roster entry is published anew
 * when somebody joins the endpoint.  All of a replay comes in one go, so such a one is kept no longer than that.
 */
struct early {
    struct list link;
    struct vmibus_frame frame;
};

static void keep_early(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    struct early *early = malloc(sizeof(*early));

    if (!early)
        return;
    early->frame = *frame;
    list_append(&host->early, &early->link);
}

static void drop_early(struct vmibus_sensor_host *host) {
    while (!list_is_empty(&host->early)) {
        struct early *early = list_first(&host->early, struct early, link);

        list_unlink(&early->link);
        free(early);
    }
}

static void tell_early(struct vmibus_sensor_host *host, const struct vmibus_sensor_endpoint *endpoint) {
    const struct early *early;

    list_for_each(early, &host->early, link)
        if (early->frame.header.slot == endpoint->slot && early->frame.header.generation == endpoint->generation)
            host->module->memctx_changed(host->instance, endpoint->userdata, &early->frame.memctx);
}

static void appeared(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const struct tail *name) {
    struct vmibus_frame join = {.header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER}};
    char text[VMIBUS_NAME_BOUND + 1] = "";
    struct vmibus_sensor_offer offer = {
        .name = text,
        .pid = frame->roster.pid,
        .start_time = frame->roster.start_time,
        .groups = frame->roster.groups,
    };
    struct vmibus_sensor_endpoint *endpoint = sensor_endpoint_find(host, &frame->header);

    if (endpoint || !name || !host->module->endpoint_appeared)
        return;
    endpoint = sensor_endpoint_new(host, NULL, 0);
    if (!endpoint)
        return;
    memcpy(text, name->data, name->length < VMIBUS_NAME_BOUND ? name->length : VMIBUS_NAME_BOUND);
    memcpy(offer.uuid, frame->roster.uuid, sizeof(offer.uuid));
    endpoint->slot = frame->header.slot;
    endpoint->generation = frame->header.generation;
    join.header.correlation = (uint64_t)(uintptr_t)endpoint;
    endpoint->appearing = true;
    sensor_endpoint_say(endpoint, &join, name->data, name->length);
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

static void observed(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const struct tail *tail) {
    struct vmibus_sensor_endpoint *endpoint = sensor_endpoint_find(host, &frame->header);
    struct vmibus_memctx memctx = {};

    switch (frame->header.kind) {
    case VMIBUS_KIND_ROSTER:
        if (frame->roster.change == VMIBUS_ROSTER_CHANGE_ADDED)
            appeared(host, frame, tail);
        else
            vanished(host, frame);
        break;
    case VMIBUS_KIND_MEMCTX:
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        if (frame->header.kind == VMIBUS_KIND_MEMCTX) {
            memctx = frame->memctx;
        } else {
            memctx.epoch = frame->memctx_invalidated.epoch;
            memctx.reason = frame->memctx_invalidated.reason;
        }
        if (endpoint && host->module->memctx_changed)
            host->module->memctx_changed(host->instance, endpoint->userdata, &memctx);
        else if (!endpoint && frame->header.kind == VMIBUS_KIND_MEMCTX)
            keep_early(host, frame);
        break;
    default:
        break;
    }
}

static void take_observations(struct loop_deferred *deferred) {
    struct vmibus_sensor_host *host = container_of(deferred, struct vmibus_sensor_host, observe);
    struct control_item item;

    while (control_take(&host->observer, &item)) {
        observed(host, &item.frame, item.tail);
        control_item_deinit(&item);
    }
    drop_early(host);
}

static void observer_wake(struct control *control) {
    loop_defer(&container_of(control, struct vmibus_sensor_host, observer)->observe);
}

static void observer_fail(struct control *control) {
    (void)control; /* only a control that takes nothing fails, and this one takes everything */
}

static const struct control_ops observer_ops = {.wake = observer_wake, .fail = observer_fail};

void sensor_observer_init(struct vmibus_sensor_host *host, struct loop *loop) {
    list_init(&host->early);
    loop_deferred_init(&host->observe, loop, take_observations);
}

int sensor_observer_start(struct vmibus_sensor_host *host, const uint8_t *session) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SUBSCRIBE,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .flags = VMIBUS_FRAME_NO_ACK,
                   .tail_length = 1},
        .subscribe = {.kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |
                               VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED)},
    };
    struct vmibus_ack refusal = {};
    int r = control_init(&host->observer, host->core->bus, &host->core->self, session, &observer_ops, &refusal);

    if (r)
        return r < 0 ? r : -EUSERS;
    host->observes = true;
    control_submit(&host->observer, &frame, "*", clock_now());
    /* What is there already is replayed, and nobody is woken for that: an answer would, and there is none. */
    observer_wake(&host->observer);
    return 0;
}

void sensor_observer_deinit(struct vmibus_sensor_host *host) {
    if (host->observes)
        control_deinit(&host->observer);
    loop_deferred_cancel(&host->observe);
}
