/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensor's module: it provides WATCH on every endpoint that another sensor introduces.
 *
 * Options: interval-ms, octets, pages-per-second.
 */
#include "watch.h"

#include <errno.h>
#include <stdlib.h>

#include <vmibus/visibility.h>

#include "number_option.h"

static int take_options(struct watch *watch, const struct vmibus_sensor_option *options, size_t n_options) {
    const struct number_option table[] = {
        {"interval-ms", &watch->interval_ms, 1, 60000},
        {"octets", &watch->octets, 1, 1u << 30},
        {"pages-per-second", &watch->pages, 1, 10000000},
        {},
    };
    char message[NUMBER_OPTION_MESSAGE_BOUND];

    for (size_t i = 0; i < n_options; i++)
        if (number_option_take(table, &options[i], message) < 0) {
            watch->api->announce(watch->host, VMIBUS_SENSOR_STATE_FAILED, message);
            return -EINVAL;
        }
    return 0;
}

static int watch_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                       const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    struct watch *watch;
    int r;

    if (!VMIBUS_SENSOR_API_HAS(api, provide)) {
        api->announce(host, VMIBUS_SENSOR_STATE_FAILED, "this bus lets no sensor provide groups on VMs of others: run a newer one");
        return -ENOSYS;
    }
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return -ENOMEM;
    *watch = (struct watch){.host = host, .api = api, .interval_ms = 10, .octets = 4u << 20, .pages = 20000};
    TAILQ_INIT(&watch->guests);
    r = take_options(watch, options, n_options);
    if (r < 0) {
        free(watch);
        return r;
    }
    api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
    *instancep = watch;
    return 0;
}

static void watch_stop(void *instance) {
    struct watch *watch = instance;
    struct guest *guest;

    while ((guest = TAILQ_FIRST(&watch->guests)))
        guest_free(guest);
    free(watch);
}

static int watch_execute(void *instance, void *userdata, const struct vmibus_sensor_command *command) {
    (void)instance;
    if (!userdata || command->frame->header.kind != VMIBUS_KIND_WATCH)
        return -ENOTSUP;
    guest_execute(userdata, command);
    return 0;
}

static void watch_cancel(void *instance, void *userdata, uint64_t id) {
    (void)instance;
    guest_cancel(userdata, id);
}

static void watch_attached(void *instance, void *userdata, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                           enum vmibus_reason reason) {
    (void)instance;
    guest_attached(userdata, ram, error, reason);
}

static void watch_endpoint_appeared(void *instance, struct vmibus_sensor_endpoint *endpoint,
                                    const struct vmibus_sensor_offer *offer, void **userdatap) {
    struct watch *watch = instance;

    (void)offer;
    *userdatap = guest_new(watch, endpoint);
    if (*userdatap)
        (void)watch->api->provide(endpoint, VMIBUS_GROUP_WATCH);
}

static void watch_endpoint_vanished(void *instance, void *userdata) {
    (void)instance;
    if (userdata)
        guest_vanish(userdata);
}

static void watch_memctx_changed(void *instance, void *userdata, const struct vmibus_memctx *memctx) {
    (void)instance;
    if (userdata)
        guest_see_memctx(userdata, memctx);
}

const struct vmibus_sensor_module vmibus_watch_sensor = {
    .struct_size = sizeof(vmibus_watch_sensor),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "watch",
    .groups = VMIBUS_GROUP_WATCH,
    .start = watch_start,
    .stop = watch_stop,
    .execute = watch_execute,
    .cancel = watch_cancel,
    .attached = watch_attached,
    .endpoint_appeared = watch_endpoint_appeared,
    .endpoint_vanished = watch_endpoint_vanished,
    .memctx_changed = watch_memctx_changed,
};

/* What a loader looks for. Weak, so that several sensors can be linked into one program. */
VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module __attribute__((weak, alias("vmibus_watch_sensor")));
