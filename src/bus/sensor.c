/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/sensor.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "bus/command.h"
#include "bus/endpoint.h"
#include "bus/watch.h"

int sensor_init(struct sensor *sensor, struct bus *bus, const struct sensor_ops *ops) {
    if (bus->last_sensor == UINT16_MAX)
        return VMIBUS_ERROR_PRESSURE;
    *sensor = (struct sensor){.bus = bus, .ops = ops, .id = ++bus->last_sensor, .state = VMIBUS_SENSOR_STATE_LOADED};
    list_init(&sensor->providers);
    list_append(&bus->sensors, &sensor->link);
    return 0;
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
    while (!list_is_empty(&sensor->providers))
        endpoint_remove_provider(list_first(&sensor->providers, struct provider, sensor_link), VMIBUS_REASON_WITHDRAWN);
    sensor->state = VMIBUS_SENSOR_STATE_GONE;
    publish_state(sensor, NULL, 0);
    list_unlink(&sensor->link);
}

static void hear_choice(struct endpoint *endpoint) {
    endpoint_choose_active(endpoint);
    watch_see_providers(endpoint);
}

static void hear_announce(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_sensor_announce *announce = &frame->sensor_announce;
    struct provider *provider;

    sensor->state = (enum vmibus_sensor_state)announce->state;
    sensor->groups = announce->groups;
    if (sensor->fallback != announce->fallback) {
        sensor->fallback = announce->fallback;
        list_for_each(provider, &sensor->providers, sensor_link)
            hear_choice(provider->endpoint);
    }
    memcpy(sensor->name, announce->name, sizeof(sensor->name));
    sensor->name[sizeof(sensor->name) - 1] = '\0';
    publish_state(sensor, tail, frame->header.tail_length);
}

static struct provider *provider_of(const struct sensor *sensor, const struct vmibus_header *header) {
    struct endpoint *endpoint = bus_endpoint(sensor->bus, header->slot, header->generation);
    struct provider *provider;

    if (!endpoint)
        return NULL;
    list_for_each(provider, &endpoint->providers, endpoint_link)
        if (provider->sensor == sensor)
            return provider;
    return NULL;
}

static void answer_offer(struct sensor *sensor, const struct vmibus_frame *offer, const struct endpoint *endpoint,
                         enum vmibus_error error, enum vmibus_reason reason) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ACK,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = endpoint ? endpoint->slot : 0,
                   .generation = endpoint ? endpoint->generation : 0,
                   .correlation = offer->header.correlation},
        .ack = {.error = (uint16_t)error, .reason = (uint16_t)reason, .command = VMIBUS_KIND_ENDPOINT_OFFER},
    };

    sensor->ops->send(sensor, &frame, NULL);
}

static void hear_offer(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    char name[VMIBUS_NAME_BOUND + 1] = "";
    struct endpoint_identity identity = {
        .name = name,
        .pid = frame->endpoint_offer.pid,
        .start_time = frame->endpoint_offer.start_time,
    };
    struct endpoint *endpoint;
    int r;

    if (frame->header.tail_length == 0 || frame->header.tail_length > VMIBUS_NAME_BOUND ||
        memchr(tail, '\0', frame->header.tail_length)) {
        answer_offer(sensor, frame, NULL, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        return;
    }
    memcpy(name, tail, frame->header.tail_length);
    memcpy(identity.uuid, frame->endpoint_offer.uuid, sizeof(identity.uuid));
    endpoint = frame->header.slot ? bus_endpoint(sensor->bus, frame->header.slot, frame->header.generation)
                                  : endpoint_find(sensor->bus, &identity);
    if (frame->header.slot && !endpoint) {
        answer_offer(sensor, frame, NULL, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
        return;
    }
    if (!endpoint && !(frame->endpoint_offer.groups & ~GROUPS_OF_KNOWLEDGE)) {
        /* An endpoint is there as long as somebody provides a group of it: this one would never go. */
        answer_offer(sensor, frame, NULL, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        return;
    }
    if (endpoint) {
        if (!endpoint->pid) {
            endpoint->pid = identity.pid;
            endpoint->start_time = identity.start_time;
        }
        uint32_t groups = endpoint_groups(endpoint);

        r = endpoint_add_provider(endpoint, sensor, frame->endpoint_offer.groups);
        if (r == 0 && (frame->endpoint_offer.groups || endpoint_groups(endpoint) != groups))
            endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
    } else {
        r = endpoint_new(&endpoint, sensor->bus, &identity, sensor, frame->endpoint_offer.groups);
    }
    if (r)
        answer_offer(sensor, frame, NULL, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_ENDPOINTS);
    else
        answer_offer(sensor, frame, endpoint, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    /* Only now does the sensor know the endpoint that the demand is for. */
    if (r == 0)
        endpoint_tell_demand(endpoint, sensor);
}

static bool tail_is_allowed(const struct vmibus_frame_description *description, uint32_t length) {
    if (length && !description->tail_allowed)
        return false;
    return length >= description->tail_min && (!description->tail_max || length <= description->tail_max);
}

/* Only whoever is active for lifecycle may tell it: two truths about one VM would be none. */
static void hear_event(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);
    struct provider *provider = provider_of(sensor, &frame->header);
    struct vmibus_frame event = *frame;

    if (!provider || !tail_is_allowed(description, frame->header.tail_length))
        return;
    if (frame->header.kind == VMIBUS_KIND_LIFECYCLE && endpoint_provider(provider->endpoint, VMIBUS_GROUP_LIFECYCLE) != sensor)
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

void sensor_hear(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    const struct command_result result = {
        .ack = &frame->ack,
        .tail = tail,
        .tail_length = frame->header.tail_length,
        .fds = fds,
        .n_fds = frame->header.fd_count,
    };
    struct provider *provider;

    switch (frame->header.kind) {
    case VMIBUS_KIND_ACK:
        command_complete(sensor->bus, sensor, frame->header.correlation, &result);
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
        hear_offer(sensor, frame, tail);
        break;
    case VMIBUS_KIND_ENDPOINT_WITHDRAW:
        provider = provider_of(sensor, &frame->header);
        if (provider)
            endpoint_remove_provider(provider, (enum vmibus_reason)frame->endpoint_withdraw.reason);
        break;
    default:
        break;
    }
}
