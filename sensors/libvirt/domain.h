/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One domain of libvirt's that runs, or ran a moment ago.
 *
 * It is looked at when libvirt lists it or tells that it started: whether it runs, in which process, and in
 * what state.  The endpoint belongs to the process: it stays while libvirtd is away, and a process that is
 * another one gets another.  What libvirt tells while a look is under way makes it look again.
 */
#ifndef SENSORS_LIBVIRT_DOMAIN_H
#define SENSORS_LIBVIRT_DOMAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

#include "exchange.h"
#include "keys.h"
#include "machine/machine.h"
#include "passage.h"

TAILQ_HEAD(domains, domain);

struct libvirt;

/** A domain. */
struct domain {
    TAILQ_ENTRY(domain) link;
    struct libvirt *libvirt;
    struct machine machine;
    struct passage passage;
    struct keys keys;
    uint8_t uuid[16];
    struct caller *caller;
    bool looking;
    bool look_again;
    bool passage_stuck; /**< message tells what to say to people */
    enum vmibus_lifecycle_cause beginning; /* what to tell when it is introduced */
    struct vmibus_sensor_source *process_source;
    bool process_ended;
    struct vmibus_sensor_timer *end_timer; /* for libvirt's word on why the process has ended */
    char message[400];                     /**< what troubles it, for people; empty: nothing */
};

/** Makes a domain, and looks at it. 0 or a negative errno. */
int domain_new(struct domain **domainp, struct libvirt *libvirt, const uint8_t *uuid, const char *name);

/** Frees it, not waiting for its thread; its endpoint is left to the host. Returns NULL. */
struct domain *domain_free(struct domain *domain);

/** Looks at it, now or after the look under way. */
void domain_look(struct domain *domain);

/** libvirt told of it. May free it. */
void domain_notice(struct domain *domain, const struct notice *notice);

/** Nobody tells what happens to it: what was known is not vouched for any more. */
void domain_lose_sight(struct domain *domain);

#endif
