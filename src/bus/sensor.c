/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/sensor.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/command.h"
#include "bus/endpoint.h"
#include "bus/offer.h"
#include "bus/provider.h"
#include "bus/sensor_place.h"
#include "bus/watch.h"

/* Ids are reused as late as possible; 0 is the bus itself, and says here that all are in use. */
static uint16_t free_id(const struct bus *bus) {
    uint16_t id = bus->last_sensor;

    for (uint32_t tries = 0; tries < UINT16_MAX; tries++) {
        const struct sensor *sensor;
        bool used = ++id == 0;

        list_for_each(sensor, &bus->sensors, link)
            used = used || sensor->id == id;
        if (!used)
            return id;
    }
    return 0;
}

int sensor_init(struct sensor *sensor, struct bus *bus, const struct sensor_ops *ops) {
    uint16_t id = free_id(bus);

    if (!id)
        return VMIBUS_ERROR_PRESSURE;
    *sensor = (struct sensor){.bus = bus, .ops = ops, .id = id, .state = VMIBUS_SENSOR_STATE_LOADED};
    bus->last_sensor = id;
    sensor_place_begin(sensor);
    list_init(&sensor->providers);
    list_append(&bus->sensors, &sensor->link);
    return 0;
}

struct sensor *sensor_named(struct bus *bus, const char *name, struct vmibus_ack *refusal) {
    struct sensor *sensor, *found = NULL;
    uint64_t n = 0;

    list_for_each(sensor, &bus->sensors, link)
        if (*name && strncmp(sensor->name, name, sizeof(sensor->name)) == 0) {
            found = sensor;
            n++;
        }
    if (n == 0)
        *refusal = (struct vmibus_ack){.error = VMIBUS_ERROR_UNSUPPORTED, .reason = VMIBUS_REASON_NO_PROVIDER};
    else if (n > 1)
        *refusal = (struct vmibus_ack){.error = VMIBUS_ERROR_VALIDATION, .reason = VMIBUS_REASON_SENSOR_NAME, .value = n};
    return n == 1 ? found : NULL;
}

static void publish_state(struct sensor *sensor, const void *message, uint32_t length) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SENSOR,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .source = sensor->id,
                   .tail_length = length},
        .sensor = {.state = (uint8_t)sensor->state, .groups = sensor->groups},
    };

    memcpy(frame.sensor.name, sensor->name, sizeof(frame.sensor.name));
    endpoint_publish(sensor->bus->endpoints[0], &frame, message);
}

void sensor_deinit(struct sensor *sensor) {
    command_drop_groups(sensor->bus->endpoints[0], sensor, UINT32_MAX, VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN);
    if (sensor->state == VMIBUS_SENSOR_STATE_RESTARTING || sensor->bus->hands_over)
        claims_leave(sensor);
    while (!list_is_empty(&sensor->providers))
        provider_remove(list_first(&sensor->providers, struct provider, sensor_link), VMIBUS_REASON_WITHDRAWN);
    sensor->state = VMIBUS_SENSOR_STATE_GONE;
    publish_state(sensor, NULL, 0);
    list_unlink(&sensor->link);
}

static void hear_announce(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_sensor_announce *announce = &frame->sensor_announce;
    struct provider *provider, *following;
    bool is_first = sensor->name[0] == '\0';
    bool changes = sensor->fallback != announce->fallback || (sensor->state == VMIBUS_SENSOR_STATE_FAILED) !=
                                                                 (announce->state == VMIBUS_SENSOR_STATE_FAILED);

    sensor->state = (enum vmibus_sensor_state)announce->state;
    sensor->groups = announce->groups;
    sensor->fallback = announce->fallback;
    sensor->keeps = announce->flags & VMIBUS_SENSOR_KEEPS;
    memcpy(sensor->name, announce->name, sizeof(sensor->name));
    sensor->name[sizeof(sensor->name) - 1] = '\0';
    if (is_first)
        sensor_place_take(sensor); /* before it offers anything */
    publish_state(sensor, tail, frame->header.tail_length);
    if (changes)
        list_for_each_safe(provider, following, &sensor->providers, sensor_link)
            provider_see_sensor(provider);
}

static struct provider *find_provider(const struct sensor *sensor, const struct vmibus_header *header) {
    struct endpoint *endpoint = bus_endpoint(sensor->bus, header->slot, header->generation);
    struct provider *provider;

    if (endpoint)
        return provider_of(endpoint, sensor);
    /* What is on its way while two endpoints turn out to be one VM is of that VM all the same. */
    list_for_each(provider, &sensor->providers, sensor_link)
        if (provider->former_generation && provider->former_generation == header->generation &&
            provider->former_slot == header->slot)
            return provider;
    return NULL;
}

static bool tail_is_allowed(const struct vmibus_frame_description *description, uint32_t length) {
    if (length && !description->tail_allowed)
        return false;
    return length >= description->tail_min && (!description->tail_max || length <= description->tail_max);
}

/* Only whoever is active for lifecycle may tell it: two truths about one VM would be none. */
static void hear_event(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);
    struct provider *provider = find_provider(sensor, &frame->header);
    struct vmibus_frame event = *frame;

    if (!provider || !tail_is_allowed(description, frame->header.tail_length))
        return;
    if (frame->header.kind == VMIBUS_KIND_LIFECYCLE && !provider_keep_lifecycle(provider, &frame->lifecycle))
        return;
    event.header.source = sensor->id;
    event.header.correlation = 0;
    event.header.flags = 0;
    if (event.header.priority > VMIBUS_PRIORITY_URGENT)
        event.header.priority = VMIBUS_PRIORITY_NORMAL;
    if (frame->header.kind == VMIBUS_KIND_WATCH_CHANGED)
        watch_hear(provider->endpoint, sensor, &event, tail);
    else
        endpoint_publish(provider->endpoint, &event, tail);
    if (frame->header.kind == VMIBUS_KIND_LIFECYCLE)
        hold_see_state(provider->endpoint, sensor, (enum vmibus_vm_state)frame->lifecycle.state);
}

static void hear_ack(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    const struct command_result result = {
        .ack = &frame->ack,
        .tail = tail,
        .tail_length = frame->header.tail_length,
        .fds = fds,
        .n_fds = frame->header.fd_count,
    };

    command_complete(sensor->bus, sensor, frame->header.correlation, &result);
}

void sensor_hear(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct provider *provider;

    switch (frame->header.kind) {
    case VMIBUS_KIND_ACK:
        hear_ack(sensor, frame, tail, fds);
        break;
    case VMIBUS_KIND_LIFECYCLE:
    case VMIBUS_KIND_PROCESS:
    case VMIBUS_KIND_MODULE:
    case VMIBUS_KIND_WATCH_CHANGED:
        hear_event(sensor, frame, tail);
        break;
    case VMIBUS_KIND_SENSOR_ANNOUNCE:
        hear_announce(sensor, frame, tail);
        break;
    case VMIBUS_KIND_ENDPOINT_OFFER:
        offer_hear(sensor, frame, tail);
        break;
    case VMIBUS_KIND_ENDPOINT_WITHDRAW:
        provider = find_provider(sensor, &frame->header);
        if (provider)
            provider_remove(provider, (enum vmibus_reason)frame->endpoint_withdraw.reason);
        break;
    default:
        break;
    }
}
