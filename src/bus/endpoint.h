/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An endpoint: one VM as the bus sees it.  Named by slot and generation; the generation is new at
 * every reuse of a slot, so nothing addressed to one occupant reaches the next.  Owns its retained
 * state, its leases, and the list of who provides what for it.
 *
 * Slot 0 is the bus itself: it carries what concerns no VM (SENSOR) and is not on the roster.
 */
#ifndef BUS_ENDPOINT_H
#define BUS_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/event.h"
#include "bus/hold.h"
#include "bus/lease.h"
#include "bus/pressed.h"
#include "bus/provider.h"
#include "bus/retained.h"
#include "util/list.h"

struct binding;
struct bus;
struct sensor;

struct endpoint {
    struct bus *bus;
    uint32_t slot;
    uint64_t generation;
    char name[VMIBUS_NAME_BOUND + 1];
    uint8_t uuid[16];
    bool uuid_doubted;              /**< who introduced the VM has not said it: nobody is granted anything by it */
    const struct sensor *introducer; /**< who that is; NULL: it has gone */
    char introduced_by[32];         /**< its name, by which it is known after a restart */
    uint32_t pid;
    uint64_t start_time;
    uint64_t publication;           /**< last publication number given */
    uint64_t demand;                /**< kinds that somebody subscribes to, as last told to providers */
    struct charge charge;
    struct list bindings;
    struct list subscribers;        /**< bindings with kinds */
    struct list providers;
    struct list claims;             /**< of sensors that provided it before a restart */
    struct list commands;           /**< being executed or waiting for their time */
    struct list watches;
    struct provider *active[N_GROUPS];
    uint8_t memory_session[16];     /**< of MEMORY's active provider, as last told to the memory authority */
    bool memory_session_told;
    bool announced;                 /**< on the roster */
    bool claiming;                  /**< a provider is added that was one before the restart */
    bool choice_waits;              /**< a better provider waits until nothing is under way */
    bool passing_on;                /**< a provider is lost, and the next one not chosen yet */
    uint32_t unsettled;             /**< groups whose active provider is another one, which is not acted upon yet */
    struct pressed pressed;         /**< keys that may be down in the guest */
    struct lease leases[LEASE_CLASSES];
    struct holding holding;
    struct retained retained[N_RETAINED];
    struct event *memctx_event;     /**< the last MEMCTX, to withdraw it where it still waits; NULL: none */
};

/** What is known of a VM when it is offered. */
struct endpoint_identity {
    const char *name;
    uint8_t uuid[16];
    uint32_t pid;
    uint64_t start_time;
};

/**
 * Makes an endpoint in a free slot, binds the controls that policy brings together with it and publishes ROSTER.
 * @param offer see provider_add()
 * @return 0, VMIBUS_ERROR_PRESSURE (all slots in use) or a negative errno
 */
int endpoint_new(struct endpoint **endpointp, struct bus *bus, const struct endpoint_identity *identity, struct sensor *sensor,
                 uint32_t groups, uint64_t offer);

/** Makes one that was handed over in its slot: nobody is told, and nobody provides it yet. 0, -ENOMEM, or as charge_take(). */
int endpoint_take_over(struct endpoint **endpointp, struct bus *bus, uint32_t slot);

/** Makes the endpoint of slot 0. */
int endpoint_new_bus(struct endpoint **endpointp, struct bus *bus);

/** The endpoint is gone for one control, whose binding ends: the last that it is told is a removal, as if it were gone. */
void endpoint_leave_control(struct endpoint *endpoint, struct binding *binding);

/** Removes it: answers its commands GONE, ends its leases, publishes ROSTER REMOVED. Takes and returns NULL. */
struct endpoint *endpoint_free(struct endpoint *endpoint, enum vmibus_reason reason);

/** Tells the memory authority that it exists, or that its UUID has been learnt, and who provides its memory. */
void endpoint_tell_opened(struct endpoint *endpoint);

/** Whose word counts for grants (offer.h). @param sensor NULL: nobody's any more */
void endpoint_set_introducer(struct endpoint *endpoint, const struct sensor *sensor);

/** The UUID by which policy knows it: zeros if there is none, or none that counts. */
const uint8_t *endpoint_granted_uuid(const struct endpoint *endpoint);

/** What its providers offer together. */
uint32_t endpoint_groups(const struct endpoint *endpoint);

/** Whether a sensor offers the endpoint. */
bool endpoint_has_provider(const struct endpoint *endpoint, const struct sensor *sensor);

/** Who executes commands of a group (one VMIBUS_GROUP_ bit); NULL: nobody. */
struct sensor *endpoint_provider(const struct endpoint *endpoint, uint32_t group);

/**
 * Publishes an event: numbers it, retains it, queues it for every subscriber.  The header's endpoint, sequence, direction and
 * (for retained kinds) priority are set here; tail_length tells the length of @a tail.
 */
void endpoint_publish(struct endpoint *endpoint, struct vmibus_frame *frame, const void *tail);

/** Publishes an event for one control alone, subscribed or not; NULL: it may not know of the endpoint, and is told nothing. */
void endpoint_publish_to(struct endpoint *endpoint, struct binding *binding, struct vmibus_frame *frame, const void *tail);

/** Fills in what a published event's header says of where and when. */
void endpoint_number(struct endpoint *endpoint, struct vmibus_frame *frame);

/** Publishes ROSTER with what is known. */
void endpoint_publish_roster(struct endpoint *endpoint, enum vmibus_roster_change change);

/** Whether the last roster entry says the same as one would now. */
bool endpoint_roster_is_current(const struct endpoint *endpoint);

/** Tells one provider which kinds are in demand, if any are. */
void endpoint_tell_demand(struct endpoint *endpoint, struct sensor *sensor);

/** Recomputes which kinds are in demand and tells the providers if that changed. */
void endpoint_update_demand(struct endpoint *endpoint);

#endif
