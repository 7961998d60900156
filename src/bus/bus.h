/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bus: endpoints, events, leases, grants, delivery.  It opens no file, knows no hypervisor and makes no
 * blocking call; whatever reaches it is a frame.  One thread owns a bus; several may live in one process.
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/command.h"
#include "bus/event.h"
#include "bus/sensor_place.h"
#include "bus/watch.h"
#include "policy/policy.h"
#include "util/audit.h"
#include "util/latency.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"
#include "util/pool.h"

struct endpoint;
struct control;

/**
 * Tells the memory authority: ENDPOINT_OPENED, ENDPOINT_CLOSED, FENCE_ISSUE, FENCE_REVOKE, SESSION_OPENED, SESSION_CLOSED,
 * QUIESCE_STATE, LINK_SYNCED.
 */
typedef void (*bus_link_fn)(void *context, const struct vmibus_frame *frame, const void *tail);

/** What the memory authority counts, for QUERY STATS. */
struct bus_memory_counters {
    uint64_t writes;
    uint64_t bytes_written;
    uint64_t epochs_ended;
    uint64_t attachments;
    uint64_t epochs_retiring;
    uint64_t reads;
    uint64_t bytes_read;
    uint64_t buffers;
    uint64_t buffer_bytes;
};

typedef void (*bus_memory_counters_fn)(void *context, struct bus_memory_counters *counters);

/** What the kernel says of this process, and what of it nobody's books explain: for QUERY STATS. */
struct bus_process_counters {
    uint64_t resident;              /**< octets */
    uint64_t resident_unaccounted;
    uint64_t fds_open;
    uint64_t fds_unaccounted;
};

/** False: it cannot be told now. */
typedef bool (*bus_process_counters_fn)(void *context, struct bus_process_counters *counters);

/** Somebody subscribes to RESOURCES of anything, or nobody does any more. */
typedef void (*bus_resources_wanted_fn)(void *context, bool wanted);

struct bus_options {
    struct loop *loop;              /**< borrowed */
    struct ledger *ledger;          /**< borrowed */
    struct arena *arena;            /**< borrowed: bus_memory_needed() octets are carved from it */
    struct audit *audit;            /**< borrowed */
    const struct policy *policy;    /**< borrowed; see bus_set_policy() */
    uint32_t incarnation;           /**< upper half of generations and tokens */
    uint32_t n_endpoints;           /**< highest slot */
    uint32_t n_connections;         /**< controls at most */
    uint32_t queue_depth;           /**< events per control */
    uint32_t commands;              /**< commands in flight and answers untaken, per control */
    uint32_t drain_ms;              /**< how long a revocation may take, and a guest to stand still or go on */
    uint32_t tail_bound;            /**< octets of an event's tail */
    size_t region_octets;           /**< what connections may hold together, and about as much again for tails */
    uint32_t hold_ms;               /**< how long one hold may keep a guest still */
    bus_link_fn link;               /**< NULL: no memory authority */
    bus_memory_counters_fn memory_counters;
    bus_process_counters_fn process_counters; /**< NULL: not told */
    bus_resources_wanted_fn resources_wanted; /**< NULL: nobody publishes RESOURCES */
    void *link_context;             /**< of all of these */
};

struct bus_counters {
    uint64_t published;
    uint64_t delivered;
    uint64_t dropped;
    uint64_t coalesced;
    uint64_t received;
    uint64_t refused;
    uint64_t connections_refused;
};

struct bus {
    struct bus_options options;
    struct loop *loop;
    struct ledger *ledger;
    struct audit *audit;
    const struct policy *policy;
    uint32_t n_endpoints;
    uint32_t n_present;             /**< endpoints on the roster */
    uint32_t n_controls;
    uint32_t n_leases;              /**< held */
    uint32_t n_held;                /**< guests held still, being stopped or let go */
    uint32_t n_subscriptions;
    uint32_t n_resources_wanted;    /**< endpoints of which somebody wants RESOURCES */
    uint32_t last_generation;       /**< lower halves of the last numbers given */
    uint32_t last_token;
    uint32_t last_slot;             /**< slots are reused as late as possible */
    uint16_t last_sensor;           /**< id */
    struct sensor_places sensor_places;
    bool hands_over;                /**< another process goes on with it: sensors that leave come again */
    struct endpoint **endpoints;    /**< by slot; [0] is the bus itself */
    struct list controls;
    struct list sensors;
    struct account *account;        /**< the bus's own */
    struct event_pool events;
    struct pool deliveries;
    struct pool regions;            /**< blocks for what controls hold */
    struct loop_timer claims;       /**< until when sensors of before a restart are waited for */
    struct command_table commands;
    struct watch_table watches;
    struct bus_counters counters;
    struct latencies latencies;     /**< of the commands of the bus channel */
    uint64_t kinds_by_capability[32];
};

/** What a bus carves from its arena, octets. The arena itself, the loop and the like need not be there yet. */
size_t bus_memory_needed(const struct bus_options *options);

/** Makes a bus. 0 or a negative errno (-ENOMEM also: the arena is too small). */
int bus_new(struct bus **busp, const struct bus_options *options);

/** Frees it; controls and sensors must be gone. Takes and returns NULL. */
struct bus *bus_free(struct bus *bus);

/** Replaces the policy: grants are looked up anew, what is no longer allowed ends. */
void bus_set_policy(struct bus *bus, const struct policy *policy);

/** Hears the memory authority: MEMCTX, MEMCTX_INVALIDATED, FENCE_DRAINED, QUIESCE_BEGIN, QUIESCE_END, SESSION_LOST. */
void bus_hear_link(struct bus *bus, const struct vmibus_frame *frame, const void *tail);

/** Tells the memory authority something about an endpoint (NULL: about none). */
void bus_tell_link(struct bus *bus, const struct endpoint *endpoint, struct vmibus_frame *frame, const void *tail);

/** The endpoint of this slot and generation; NULL: gone. */
struct endpoint *bus_endpoint(const struct bus *bus, uint32_t slot, uint64_t generation);

/** The event kinds that these capabilities allow to hear (VMIBUS_KIND_BITs). */
uint64_t bus_kinds_granted(const struct bus *bus, uint32_t capabilities);

/** Whether this incarnation has tokens left: there are 2^32 - 1. */
bool bus_has_token(const struct bus *bus);

/** A new token: higher than all before. There must be one. */
uint64_t bus_next_token(struct bus *bus);

/** Whether this incarnation has generations left: there are 2^32 - 1. */
bool bus_has_generation(const struct bus *bus);

/** A new generation: never used before. There must be one. */
uint64_t bus_next_generation(struct bus *bus);

#endif
