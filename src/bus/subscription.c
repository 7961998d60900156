/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/subscription.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/binding.h"
#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"

static struct subscription *subscription_find(struct control *control, const char *pattern, size_t length) {
    struct subscription *subscription;

    list_for_each(subscription, &control->subscriptions, link)
        if (strlen(subscription->pattern) == length && memcmp(subscription->pattern, pattern, length) == 0)
            return subscription;
    return NULL;
}

static void subscription_free(struct control *control, struct subscription *subscription) {
    list_unlink(&subscription->link);
    charge_release(&subscription->charge);
    control->bus->n_subscriptions--;
    free(subscription);
}

static int subscription_new(struct subscription **subscriptionp, struct control *control, const char *pattern, size_t length) {
    struct subscription *subscription = calloc(1, sizeof(*subscription) + length + 1);
    int r;

    if (!subscription)
        return -ENOMEM;
    r = charge_take(&subscription->charge, control->account, RESOURCE_SUBSCRIPTIONS, 1);
    if (r) {
        free(subscription);
        return r == CHARGE_QUOTA ? VMIBUS_ERROR_QUOTA : VMIBUS_ERROR_PRESSURE;
    }
    memcpy(subscription->pattern, pattern, length);
    list_append(&control->subscriptions, &subscription->link);
    control->bus->n_subscriptions++;
    *subscriptionp = subscription;
    return 0;
}

uint64_t subscription_kinds(const struct control *control, const struct endpoint *endpoint) {
    const struct subscription *subscription;
    uint64_t kinds = 0;

    list_for_each(subscription, &control->subscriptions, link)
        if (endpoint->slot == 0 || policy_pattern_matches(subscription->pattern, endpoint->name, endpoint->uuid))
            kinds |= subscription->kinds;
    return kinds;
}

int subscription_set(struct control *control, const char *pattern, size_t length, uint64_t kinds) {
    struct subscription *subscription = subscription_find(control, pattern, length);
    int r;

    if (!subscription && kinds) {
        r = subscription_new(&subscription, control, pattern, length);
        if (r)
            return r;
    }
    if (subscription && kinds)
        subscription->kinds = kinds;
    else if (subscription)
        subscription_free(control, subscription);
    for (uint32_t slot = 0; slot <= control->bus->n_endpoints; slot++) {
        struct binding *binding = control->bindings[slot];

        if (!binding)
            continue;
        binding_subscribe(binding, subscription_kinds(control, binding->endpoint));
        endpoint_update_demand(binding->endpoint);
    }
    return 0;
}

void subscription_drop_control(struct control *control) {
    while (!list_is_empty(&control->subscriptions))
        subscription_free(control, list_first(&control->subscriptions, struct subscription, link));
}
