/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Claims: what sensors provided before the daemon was started anew, or before they were by themselves.  They offer their VMs
 * again in their own time; meanwhile the endpoint stays what it was, with slot and generation, and what asks for a group
 * that is claimed waits for its provider.  Claims that nobody has made good after CLAIM_MS are dropped, and an endpoint that
 * is provided by nobody then goes.
 */
#ifndef BUS_CLAIM_H
#define BUS_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"
#include "util/loop.h"

struct bus;
struct endpoint;
struct endpoint_identity;
struct sensor;

#define CLAIM_MS 10000

struct claim {
    struct list link;           /**< endpoint->claims */
    uint32_t groups;            /**< VMIBUS_GROUP_ bits that it provided */
    char sensor[32];            /**< its name */
};

/** A sensor provided these groups. 0 or -ENOMEM. */
int claim_new(struct endpoint *endpoint, const char *sensor, uint32_t groups);

/** A sensor is started anew: its providers leave, each with a claim. */
void claims_leave(struct sensor *sensor);

/** What is claimed of an endpoint. */
uint32_t claims_groups(const struct endpoint *endpoint);

/** Whether a group (one VMIBUS_GROUP_ bit) is claimed that nobody provides now: it is worth waiting. */
bool claims_promise(const struct endpoint *endpoint, uint32_t group);

/**
 * The endpoint that a sensor claims and offers again; NULL: what it offers is another one.  Where neither UUID nor process tells,
 * the name does: one sensor calls no two VMs alike.
 */
struct endpoint *claims_find_endpoint(struct bus *bus, const struct sensor *sensor, const struct endpoint_identity *identity);

/** Whether the provider of a group has just made its claim good and kept what it knew, so that what it holds stays held. */
bool claim_keeps(const struct endpoint *endpoint, uint32_t group);

/** The sensor has offered the endpoint again. False: it had no claim. */
bool claim_make_good(struct endpoint *endpoint, const struct sensor *sensor);

/** Providers have come, or are not waited for any more: what waits for them goes on. */
void claims_see_providers(struct endpoint *endpoint);

/** Time has run out: nobody is waited for any more. The endpoint may be gone afterwards. */
void claims_end(struct endpoint *endpoint);

/** Time has run out for all: a timer of the bus. */
void claims_time_out(struct loop_timer *timer);

/** Forgets them: the endpoint goes. */
void claims_drop(struct endpoint *endpoint);

#endif
