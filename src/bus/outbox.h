/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What waits to be delivered to one control, and in which order.
 *
 * Order: four lanes, higher priority first, each first in, first out.  A lane that was passed over
 * OUTBOX_PATIENCE times while it held something is served next, so none starves.  At the head of the
 * NORMAL lane stand what an overflow left behind (GAP), then retained state to be replayed: for a new
 * subscription before all that waits in the lane, after an overflow behind what waited when it
 * happened, which is where the gap is.  Delivery numbers are given when a frame leaves, so they have
 * no hole whatever was dropped or superseded before.
 *
 * Bounds: at most `depth` events wait.  One too many is dropped and counted for a GAP; if its kind is
 * retained nothing is lost: the endpoint's current state is replayed instead, and older deliveries of
 * that state that still wait are skipped, so a reader never sees an endpoint's retained state go
 * backwards.  Answers have room of their own, bounded by how many commands a control may have open.
 */
#ifndef BUS_OUTBOX_H
#define BUS_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/event.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/pool.h"

#define OUTBOX_LANES 4
#define OUTBOX_PATIENCE 32

struct binding;

/** One event waiting for one control. */
struct delivery {
    struct delivery *next;
    struct event *event;
    struct binding *farewell; /**< embedded in this binding, which ends with it; NULL: from the pool */
    bool answer;              /**< counts as an answer */
};

struct outbox_lane {
    struct delivery *first;
    struct delivery **last;
    uint32_t length; /**< deliveries in it */
    uint32_t passed; /**< how often another lane was served while this one held something */
};

struct outbox {
    struct pool *deliveries; /**< borrowed */
    struct charge charge;    /**< events that wait */
    uint32_t depth;
    uint32_t n_events;       /**< that wait, answers not counted */
    uint32_t n_answers;
    uint64_t sequence;       /**< last delivery number given */
    struct outbox_lane lanes[OUTBOX_LANES];
    unsigned filled;         /**< which lanes hold something: a bit for each */
    struct list replays;     /**< bindings with retained state to replay */
    uint32_t head_waits;     /**< deliveries of the NORMAL lane that go before gaps and replays */
    uint64_t gaps;           /**< VMIBUS_KIND_BITs of kinds dropped */
    uint64_t gaps_due;       /**< those of them that are told before the next piece of replay */
    bool replay_owed;        /**< what was due has been told */
    uint32_t dropped[64];    /**< how many, by kind bit */
};

/** Prepares an outbox for at most @a depth events, charged to @a account. */
void outbox_init(struct outbox *outbox, struct pool *deliveries, struct account *account, uint32_t depth);

/** Drops everything. Bindings must have been detached. */
void outbox_deinit(struct outbox *outbox);

/** Queues an event; takes a reference of its own. False: the outbox is full, the caller decides what that means. */
bool outbox_push_event(struct outbox *outbox, struct event *event);

/** Whether there is room for an answer that event_new() did not make: one that is handed over. */
bool outbox_has_room_for_answer(const struct outbox *outbox);

/** Queues an answer; consumes the caller's reference. */
void outbox_push_answer(struct outbox *outbox, struct event *event);

/** Queues an event in a delivery embedded in @a binding; always succeeds; takes a reference of its own. */
void outbox_push_farewell(struct outbox *outbox, struct delivery *delivery, struct event *event, struct binding *binding);

/** Counts a dropped event of this kind for the next GAP. */
void outbox_note_drop(struct outbox *outbox, uint16_t kind);

/**
 * Makes the frame of one GAP, if one is to be told now.  Once those that were due are told it says no once, so that a replay
 * has its turn before newer ones: a flood would otherwise leave nothing but gaps.
 */
bool outbox_take_gap(struct outbox *outbox, struct vmibus_frame *frame);

/** Whether it is the turn of gaps and replays, which counts as serving the NORMAL lane. */
bool outbox_head_is_due(struct outbox *outbox);

/** Lets gaps and replays go before everything that waits in the NORMAL lane: somebody waits for a replay. */
void outbox_hurry_head(struct outbox *outbox);

/**
 * Drops what waits of an endpoint's events and may not be told any more.
 * @param kinds VMIBUS_KIND_BITs of what may
 * @param floor retained state up to this publication has been superseded
 * @return how many of them were retained state
 */
uint32_t outbox_withdraw(struct outbox *outbox, uint32_t slot, uint64_t generation, uint64_t kinds, uint64_t floor);

/** Takes the next delivery from the lanes; NULL: they are empty. Give it to outbox_finish(). */
struct delivery *outbox_take(struct outbox *outbox);

/** Ends a delivery that outbox_take() gave: uncharges it, drops its event, frees it. */
void outbox_finish(struct outbox *outbox, struct delivery *delivery);

/** Whether anything waits. */
bool outbox_is_empty(const struct outbox *outbox);

#endif
