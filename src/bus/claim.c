/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/claim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "bus/provider.h"
#include "bus/sensor.h"
#include "util/clock.h"

int claim_new(struct endpoint *endpoint, const char *sensor, uint32_t groups) {
    struct claim *claim = calloc(1, sizeof(*claim));

    if (!claim)
        return -ENOMEM;
    claim->groups = groups;
    snprintf(claim->sensor, sizeof(claim->sensor), "%s", sensor);
    list_append(&endpoint->claims, &claim->link);
    return 0;
}

static void claim_free(struct claim *claim) {
    list_unlink(&claim->link);
    free(claim);
}

void claims_drop(struct endpoint *endpoint) {
    while (!list_is_empty(&endpoint->claims))
        claim_free(list_first(&endpoint->claims, struct claim, link));
}

uint32_t claims_groups(const struct endpoint *endpoint) {
    const struct claim *claim;
    uint32_t groups = 0;

    list_for_each(claim, &endpoint->claims, link)
        groups |= claim->groups;
    return groups;
}

bool claims_promise(const struct endpoint *endpoint, uint32_t group) {
    return !endpoint_provider(endpoint, group) && claims_groups(endpoint) & group;
}

void claims_leave(struct sensor *sensor) {
    struct bus *bus = sensor->bus;

    while (!list_is_empty(&sensor->providers)) {
        struct provider *provider = list_first(&sensor->providers, struct provider, sensor_link);

        if (claim_new(provider->endpoint, sensor->name, provider->groups) == 0)
            provider_leave(provider);
        else
            provider_remove(provider, VMIBUS_REASON_RESTARTED);
    }
    /* Without a timer it is waited for until it comes. */
    if (!bus->hands_over)
        (void)loop_timer_set(&bus->claims, clock_now() + CLAIM_MS * NS_PER_MS);
}

static struct claim *claim_of(const struct endpoint *endpoint, const struct sensor *sensor) {
    struct claim *claim;

    list_for_each(claim, &endpoint->claims, link)
        if (strcmp(claim->sensor, sensor->name) == 0)
            return claim;
    return NULL;
}

static bool is_same_process(const struct endpoint *endpoint, const struct endpoint_identity *identity) {
    if (!endpoint->pid || !identity->pid)
        return true;
    return endpoint->pid == identity->pid && endpoint->start_time == identity->start_time;
}

struct endpoint *claims_find_endpoint(struct bus *bus, const struct sensor *sensor, const struct endpoint_identity *identity) {
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        if (endpoint && claim_of(endpoint, sensor) && strcmp(endpoint->name, identity->name) == 0 &&
            memcmp(endpoint->uuid, identity->uuid, sizeof(endpoint->uuid)) == 0 && is_same_process(endpoint, identity))
            return endpoint;
    }
    return NULL;
}

bool claim_keeps(const struct endpoint *endpoint, uint32_t group) {
    const struct sensor *sensor = endpoint_provider(endpoint, group);

    return endpoint->claiming && sensor && sensor->keeps;
}

bool claim_make_good(struct endpoint *endpoint, const struct sensor *sensor) {
    struct claim *claim = claim_of(endpoint, sensor);

    if (claim)
        claim_free(claim);
    return claim;
}

void claims_see_providers(struct endpoint *endpoint) {
    hold_see_providers(endpoint);
    watch_begin_anew(endpoint);
    for (unsigned i = 0; i < LEASE_CLASSES; i++)
        lease_see_claims(&endpoint->leases[i]);
    command_see_providers(endpoint);
}

void claims_end(struct endpoint *endpoint) {
    const struct provider *provider;
    uint32_t groups = 0;

    if (list_is_empty(&endpoint->claims))
        return;
    claims_drop(endpoint);
    list_for_each(provider, &endpoint->providers, endpoint_link)
        groups |= provider->groups;
    if (!(groups & ~GROUPS_OF_KNOWLEDGE)) {
        endpoint_free(endpoint, VMIBUS_REASON_RESTARTED);
        return;
    }
    providers_stop_waiting(endpoint);
    claims_see_providers(endpoint);
    endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
}

void claims_time_out(struct loop_timer *timer) {
    struct bus *bus = container_of(timer, struct bus, claims);

    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            claims_end(bus->endpoints[slot]);
}
