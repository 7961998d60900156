/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events: one frame, shared by everybody it is delivered to, and what travels along.
 *
 * An event comes from a pool with a fixed capacity; making, queueing and delivering one allocates
 * nothing.  Part of the pool is kept back for answers, so that a flood of events can never leave a
 * command without its ACK.  A tail is shared and counted by itself: it outlives the event while it is
 * being sent.  Tails come from a store of their own beside the pool; what retained state keeps is the
 * sensors' side and on the heap, so that no peer can be in its way.
 */
#ifndef BUS_EVENT_H
#define BUS_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"
#include "util/pool.h"
#include "util/region.h"
#include "util/store.h"

/** Octets that follow a frame. */
struct tail {
    uint32_t refs;
    uint32_t length;
    struct pool *pool;      /**< of a store; NULL: on the heap */
    struct charge charge;   /**< of whoever asked for it */
    uint8_t data[];
};

/** Descriptors that travel with a frame: owned here, charged as in flight. */
struct event_fds {
    struct pool *pool;      /**< whose it is */
    struct charge charge;
    uint8_t n_fds;
    int fds[VMIBUS_FDS_PER_FRAME];
};

struct event {
    struct event_pool *pool;
    uint32_t refs;
    bool withdrawn; /**< not to be delivered any more */
    bool live;      /**< made as EVENT_LIVE */
    int8_t retained; /**< which retained state its frame is, an enum retained_kind; -1: none */
    uint32_t place; /**< among those handed over; 0: none yet */
    struct tail *tail;
    struct event_fds *fds;
    struct vmibus_frame frame;
};

/** What an event is made for. */
enum event_purpose {
    EVENT_LIVE,   /**< something published */
    EVENT_ANSWER, /**< an ACK, GAP or ERROR: may use what is kept back */
};

/** What there is room for. */
struct event_room {
    size_t live;        /**< events published */
    size_t answers;
    size_t fds;         /**< descriptors in flight */
    size_t tail_octets; /**< of all tails, about */
    size_t tail_bound;  /**< of one */
};

struct event_pool {
    struct pool blocks;
    size_t live_capacity;
    size_t n_live;          /**< blocks of EVENT_LIVE in use: answers that nobody reads take none of their room */
    struct pool fds;        /**< struct event_fds, one for each descriptor that can be charged */
    struct store tails;
};

/**
 * Copies octets into a tail with one reference.
 * @param account who asked for it, and pays what is really held; must outlive it. NULL: nobody, something is published
 * @return 0, CHARGE_QUOTA, CHARGE_PRESSURE or REGION_FULL
 */
int tail_new(struct tail **tailp, struct store *store, struct account *account, const void *data, size_t length);

/** The same on the heap, for retained state. NULL: out of memory. */
struct tail *tail_new_retained(const void *data, size_t length);

/** One more reference; NULL stays NULL. */
static inline struct tail *tail_ref(struct tail *tail) {
    if (tail)
        tail->refs++;
    return tail;
}

/** Frees it with the last reference. Takes and returns NULL. */
struct tail *tail_unref(struct tail *tail);

/** Carves an event pool from an arena. 0 or a negative errno. */
int event_pool_init(struct event_pool *pool, struct arena *arena, const struct event_room *room);

/** What event_pool_init() carves, octets. */
size_t event_pool_cost(const struct event_room *room);

/** Releases it; every event must be gone. Harmless on a zeroed pool. */
void event_pool_deinit(struct event_pool *pool);

/** An event with one reference, its frame a copy of @a frame, without tail and descriptors. NULL: the pool is exhausted. */
struct event *event_new(struct event_pool *pool, enum event_purpose purpose, const struct vmibus_frame *frame);

/** One more reference. */
static inline struct event *event_ref(struct event *event) {
    event->refs++;
    return event;
}

/** Releases tail, descriptors and block with the last reference. Takes and returns NULL. */
struct event *event_unref(struct event *event);

/** Gives the event a copy of @a data as its tail; sets the header's tail_length. Parameters and results as tail_new(). */
int event_set_tail(struct event *event, struct account *account, const void *data, size_t length);

/**
 * Gives the event duplicates of descriptors, charged to @a account as in flight; sets the header's fd_count.
 * @return 0, CHARGE_QUOTA, CHARGE_PRESSURE or a negative errno
 */
int event_dup_fds(struct event *event, struct account *account, const int *fds, size_t n_fds);

/** Closes and frees descriptors detached from an event. Takes and returns NULL. */
struct event_fds *event_fds_free(struct event_fds *fds);

#endif
