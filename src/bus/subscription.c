/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/subscription.h"

#include <string.h>

#include "bus/binding.h"
#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "util/refusal.h"

static struct subscription *subscription_find(struct control *control, const char *pattern, size_t length) {
    struct subscription *subscription;

    list_for_each(subscription, &control->subscriptions, link)
        if (strlen(subscription->pattern) == length && memcmp(subscription->pattern, pattern, length) == 0)
            return subscription;
    return NULL;
}

static size_t n_words(const struct control *control) {
    return control->bus->n_endpoints / 64 + 1;
}

static size_t subscription_size(const struct control *control, size_t pattern_length) {
    return sizeof(struct subscription) + n_words(control) * sizeof(uint64_t) + pattern_length + 1;
}

static bool matches(const struct subscription *subscription, uint32_t slot) {
    return subscription->matches[slot / 64] >> slot % 64 & 1;
}

/* Comparing is what a pattern costs, up to tens of microseconds for a cunning one: it is done once for each endpoint. */
static void match(struct subscription *subscription, const struct endpoint *endpoint) {
    uint64_t *word = &subscription->matches[endpoint->slot / 64], bit = UINT64_C(1) << endpoint->slot % 64;

    *word &= ~bit;
    if (endpoint->slot == 0 || policy_pattern_matches(subscription->pattern, endpoint->name, endpoint->uuid))
        *word |= bit;
}

static void subscription_free(struct control *control, struct subscription *subscription) {
    list_unlink(&subscription->link);
    charge_release(&subscription->charge);
    control->bus->n_subscriptions--;
    region_give(&control->region, subscription, subscription_size(control, strlen(subscription->pattern)));
}

/* Why one more cannot be had is written into @a refusal. */
static uint16_t subscription_new(struct subscription **subscriptionp, struct control *control, const char *pattern, size_t length,
                                 struct vmibus_ack *refusal) {
    struct subscription *subscription;
    void *memory;
    int r = region_take(&control->region, subscription_size(control, length), &memory);

    if (r)
        return region_refusal(refusal, r, &control->region);
    subscription = memory;
    r = charge_take(&subscription->charge, control->account, RESOURCE_SUBSCRIPTIONS, 1);
    if (r) {
        region_give(&control->region, subscription, subscription_size(control, length));
        return refusal_of_charge(refusal, r, control->account, RESOURCE_SUBSCRIPTIONS);
    }
    subscription->pattern = (char *)&subscription->matches[n_words(control)];
    memcpy(subscription->pattern, pattern, length);
    list_append(&control->subscriptions, &subscription->link);
    control->bus->n_subscriptions++;
    *subscriptionp = subscription;
    return 0;
}

void subscription_match(struct control *control, const struct endpoint *endpoint) {
    struct subscription *subscription;

    list_for_each(subscription, &control->subscriptions, link)
        match(subscription, endpoint);
}

uint64_t subscription_kinds(const struct control *control, const struct endpoint *endpoint) {
    const struct subscription *subscription;
    uint64_t kinds = 0;

    list_for_each(subscription, &control->subscriptions, link)
        if (matches(subscription, endpoint->slot))
            kinds |= subscription->kinds;
    return kinds;
}

uint16_t subscription_set(struct control *control, const char *pattern, size_t length, uint64_t kinds, struct vmibus_ack *refusal) {
    struct subscription *subscription = subscription_find(control, pattern, length);
    bool known = subscription;

    if (!known && !kinds)
        return 0;
    if (!known && subscription_new(&subscription, control, pattern, length, refusal))
        return refusal->error;
    subscription->kinds = kinds;
    for (uint32_t slot = 0; slot <= control->bus->n_endpoints; slot++) {
        struct binding *binding = control_binding_in(control, slot);

        if (!binding)
            continue;
        if (!known)
            match(subscription, binding->endpoint);
        if (!matches(subscription, slot))
            continue;
        binding_subscribe(binding, subscription_kinds(control, binding->endpoint));
        endpoint_update_demand(binding->endpoint);
    }
    if (!kinds)
        subscription_free(control, subscription);
    return 0;
}

void subscription_drop_control(struct control *control) {
    while (!list_is_empty(&control->subscriptions))
        subscription_free(control, list_first(&control->subscriptions, struct subscription, link));
}
