/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensor's module: it tells of processes and modules of every endpoint that runs Linux, while somebody subscribes.
 *
 * Option: interval-ms.
 */
#include "linux.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/visibility.h>

#define INTERVAL_MS_MINIMUM 10
#define INTERVAL_MS_MAXIMUM 3600000

void observer_announce(struct observer *observer) {
    const struct observed *observed;

    TAILQ_FOREACH(observed, &observer->guests, link)
        if (observed->trouble[0]) {
            observer->degraded = true;
            observer->api->announce(observer->host, VMIBUS_SENSOR_STATE_DEGRADED, observed->trouble);
            return;
        }
    if (observer->degraded)
        observer->api->announce(observer->host, VMIBUS_SENSOR_STATE_READY, NULL);
    observer->degraded = false;
}

static int take_option(struct observer *observer, const struct vmibus_sensor_option *option) {
    char message[256], *end;
    unsigned long value;

    if (strcmp(option->key, "interval-ms") != 0) {
        snprintf(message, sizeof(message), "unknown option %.64s; known is interval-ms", option->key);
        observer->api->announce(observer->host, VMIBUS_SENSOR_STATE_FAILED, message);
        return -EINVAL;
    }
    errno = 0;
    value = strtoul(option->value, &end, 10);
    if (errno || *option->value < '0' || *option->value > '9' || *end || value < INTERVAL_MS_MINIMUM ||
        value > INTERVAL_MS_MAXIMUM) {
        snprintf(message, sizeof(message), "interval-ms=%.64s: a number of milliseconds from %d to %d is wanted", option->value,
                 INTERVAL_MS_MINIMUM, INTERVAL_MS_MAXIMUM);
        observer->api->announce(observer->host, VMIBUS_SENSOR_STATE_FAILED, message);
        return -EINVAL;
    }
    observer->interval_ms = (uint32_t)value;
    return 0;
}

static int linux_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                       const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    struct observer *observer = calloc(1, sizeof(*observer));
    int r = 0;

    if (!observer)
        return -ENOMEM;
    observer->host = host;
    observer->api = api;
    observer->interval_ms = 100;
    TAILQ_INIT(&observer->guests);
    for (size_t i = 0; r == 0 && i < n_options; i++)
        r = take_option(observer, &options[i]);
    if (r < 0) {
        free(observer);
        return r;
    }
    api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
    *instancep = observer;
    return 0;
}

static void linux_stop(void *instance) {
    struct observer *observer = instance;
    struct observed *observed;

    while ((observed = TAILQ_FIRST(&observer->guests)))
        observed_free(observed);
    free(observer);
}

/* It executes nothing. */
static int linux_execute(void *instance, void *userdata, const struct vmibus_sensor_command *command) {
    (void)instance;
    (void)userdata;
    (void)command;
    return -ENOTSUP;
}

static void linux_demand(void *instance, void *userdata, uint64_t kinds) {
    (void)instance;
    if (userdata)
        observed_demand(userdata, kinds);
}

static void linux_attached(void *instance, void *userdata, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                           enum vmibus_reason reason) {
    (void)instance;
    observed_attached(userdata, ram, error, reason);
}

static void linux_endpoint_appeared(void *instance, struct vmibus_sensor_endpoint *endpoint,
                                    const struct vmibus_sensor_offer *offer, void **userdatap) {
    *userdatap = observed_new(instance, endpoint, offer->name);
}

static void linux_endpoint_vanished(void *instance, void *userdata) {
    (void)instance;
    if (userdata)
        observed_vanish(userdata);
}

static void linux_memctx_changed(void *instance, void *userdata, const struct vmibus_memctx *memctx) {
    (void)instance;
    if (userdata)
        observed_see_memctx(userdata, memctx);
}

const struct vmibus_sensor_module vmibus_linux_sensor = {
    .struct_size = sizeof(vmibus_linux_sensor),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "linux",
    .start = linux_start,
    .stop = linux_stop,
    .execute = linux_execute,
    .demand = linux_demand,
    .attached = linux_attached,
    .endpoint_appeared = linux_endpoint_appeared,
    .endpoint_vanished = linux_endpoint_vanished,
    .memctx_changed = linux_memctx_changed,
};

/* What a loader looks for. Weak, so that several sensors can be linked into one program. */
VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module __attribute__((weak, alias("vmibus_linux_sensor")));
