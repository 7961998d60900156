/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/meter.h"

#include <errno.h>
#include <stdlib.h>

#include "util/clock.h"

/* A debt is kept in nanoseconds of the rate, so that a changed rate does not change what was written. */
struct meter {
    struct list link;
    uid_t uid;
    uint64_t full_at;   /* CLOCK_MONOTONIC nanoseconds at which the bucket is full again */
};

void meters_init(struct meters *meters) {
    list_init(&meters->used);
}

static void meter_free(struct meter *meter) {
    list_unlink(&meter->link);
    free(meter);
}

void meters_deinit(struct meters *meters) {
    while (!list_is_empty(&meters->used))
        meter_free(list_first(&meters->used, struct meter, link));
}

/* The user's meter; those that are full again are dropped on the way. */
static struct meter *find(struct meters *meters, uid_t uid, uint64_t now) {
    struct meter *meter, *following, *found = NULL;

    list_for_each_safe(meter, following, &meters->used, link) {
        if (meter->full_at <= now)
            meter_free(meter);
        else if (meter->uid == uid)
            found = meter;
    }
    return found;
}

/* Nanoseconds that octets are worth; what does not fit is for ever. */
uint64_t meter_worth(uint64_t octets, uint64_t rate) {
    unsigned __int128 ns = (unsigned __int128)octets * NS_PER_S / rate;

    return ns > UINT64_MAX / 4 ? UINT64_MAX / 4 : (uint64_t)ns;
}

int meter_take(struct meters *meters, uid_t uid, uint64_t rate, uint64_t octets, uint64_t now, uint64_t *wait_us) {
    struct meter *meter = find(meters, uid, now);
    uint64_t cost = meter_worth(octets, rate);
    uint64_t lacking = meter ? meter->full_at - now : 0;
    uint64_t allowed = cost < NS_PER_S ? NS_PER_S - cost : 0;

    if (lacking > allowed) {
        *wait_us = (lacking - allowed + 999) / 1000;
        return METER_WAIT;
    }
    if (!meter) {
        meter = calloc(1, sizeof(*meter));
        if (!meter)
            return -ENOMEM;
        meter->uid = uid;
        list_append(&meters->used, &meter->link);
    }
    meter->full_at = now + lacking + cost;
    return 0;
}

void meter_give_back(struct meters *meters, uid_t uid, uint64_t worth) {
    struct meter *meter;

    list_for_each(meter, &meters->used, link)
        if (meter->uid == uid)
            meter->full_at = meter->full_at > worth ? meter->full_at - worth : 0;
}
