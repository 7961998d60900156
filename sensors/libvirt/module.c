/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensor's module: instances, and the ways from the host's calls, and from libvirt's notices, to the domain they concern.
 */
#include "module.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <libvirt/libvirt.h>

#include "events.h"
#include "sensor.h"

/* How long the end of the sensor waits for calls under way. What hangs longer is left to itself. */
#define LEAVE_MS 3000

static const char strange_process[] =
    "its process is not known: libvirt's file NAME.pid names none that has its UUID, or cannot be read; see the option "
    "pid-directory";

/* --- telling ------------------------------------------------------------------------------------- */

void libvirt_announce(struct libvirt *libvirt) {
    enum vmibus_sensor_state state = VMIBUS_SENSOR_STATE_READY;
    const char *message = libvirt->message;
    const struct domain *domain;

    TAILQ_FOREACH(domain, &libvirt->domains, link) {
        if (*message)
            break;
        message = *domain->message ? domain->message : domain->machine.memory.refusal;
    }
    if (*message)
        state = VMIBUS_SENSOR_STATE_DEGRADED;
    if (libvirt->announced && libvirt->announced_state == state && strcmp(libvirt->announced_message, message) == 0)
        return;
    libvirt->announced = true;
    libvirt->announced_state = state;
    snprintf(libvirt->announced_message, sizeof(libvirt->announced_message), "%s", message);
    libvirt->api->announce(libvirt->host, state, *message ? message : NULL);
}

static void announce(struct machine_sensor *machines) {
    libvirt_announce((struct libvirt *)((char *)machines - offsetof(struct libvirt, machines)));
}

/* --- what libvirt tells --------------------------------------------------------------------------- */

static struct domain *find(struct libvirt *libvirt, const uint8_t *uuid) {
    struct domain *domain;

    TAILQ_FOREACH(domain, &libvirt->domains, link)
    if (memcmp(domain->uuid, uuid, sizeof(domain->uuid)) == 0)
        return domain;

    return NULL;
}

static void follow(struct libvirt *libvirt, const uint8_t *uuid, const char *name, enum vmibus_lifecycle_cause beginning) {
    struct domain *domain;

    if (domain_new(&domain, libvirt, uuid, name) == 0)
        domain->beginning = beginning;
}

static void on_listed(void *userdata, const struct listed_domain *listed, size_t n_listed) {
    struct libvirt *libvirt = userdata;
    struct domain *domain;

    libvirt->message[0] = '\0';
    /* Also those that are not in the list: a look finds out that they do not run. */
    TAILQ_FOREACH(domain, &libvirt->domains, link)
    domain_look(domain);
    for (size_t i = 0; i < n_listed; i++)
        if (!find(libvirt, listed[i].uuid))
            follow(libvirt, listed[i].uuid, listed[i].name, VMIBUS_LIFECYCLE_CAUSE_OBSERVED);
    libvirt_announce(libvirt);
}

static void on_lost(void *userdata, const char *message) {
    struct libvirt *libvirt = userdata;
    struct domain *domain;

    snprintf(libvirt->message, sizeof(libvirt->message), "%s", message);
    TAILQ_FOREACH(domain, &libvirt->domains, link)
    domain_lose_sight(domain);
    libvirt_announce(libvirt);
}

static const struct connection_callbacks callbacks = {.listed = on_listed, .lost = on_lost};

static void take_notice(struct libvirt *libvirt, const struct notice *notice) {
    struct domain *domain;

    if (notice->kind == NOTICE_LOST) {
        connection_lost(&libvirt->connection, notice->connection);
        return;
    }
    domain = find(libvirt, notice->uuid);
    if (domain) {
        domain_notice(domain, notice);
        return;
    }
    /* One that ends, or is only defined, is not followed; any other runs. */
    if (notice->kind != NOTICE_LIFECYCLE || notice->event == VIR_DOMAIN_EVENT_STARTED ||
        notice->event == VIR_DOMAIN_EVENT_SUSPENDED || notice->event == VIR_DOMAIN_EVENT_RESUMED) {
        follow(libvirt, notice->uuid, notice->name, VMIBUS_LIFECYCLE_CAUSE_OBSERVED);
        domain = find(libvirt, notice->uuid);
        if (domain && notice->kind == NOTICE_LIFECYCLE && notice->event == VIR_DOMAIN_EVENT_STARTED)
            domain_notice(domain, notice);
    }
}

static void on_exchange(void *userdata, uint32_t events) {
    struct libvirt *libvirt = userdata;
    struct notices notices;
    struct notice *notice;
    struct call *call;
    bool overflown;

    (void)events;
    overflown = exchange_take_notices(libvirt->exchange, &notices);
    while ((notice = STAILQ_FIRST(&notices))) {
        STAILQ_REMOVE_HEAD(&notices, link);
        take_notice(libvirt, notice);
        free(notice);
    }
    while ((call = exchange_take_call(libvirt->exchange)))
        call->done(call);
    if (overflown)
        connection_list(&libvirt->connection);
}

/* --- the module ----------------------------------------------------------------------------------- */

static void libvirt_stop(void *instance) {
    struct libvirt *libvirt = instance;
    struct domain *domain;

    TAILQ_FOREACH(domain, &libvirt->domains, link)
    power_stop(&domain->machine);
    while ((domain = TAILQ_FIRST(&libvirt->domains)))
        domain_free(domain);
    connection_deinit(&libvirt->connection);
    if (libvirt->exchange) {
        exchange_close(libvirt->exchange);
        callers_wait(libvirt->exchange, LEAVE_MS);
    }
    libvirt->api->unwatch_fd(libvirt->source);
    exchange_unref(libvirt->exchange);
    if (libvirt->events_begun)
        events_end();
    options_deinit(&libvirt->options);
    machine_sensor_deinit(&libvirt->machines);
    free(libvirt);
}

static int begin(struct libvirt *libvirt) {
    const struct vmibus_sensor_api *api = libvirt->api;
    int r = events_begin();

    if (r < 0)
        return r;
    libvirt->events_begun = true;
    r = exchange_new(&libvirt->exchange);
    if (r >= 0)
        r = api->watch_fd(libvirt->host, libvirt->exchange->event_fd, EPOLLIN, on_exchange, libvirt, &libvirt->source);
    if (r >= 0)
        r = connection_init(&libvirt->connection, api, libvirt->host, libvirt->exchange, libvirt->options.uri, &callbacks, libvirt);

    return r;
}

static int libvirt_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                         const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    struct libvirt *libvirt = calloc(1, sizeof(*libvirt));
    int r;

    if (!libvirt)
        return -ENOMEM;
    libvirt->host = host;
    libvirt->api = api;
    TAILQ_INIT(&libvirt->domains);
    machine_sensor_init(&libvirt->machines, host, api);
    libvirt->machines.announce = announce;
    libvirt->machines.strange_process = strange_process;
    saved_take(&libvirt->machines);
    r = options_take(&libvirt->options, options, n_options);
    if (r == -EINVAL)
        api->announce(host, VMIBUS_SENSOR_STATE_FAILED, libvirt->options.message);
    if (r >= 0) {
        libvirt->machines.state_directory = libvirt->options.state_directory;
        libvirt->options.state_directory = NULL;
        r = begin(libvirt);
    }
    if (r < 0) {
        libvirt_stop(libvirt);
        return r;
    }
    *instancep = libvirt;

    return 0;
}

/* --- over a restart ------------------------------------------------------------------------------- */

static int libvirt_save(void *instance, struct vmibus_sensor_saved *state) {
    struct libvirt *libvirt = instance;
    struct saved_machine *saved;
    struct domain *domain;
    size_t n = 0;

    TAILQ_FOREACH(domain, &libvirt->domains, link)
        n++;
    if (saved_begin(&libvirt->machines, n, NULL, 0) < 0)
        return -ENOMEM;
    TAILQ_FOREACH(domain, &libvirt->domains, link) {
        saved = domain->machine.endpoint ? saved_add(&domain->machine) : NULL;
        if (saved)
            keys_save(&domain->keys, saved);
    }
    saved_end(&libvirt->machines, state);

    return 0;
}

static void libvirt_offered(void *instance, void *userdata, bool kept) {
    struct domain *domain = userdata;

    (void)instance;
    if (kept)
        return;
    power_abandon(&domain->machine);
    domain->keys.n_held = 0; /* in the guest nothing is held */
}

static struct machine *machine_of(void *userdata) {
    struct domain *domain = userdata;

    return &domain->machine;
}

static int libvirt_execute(void *instance, void *userdata, const struct vmibus_sensor_command *command) {
    struct domain *domain = userdata;

    (void)instance;
    switch (command->frame->header.kind) {
    case VMIBUS_KIND_CMD_INPUT:
    case VMIBUS_KIND_INPUT_RELEASE:
        return keys_execute(domain, command);
    case VMIBUS_KIND_CMD_POWER:
    case VMIBUS_KIND_CMD_VM:
        return power_execute(&domain->machine, command);
    case VMIBUS_KIND_REGISTERS:
        return vcpus_execute(&domain->machine, command);
    default:
        machine_complete(&domain->machine, command->id, command->frame->header.kind, VMIBUS_ERROR_UNSUPPORTED,
                         VMIBUS_REASON_BAD_KIND, 0, 0);
        return 0;
    }
}

static void libvirt_demand(void *instance, void *userdata, uint64_t kinds) {
    (void)instance;
    root_demand(machine_of(userdata), kinds);
    memory_demand(machine_of(userdata), kinds);
}

static void libvirt_layout_result(void *instance, void *userdata, uint64_t epoch, enum vmibus_error error,
                                  enum vmibus_reason reason) {
    (void)instance;
    memory_verdict(machine_of(userdata), epoch, error, reason);
}

static void libvirt_root_result(void *instance, void *userdata, uint64_t epoch, enum vmibus_error error,
                                enum vmibus_reason reason) {
    (void)instance;
    root_verdict(machine_of(userdata), epoch, error, reason);
}

static void libvirt_attached(void *instance, void *userdata, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                             enum vmibus_reason reason) {
    (void)instance;
    root_attached(machine_of(userdata), ram, error, reason);
}

static void libvirt_memctx_changed(void *instance, void *userdata, const struct vmibus_memctx *memctx) {
    (void)instance;
    if (userdata && memctx->state == VMIBUS_MEMCTX_STATE_NONE)
        memory_ended(machine_of(userdata), memctx->epoch);
}

static void libvirt_active(void *instance, void *userdata, uint32_t groups) {
    (void)instance;
    if (machine_of(userdata)->monitor && !machine_of(userdata)->monitor->closed)
        memory_set_active(machine_of(userdata), groups & VMIBUS_GROUP_MEMORY);
}

const struct vmibus_sensor_module vmibus_libvirt_sensor = {
    .struct_size = sizeof(vmibus_libvirt_sensor),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "libvirt",
    .groups = LIBVIRT_GROUPS,
    .fallback = VMIBUS_GROUP_INPUT,
    .start = libvirt_start,
    .stop = libvirt_stop,
    .execute = libvirt_execute,
    .demand = libvirt_demand,
    .layout_result = libvirt_layout_result,
    .root_result = libvirt_root_result,
    .attached = libvirt_attached,
    .memctx_changed = libvirt_memctx_changed,
    .active = libvirt_active,
    .save = libvirt_save,
    .offered = libvirt_offered,
};

VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module
    __attribute__((weak, alias("vmibus_libvirt_sensor")));
