/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libvirt/virterror.h>

#include <vmibus/syscalls.h>

/* What libvirt's library does itself, for a libvirtd at a unix socket: seen with strace(1), libvirt 9.0. Others are not reached. */
VMIBUS_SYSCALLS("access connect getsockname openat pipe2 setsockopt socket")

/* --- listening, on libvirt's threads ------------------------------------------------------------ */

/* What is registered with a connection: all of it keeps the connection open until it is taken back. */
#define EVENTS_BOUND 9

struct listener {
    struct exchange *exchange; /* a reference */
    uint64_t number;           /* of connections opened so far; the caller's thread's */
    int ids[EVENTS_BOUND];
    size_t n_ids;
    bool close_registered;
};

/* What libvirt's callbacks get. */
struct ear {
    struct exchange *exchange; /* a reference */
    uint64_t number;
};

static void ear_free(void *data) {
    struct ear *ear = data;

    exchange_unref(ear->exchange);
    free(ear);
}

static struct ear *ear_new(const struct listener *listener) {
    struct ear *ear = calloc(1, sizeof(*ear));

    if (!ear)
        return NULL;
    ear->exchange = exchange_ref(listener->exchange);
    ear->number = listener->number;

    return ear;
}

static void tell(virDomainPtr domain, void *userdata, enum notice_kind kind, int event, int detail) {
    const struct ear *ear = userdata;
    const char *name = virDomainGetName(domain);
    struct notice notice = {.kind = kind, .event = event, .detail = detail, .connection = ear->number};

    if (virDomainGetUUID(domain, notice.uuid) < 0)
        return;
    snprintf(notice.name, sizeof(notice.name), "%s", name ? name : "");
    exchange_tell(ear->exchange, &notice);
}

static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *userdata) {
    (void)connection;
    tell(domain, userdata, NOTICE_LIFECYCLE, event, detail);

    return 0;
}

static void on_reboot(virConnectPtr connection, virDomainPtr domain, void *userdata) {
    (void)connection;
    tell(domain, userdata, NOTICE_REBOOT, 0, 0);
}

static void on_wakeup(virConnectPtr connection, virDomainPtr domain, int reason, void *userdata) {
    (void)connection;
    (void)reason;
    tell(domain, userdata, NOTICE_WAKEUP, 0, 0);
}

static void on_device(virConnectPtr connection, virDomainPtr domain, const char *alias, void *userdata) {
    (void)connection;
    (void)alias;
    tell(domain, userdata, NOTICE_DEVICES, 0, 0);
}

static void on_memory_size(virConnectPtr connection, virDomainPtr domain, const char *alias, unsigned long long size,
                           void *userdata) {
    (void)connection;
    (void)alias;
    (void)size;
    tell(domain, userdata, NOTICE_DEVICES, 0, 0);
}

static void on_iteration(virConnectPtr connection, virDomainPtr domain, int iteration, void *userdata) {
    (void)connection;
    (void)iteration;
    tell(domain, userdata, NOTICE_COPYING, 0, 0);
}

static void on_job(virConnectPtr connection, virDomainPtr domain, virTypedParameterPtr parameters, int n_parameters,
                   void *userdata) {
    (void)connection;
    (void)parameters;
    (void)n_parameters;
    tell(domain, userdata, NOTICE_COPIED, 0, 0);
}

static void on_close(virConnectPtr connection, int reason, void *userdata) {
    const struct ear *ear = userdata;
    const struct notice notice = {.kind = NOTICE_LOST, .connection = ear->number, .detail = reason};

    (void)connection;
    exchange_tell(ear->exchange, &notice);
}

static const struct {
    int id;
    virConnectDomainEventGenericCallback callback;
} wanted[EVENTS_BOUND] = {
    {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
    {VIR_DOMAIN_EVENT_ID_REBOOT, VIR_DOMAIN_EVENT_CALLBACK(on_reboot)},
    {VIR_DOMAIN_EVENT_ID_PMWAKEUP, VIR_DOMAIN_EVENT_CALLBACK(on_wakeup)},
    {VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, VIR_DOMAIN_EVENT_CALLBACK(on_device)},
    {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, VIR_DOMAIN_EVENT_CALLBACK(on_device)},
    {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, VIR_DOMAIN_EVENT_CALLBACK(on_device)},
    {VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_memory_size)},
    {VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, VIR_DOMAIN_EVENT_CALLBACK(on_iteration)},
    {VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, VIR_DOMAIN_EVENT_CALLBACK(on_job)},
};

static int listen_to(virConnectPtr connection, void *userdata) {
    struct listener *listener = userdata;
    struct ear *ear;

    listener->number++;
    for (size_t i = 0; i < EVENTS_BOUND; i++) {
        int id;

        ear = ear_new(listener);
        if (!ear)
            return -1;
        id = virConnectDomainEventRegisterAny(connection, NULL, wanted[i].id, wanted[i].callback, ear, ear_free);
        if (id < 0) {
            ear_free(ear);
            return -1;
        }
        listener->ids[listener->n_ids++] = id;
    }
    ear = ear_new(listener);
    if (!ear)
        return -1;
    if (virConnectRegisterCloseCallback(connection, on_close, ear, ear_free) < 0) {
        ear_free(ear);
        return -1;
    }
    listener->close_registered = true;

    return 0;
}

static void listen_no_more(virConnectPtr connection, void *userdata) {
    struct listener *listener = userdata;

    if (listener->close_registered)
        virConnectUnregisterCloseCallback(connection, on_close);
    listener->close_registered = false;
    while (listener->n_ids)
        virConnectDomainEventDeregisterAny(connection, listener->ids[--listener->n_ids]);
}

static void listener_free(void *userdata) {
    struct listener *listener = userdata;

    exchange_unref(listener->exchange);
    free(listener);
}

static const struct caller_hooks hooks = {
    .connected = listen_to,
    .disconnecting = listen_no_more,
    .free = listener_free,
};

/* --- listing ------------------------------------------------------------------------------------ */

struct listing {
    struct call call;
    struct connection *connection; /* the loop's */
    struct listener *listener;     /* the thread's */
    bool listed;
    uint64_t number;
    struct listed_domain *domains;
    size_t n_domains;
};

static void listing_discard(struct call *call) {
    struct listing *listing = (struct listing *)((char *)call - offsetof(struct listing, call));

    free(listing->domains);
    free(listing);
}

static void note_domain(struct listing *listing, virDomainPtr domain) {
    struct listed_domain *entry = &listing->domains[listing->n_domains];
    const char *name = virDomainGetName(domain);

    if (!name || virDomainGetUUID(domain, entry->uuid) < 0)
        return;
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    listing->n_domains++;
}

static void listing_run(struct call *call, virConnectPtr connection) {
    struct listing *listing = (struct listing *)((char *)call - offsetof(struct listing, call));
    virDomainPtr *domains;
    int n = virConnectListAllDomains(connection, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);

    listing->number = listing->listener->number;
    if (n < 0) {
        call_note_error(call);
        return;
    }
    listing->domains = calloc((size_t)n + 1, sizeof(*listing->domains));
    for (int i = 0; i < n; i++) {
        if (listing->domains && i < CONNECTION_DOMAINS_BOUND)
            note_domain(listing, domains[i]);
        virDomainFree(domains[i]);
    }
    free(domains);
    listing->listed = listing->domains != NULL;
}

static void fail(struct connection *connection, const char *message) {
    uint64_t pause = CONNECTION_PAUSE_MIN_NS << (connection->failures < 8 ? connection->failures : 8);
    char text[512];

    connection->up = false;
    connection->failures++;
    connection->api->timer_set(connection->timer, pause < CONNECTION_PAUSE_MAX_NS ? pause : CONNECTION_PAUSE_MAX_NS);
    snprintf(text, sizeof(text), "%s: %s; VMs cannot be followed until libvirtd answers", connection->uri, message);
    connection->callbacks->lost(connection->userdata, text);
}

static void listing_done(struct call *call) {
    struct listing *listing = (struct listing *)((char *)call - offsetof(struct listing, call));
    struct connection *connection = listing->connection;

    connection->listing = false;
    if (call->outcome == CALL_NO_CONNECTION || !listing->listed) {
        fail(connection, call->message);
    } else if (listing->number <= connection->lost) {
        fail(connection, "the connection was lost");
    } else {
        connection->api->timer_set(connection->timer, 0);
        connection->up = true;
        connection->failures = 0;
        connection->number = listing->number;
        connection->callbacks->listed(connection->userdata, listing->domains, listing->n_domains);
        if (connection->again)
            connection_list(connection);
    }
    connection->again = false;
    listing_discard(call);
}

static void begin(struct connection *connection, struct listener *listener) {
    struct listing *listing = calloc(1, sizeof(*listing));

    if (listing) {
        listing->call = (struct call){.run = listing_run, .done = listing_done, .discard = listing_discard};
        listing->connection = connection;
        listing->listener = listener;
        if (caller_make(connection->caller, &listing->call) == 0) {
            connection->listing = true;
            connection->api->timer_set(connection->timer, connection->up ? 0 : CONNECTION_SILENCE_NS);
            return;
        }
        free(listing);
    }
    fail(connection, "out of memory or threads");
}

void connection_list(struct connection *connection) {
    if (connection->listing)
        connection->again = true;
    else
        begin(connection, caller_userdata(connection->caller));
}

static void on_timer(void *userdata) {
    struct connection *connection = userdata;
    char text[512];

    if (!connection->listing) {
        connection_list(connection);
        return;
    }
    /* The attempt goes on: it ends when libvirtd does, or answers. */
    snprintf(text, sizeof(text), "%s: libvirtd does not answer; is it stopped, or overloaded? See virt-admin(1)",
             connection->uri);
    connection->callbacks->lost(connection->userdata, text);
}

void connection_lost(struct connection *connection, uint64_t number) {
    if (number > connection->lost)
        connection->lost = number;
    if (connection->up && number == connection->number && !connection->listing)
        fail(connection, "the connection was lost");
}

int connection_init(struct connection *connection, const struct vmibus_sensor_api *api, struct vmibus_sensor_host *host,
                    struct exchange *exchange, const char *uri, const struct connection_callbacks *callbacks, void *userdata) {
    struct listener *listener = calloc(1, sizeof(*listener));
    int r;

    *connection = (struct connection){
        .api = api, .exchange = exchange, .uri = uri, .callbacks = callbacks, .userdata = userdata};
    if (!listener)
        return -ENOMEM;
    listener->exchange = exchange_ref(exchange);
    r = caller_new(&connection->caller, exchange, uri, &hooks, listener);
    if (r < 0)
        return r;
    caller_stay(connection->caller);
    r = api->timer_new(host, on_timer, connection, &connection->timer);
    if (r < 0)
        return r;
    connection_list(connection);

    return 0;
}

void connection_deinit(struct connection *connection) {
    connection->caller = caller_leave(connection->caller);
    if (connection->api)
        connection->api->timer_free(connection->timer);
    connection->timer = NULL;
}
