/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who provides what of an endpoint, and who of them does it.
 *
 * Each group of an endpoint has one active provider at most: of those that offer the group, one whose sensor has not failed
 * before one whose sensor has, one that offers it as a fallback last, and of equals the sensor that was added first.
 *
 * The group passes on in one of two ways.  From a provider that goes on living to a better one: once nothing is under way there,
 * neither a command nor a hold nor a key that may be down; watches end.  From one that is lost (withdrawn, gone, failed, or it
 * offers the group no more): at once, in this order: nobody is active; holds end; every command there is answered; the next one is
 * active; it releases the keys that may be down; only then is it sent anything else.
 *
 * LIFECYCLE of every provider is kept, and told of the active one only; the one that becomes active has its own told anew.
 */
#ifndef BUS_PROVIDER_H
#define BUS_PROVIDER_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/list.h"

struct endpoint;
struct sensor;

#define N_GROUPS 7 /* bits of VMIBUS_GROUP_ */

/** Groups whose providers only look at what is there: a VM does not stay for them. */
#define GROUPS_OF_KNOWLEDGE ((uint32_t)VMIBUS_GROUP_WATCH)

/** One sensor's offer of an endpoint. */
struct provider {
    struct sensor *sensor;
    struct endpoint *endpoint;
    uint32_t groups;            /**< VMIBUS_GROUP_ bits offered */
    uint32_t told;              /**< those for which the sensor believes itself to be active */
    bool is_answered;           /**< its offer was: it knows what endpoint it is told of */
    uint64_t offer;             /**< correlation of the offer: the sensor's name for its endpoint; 0: it joined */
    uint32_t former_slot;       /**< the endpoint that it was moved from: its sensor may not have heard of that yet */
    uint64_t former_generation; /**< 0: none */
    struct vmibus_lifecycle lifecycle;
    bool has_lifecycle;         /**< it told one */
    struct list endpoint_link;  /**< endpoint->providers, in order of offering */
    struct list sensor_link;    /**< sensor->providers */
};

/**
 * Adds a provider, or changes what it offers, and chooses who is active anew.
 * @param offer see struct provider; of one that is there already it is kept
 * @return 0 or -ENOMEM
 */
int provider_add(struct endpoint *endpoint, struct sensor *sensor, uint32_t groups, uint64_t offer);

/** Takes a provider away; the endpoint goes with its last one. */
void provider_remove(struct provider *provider, enum vmibus_reason reason);

/** The sensor knows its endpoint now: it is told for what it is active, and what was chosen is acted upon. */
void provider_answered(struct provider *provider);

/**
 * Takes away one whose sensor is started anew and has left a claim (claim.h): what it was doing is answered, and what waits
 * for it goes on waiting.
 */
void provider_leave(struct provider *provider);

/** Nobody is waited for any more: the memory authority hears it if nobody provides the memory. */
void providers_stop_waiting(struct endpoint *endpoint);

/** Forgets one, as its endpoint goes. */
void provider_free(struct provider *provider);

/** The provider of an endpoint that a sensor is; NULL: it is none. */
struct provider *provider_of(const struct endpoint *endpoint, const struct sensor *sensor);

/** Moves a provider to another endpoint, the same VM, and tells its sensor; it is dropped if the sensor is there already. */
void provider_move(struct provider *provider, struct endpoint *endpoint);

/** The sensor's state or what it is a fallback for has changed. */
void provider_see_sensor(struct provider *provider);

/** Something that kept a group where it was may have ended. */
void providers_see_idle(struct endpoint *endpoint);

/** A provider told the run state. True: it is the active one, so that it is to be published. */
bool provider_keep_lifecycle(struct provider *provider, const struct vmibus_lifecycle *lifecycle);

/** Tells the memory authority again who provides MEMORY, if it was ever told. */
void providers_tell_authority(struct endpoint *endpoint);

/** Writes into a roster entry who is active for what. */
void providers_describe(const struct endpoint *endpoint, struct vmibus_roster *roster);

#endif
