/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/provider.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/command.h"
#include "bus/endpoint.h"
#include "bus/hold.h"
#include "bus/lease.h"
#include "bus/sensor.h"
#include "bus/watch.h"

struct provider *provider_of(const struct endpoint *endpoint, const struct sensor *sensor) {
    struct provider *provider;

    list_for_each(provider, &endpoint->providers, endpoint_link)
        if (provider->sensor == sensor)
            return provider;
    return NULL;
}

static uint32_t active_groups(const struct provider *provider) {
    uint32_t groups = 0;

    for (unsigned i = 0; i < N_GROUPS; i++)
        if (provider->endpoint->active[i] == provider)
            groups |= 1u << i;
    return groups;
}

void providers_describe(const struct endpoint *endpoint, struct vmibus_roster *roster) {
    uint16_t *const sources[N_GROUPS] = {
        &roster->lifecycle_source, &roster->power_source,     &roster->input_source, &roster->memory_source,
        &roster->screen_source,    &roster->registers_source, &roster->watch_source,
    };

    for (unsigned i = 0; i < N_GROUPS; i++)
        *sources[i] = endpoint->active[i] ? endpoint->active[i]->sensor->id : 0;
}

/* --- telling ----------------------------------------------------------------------------------- */

static void tell_active(struct provider *provider) {
    uint32_t groups = active_groups(provider);
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ACTIVE,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = provider->endpoint->slot,
                   .generation = provider->endpoint->generation},
        .active = {.groups = groups},
    };

    if (!provider->is_answered || provider->told == groups)
        return;
    provider->told = groups;
    provider->sensor->ops->send(provider->sensor, &frame, NULL);
}

static void tell_all_active(struct endpoint *endpoint) {
    struct provider *provider, *following;

    list_for_each_safe(provider, following, &endpoint->providers, endpoint_link)
        tell_active(provider);
}

/* The authority is told before the sensor, so that the first proposal is not refused. */
static void tell_authority(struct endpoint *endpoint) {
    static const uint8_t none[16];
    const struct sensor *sensor = endpoint_provider(endpoint, VMIBUS_GROUP_MEMORY);
    const uint8_t *session = sensor ? sensor->session : none;

    /* One that is waited for will propose the same memory, whose epoch goes on. */
    if (memcmp(endpoint->memory_session, session, sizeof(none)) == 0 || (!sensor && claims_promise(endpoint, VMIBUS_GROUP_MEMORY)))
        return;
    memcpy(endpoint->memory_session, session, sizeof(none));
    endpoint->memory_session_told = true;
    providers_tell_authority(endpoint);
}

void providers_tell_authority(struct endpoint *endpoint) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_MEMORY_PROVIDER}};

    if (!endpoint->memory_session_told)
        return;
    memcpy(frame.memory_provider.session, endpoint->memory_session, sizeof(endpoint->memory_session));
    bus_tell_link(endpoint->bus, endpoint, &frame, NULL);
}

/* What the last provider told is not vouched for any more; what the next one knows is. */
static void tell_lifecycle(struct endpoint *endpoint) {
    const struct provider *provider = endpoint->active[__builtin_ctz(VMIBUS_GROUP_LIFECYCLE)];
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_LIFECYCLE}};

    if (provider && provider->has_lifecycle)
        frame.lifecycle.state = provider->lifecycle.state;
    else if (!endpoint->retained[RETAINED_LIFECYCLE].present)
        return;
    frame.lifecycle.cause = VMIBUS_LIFECYCLE_CAUSE_OBSERVED;
    frame.header.source = provider ? provider->sensor->id : 0;
    endpoint_publish(endpoint, &frame, NULL);
}

bool provider_keep_lifecycle(struct provider *provider, const struct vmibus_lifecycle *lifecycle) {
    provider->lifecycle = *lifecycle;
    provider->has_lifecycle = true;
    return endpoint_provider(provider->endpoint, VMIBUS_GROUP_LIFECYCLE) == provider->sensor;
}

/* --- choosing ---------------------------------------------------------------------------------- */

/* Lower is better. */
static unsigned rank_of(const struct provider *provider, uint32_t group) {
    return (provider->sensor->state == VMIBUS_SENSOR_STATE_FAILED ? 2 : 0) + (provider->sensor->fallback & group ? 1 : 0);
}

static bool is_better(const struct provider *provider, const struct provider *other, uint32_t group) {
    if (rank_of(provider, group) != rank_of(other, group))
        return rank_of(provider, group) < rank_of(other, group);
    return provider->sensor->preference < other->sensor->preference;
}

static struct provider *best_of(const struct endpoint *endpoint, uint32_t group) {
    struct provider *provider, *best = NULL;

    list_for_each(provider, &endpoint->providers, endpoint_link)
        if (provider->groups & group && (!best || is_better(provider, best, group)))
            best = provider;
    return best;
}

/* Whether something is under way at the active provider that cannot go along. Watches end when they have to, and tell so. */
static bool is_busy(const struct endpoint *endpoint, uint32_t group, const struct sensor *sensor) {
    switch (group) {
    case VMIBUS_GROUP_WATCH:
        return false;
    case VMIBUS_GROUP_INPUT:
        return !pressed_is_empty(&endpoint->pressed) || command_is_under_way(endpoint, sensor, group);
    case VMIBUS_GROUP_POWER:
        return endpoint->holding.state != HOLDING_NONE || command_is_under_way(endpoint, sensor, group);
    default:
        return command_is_under_way(endpoint, sensor, group);
    }
}

/* Returns the groups that have another active provider than before. */
static uint32_t choose(struct endpoint *endpoint) {
    uint32_t changed = 0;

    endpoint->choice_waits = false;
    for (unsigned i = 0; i < N_GROUPS; i++) {
        uint32_t group = 1u << i;
        struct provider *chosen = best_of(endpoint, group), *active = endpoint->active[i];

        if (chosen == active)
            continue;
        if (active && active->groups & group && is_busy(endpoint, group, active->sensor)) {
            endpoint->choice_waits = true;
            continue;
        }
        endpoint->active[i] = chosen;
        changed |= group;
    }
    return changed;
}

/* The roster says who provides before anybody hears of what they say. One that makes its claim good goes on with what it had. */
static void tell_choice(struct endpoint *endpoint, uint32_t changed) {
    uint32_t kept = endpoint->claiming ? VMIBUS_GROUP_LIFECYCLE : 0;

    if (claim_keeps(endpoint, VMIBUS_GROUP_INPUT))
        kept |= VMIBUS_GROUP_INPUT;
    endpoint->unsettled |= changed & ~kept;
    if (changed & VMIBUS_GROUP_MEMORY)
        tell_authority(endpoint);
    if (changed && endpoint->announced && !endpoint->claiming)
        endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
}

/* Acts upon what was chosen, once whoever was chosen knows the endpoint. Keys are released before anything else is sent there. */
static void settle(struct endpoint *endpoint) {
    uint32_t changed = endpoint->unsettled;

    endpoint->unsettled = 0;
    if (changed & VMIBUS_GROUP_INPUT)
        command_begin_key_release(endpoint);
    if (changed & VMIBUS_GROUP_LIFECYCLE)
        tell_lifecycle(endpoint);
    watch_see_providers(endpoint);
    tell_all_active(endpoint);
}

static void see_choice(struct endpoint *endpoint, uint32_t changed) {
    tell_choice(endpoint, changed);
    settle(endpoint);
    claims_see_providers(endpoint);
}

void provider_answered(struct provider *provider) {
    provider->is_answered = true;
    settle(provider->endpoint);
    claims_see_providers(provider->endpoint);
}

void providers_see_idle(struct endpoint *endpoint) {
    if (endpoint->choice_waits && !endpoint->passing_on)
        see_choice(endpoint, choose(endpoint));
}

/* A provider is lost for groups that it is active for. Somebody else is chosen afterwards. */
static void lose(struct provider *provider, uint32_t groups, enum vmibus_error error, enum vmibus_reason reason) {
    struct endpoint *endpoint = provider->endpoint;

    endpoint->passing_on = true;
    for (unsigned i = 0; i < N_GROUPS; i++)
        if (groups & 1u << i && endpoint->active[i] == provider)
            endpoint->active[i] = NULL;
    if (groups & VMIBUS_GROUP_POWER)
        hold_drop_sensor(endpoint, provider->sensor);
    command_drop_groups(endpoint, provider->sensor, groups, error, reason);
    endpoint->passing_on = false;
}

void provider_see_sensor(struct provider *provider) {
    struct endpoint *endpoint = provider->endpoint;
    uint32_t lost = 0;

    /* A failed one that nobody can replace may still answer. */
    for (unsigned i = 0; i < N_GROUPS; i++)
        if (endpoint->active[i] == provider && provider->sensor->state == VMIBUS_SENSOR_STATE_FAILED &&
            best_of(endpoint, 1u << i) != provider)
            lost |= 1u << i;
    if (lost)
        lose(provider, lost, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED);
    see_choice(endpoint, lost | choose(endpoint));
}

/* --- coming and going -------------------------------------------------------------------------- */

static void attach(struct provider *provider, struct endpoint *endpoint) {
    provider->endpoint = endpoint;
    list_append(&endpoint->providers, &provider->endpoint_link);
    list_append(&provider->sensor->providers, &provider->sensor_link);
    provider->sensor->n_endpoints++;
}

static void detach(struct provider *provider) {
    list_unlink(&provider->endpoint_link);
    list_unlink(&provider->sensor_link);
    provider->sensor->n_endpoints--;
}

int provider_add(struct endpoint *endpoint, struct sensor *sensor, uint32_t groups, uint64_t offer) {
    struct provider *provider = provider_of(endpoint, sensor);
    uint32_t lost = 0, added = groups;

    if (!provider) {
        provider = calloc(1, sizeof(*provider));
        if (!provider)
            return -ENOMEM;
        provider->sensor = sensor;
        provider->offer = offer;
        attach(provider, endpoint);
    } else {
        lost = active_groups(provider) & ~groups;
        added = groups & ~provider->groups;
    }
    provider->told = (provider->told & groups) | added;
    provider->groups = groups;
    if (lost)
        lose(provider, lost, VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN);
    tell_choice(endpoint, lost | choose(endpoint));
    return 0;
}

void provider_free(struct provider *provider) {
    if (provider->endpoint->introducer == provider->sensor)
        endpoint_set_introducer(provider->endpoint, NULL);
    detach(provider);
    free(provider);
}

/* A VM is there as long as somebody provides a group of it; those who only add knowledge do not keep it. */
static bool has_other_provider(const struct endpoint *endpoint, const struct provider *leaving) {
    const struct provider *provider;

    list_for_each(provider, &endpoint->providers, endpoint_link)
        if (provider != leaving && provider->groups & ~GROUPS_OF_KNOWLEDGE)
            return true;
    return claims_groups(endpoint) & ~GROUPS_OF_KNOWLEDGE;
}

void provider_remove(struct provider *provider, enum vmibus_reason reason) {
    struct endpoint *endpoint = provider->endpoint;
    uint32_t lost = active_groups(provider);

    if (!has_other_provider(endpoint, provider)) {
        endpoint_free(endpoint, reason);
        return;
    }
    lose(provider, UINT32_MAX, VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN);
    provider_free(provider);
    lost |= choose(endpoint);
    see_choice(endpoint, lost);
    if (!lost)
        endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
}

static bool has_deputy(const struct provider *leaving, uint32_t group) {
    const struct provider *provider;

    list_for_each(provider, &leaving->endpoint->providers, endpoint_link)
        if (provider != leaving && provider->groups & group)
            return true;
    return false;
}

void provider_leave(struct provider *provider) {
    struct endpoint *endpoint = provider->endpoint;
    uint32_t changed;

    watch_forget_sensor(endpoint, provider->sensor);
    /* Who would take its place holds nothing. */
    if (!has_deputy(provider, VMIBUS_GROUP_POWER))
        hold_leave_sensor(endpoint, provider->sensor);
    lose(provider, UINT32_MAX, VMIBUS_ERROR_GONE, VMIBUS_REASON_RESTARTED);
    provider_free(provider);
    changed = choose(endpoint);
    if (changed)
        see_choice(endpoint, changed);
}

void providers_stop_waiting(struct endpoint *endpoint) {
    tell_authority(endpoint);
}

void provider_move(struct provider *provider, struct endpoint *endpoint) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ACK,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = endpoint->slot,
                   .generation = endpoint->generation,
                   .correlation = provider->offer},
        .ack = {.command = VMIBUS_KIND_ENDPOINT_OFFER, .reason = VMIBUS_REASON_SAME_VM},
    };

    detach(provider);
    if (provider_of(endpoint, provider->sensor)) {
        free(provider);
        return;
    }
    provider->told = UINT32_MAX; /* it is told in any case */
    provider->is_answered = false;
    attach(provider, endpoint);
    tell_choice(endpoint, choose(endpoint));
    provider->sensor->ops->send(provider->sensor, &frame, NULL);
    provider_answered(provider);
    endpoint_tell_demand(endpoint, provider->sensor);
}
