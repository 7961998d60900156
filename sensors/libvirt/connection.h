/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connection by which libvirt tells what happens: domains that run are listed when it is made, and what
 * changes comes as notices of the exchange.  It makes no calls about one domain, so no QEMU can hang it.
 *
 * A connection that is lost, refused, or not answered is tried again, with rising pauses and without end.  A
 * libvirtd that stands still is noticed by libvirt's keep-alive.
 */
#ifndef SENSORS_LIBVIRT_CONNECTION_H
#define SENSORS_LIBVIRT_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "caller.h"

/** Domains taken from a list. */
#define CONNECTION_DOMAINS_BOUND 4096
/** Pauses between attempts: from, to. */
#define CONNECTION_PAUSE_MIN_NS (UINT64_C(250) * 1000 * 1000)
#define CONNECTION_PAUSE_MAX_NS (UINT64_C(30) * 1000 * 1000 * 1000)
/** How long an attempt may take before people are told. */
#define CONNECTION_SILENCE_NS (UINT64_C(5) * 1000 * 1000 * 1000)

/** A domain that runs. */
struct listed_domain {
    uint8_t uuid[16];
    char name[256];
};

/** What the owner of a connection learns, on the loop. */
struct connection_callbacks {
    /** It is there, or everything is to be looked at anew: the domains that run. */
    void (*listed)(void *userdata, const struct listed_domain *domains, size_t n_domains);
    /** It is not there; @a message is for people. */
    void (*lost)(void *userdata, const char *message);
};

struct connection {
    const struct vmibus_sensor_api *api;
    struct exchange *exchange; /* borrowed */
    const char *uri;           /* borrowed */
    const struct connection_callbacks *callbacks;
    void *userdata;
    struct caller *caller;
    struct vmibus_sensor_timer *timer; /* to try again, or until people are told */
    bool up;
    bool listing;
    bool again;       /* a list is wanted after the one under way */
    uint64_t number;  /* of the connection that was listed last */
    uint64_t lost;    /* of the last one that was lost */
    unsigned int failures;
};

/** Begins to connect. @a uri and @a callbacks are borrowed. 0 or a negative errno; to be ended in both cases. */
int connection_init(struct connection *connection, const struct vmibus_sensor_api *api, struct vmibus_sensor_host *host,
                    struct exchange *exchange, const char *uri, const struct connection_callbacks *callbacks, void *userdata);

/** Leaves it. */
void connection_deinit(struct connection *connection);

/** A connection told NOTICE_LOST. */
void connection_lost(struct connection *connection, uint64_t number);

/** Has the domains listed again. */
void connection_list(struct connection *connection);

#endif
