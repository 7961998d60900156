/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where sessions of a memory authority are made that has a process of its own.  It has three kinds of peers, each said by its
 * HELLO and let in by its uid, as this process's own accept tells it:
 *
 *      BUS      one at a time, of the policy's bus_users: the link, which becomes no session but is taken over here
 *      CONTROL  of a session that the bus told of, and of that session's user; what it may do the policy says
 *      SENSOR   likewise, of the policy's sensor_users
 *
 * Before a peer is read the link is: what the bus said before the peer heard of it is heard before the peer.
 */
#ifndef TRANSPORT_MEMORY_HOME_H
#define TRANSPORT_MEMORY_HOME_H

#include <stdint.h>

#include "bus/event.h"
#include "memory/handover.h"
#include "transport/link.h"
#include "transport/session.h"
#include "util/list.h"
#include "util/pool.h"

struct authority;
struct listener;
struct memory_home;

/** What has become of the link; for people. */
enum memory_home_news {
    MEMORY_HOME_LINKED,     /**< a bus came, and has told all */
    MEMORY_HOME_LOST,       /**< enum link_loss tells how */
};

struct memory_home_options {
    struct loop *loop;              /**< borrowed */
    struct ledger *ledger;          /**< borrowed */
    struct arena *arena;            /**< borrowed: memory_home_needed() octets are carved from it */
    const struct policy *policy;    /**< borrowed; see memory_home_set_policy() */
    uint32_t incarnation;
    uint32_t n_endpoints;
    uint32_t n_connections;
    uint32_t commands;              /**< in flight and answers untaken, per session */
    uint32_t tail_bound;
    uint32_t half_frame_ms;         /**< of the link */
    size_t region_octets;           /**< what sessions may hold together, and about as much again for tails */
    void (*news)(void *context, enum memory_home_news news, enum link_loss loss); /**< NULL: nobody wants them */
    void *news_context;
};

struct memory_home {
    struct session_home home;
    struct memory_home_options options;
    struct authority *authority;    /**< set by whoever makes it, with memory_home_tell() as its link */
    struct listener *listener;      /**< set likewise */
    struct link link;
    struct event_pool events;
    struct pool deliveries;
    struct pool regions;
    struct list sessions;
    struct authority_handover *handover; /**< while sessions are handed over, either way; borrowed */
    uint64_t n_refused;
};

/** What a home carves from its arena, octets. */
size_t memory_home_needed(const struct memory_home_options *options);

/** Octets of the largest session that it makes. */
size_t memory_home_session_octets(void);

/** Prepares it. 0 or a negative errno. */
int memory_home_init(struct memory_home *home, const struct memory_home_options *options);

/** Releases it; the listener and the authority must be gone. Harmless on zeros. */
void memory_home_deinit(struct memory_home *home);

/** Another policy is in force; the authority is told by its owner. Whom it names nowhere any more has to go. */
void memory_home_set_policy(struct memory_home *home, const struct policy *policy);

/** Tells the bus, if there is one: an authority_link_fn, whose context is the home. */
void memory_home_tell(void *context, const struct vmibus_frame *frame, const void *tail);

/** Whether the bus is linked and has told all: only then its link can be handed over. */
bool memory_home_is_linked(const struct memory_home *home);

/** Releases the charges of descriptors that peers have read by now. */
void memory_home_reclaim(struct memory_home *home);

#endif
