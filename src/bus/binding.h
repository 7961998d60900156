/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A binding: what one control may do with one endpoint, what it wants to hear of it, and how far it
 * has been told its retained state.
 *
 * There is one for every control and endpoint that the policy brings together, and none where the
 * grant is empty: default deny is the absence of a binding.  It ends with its control or its endpoint,
 * whichever goes first; where the control was told of the endpoint, it lives on as the carrier of
 * the endpoint's last ROSTER event, so that a removal is never lost.
 */
#ifndef BUS_BINDING_H
#define BUS_BINDING_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/outbox.h"
#include "policy/policy.h"
#include "util/list.h"

struct control;
struct endpoint;

struct binding {
    struct control *control;
    struct endpoint *endpoint;  /**< NULL once it carries a farewell */
    struct grant grant;
    uint64_t kinds;             /**< VMIBUS_KIND_BITs: subscribed and granted */
    struct list endpoint_link;  /**< endpoint->bindings */
    struct list subscriber_link; /**< endpoint->subscribers, while kinds is not 0 */
    struct list replay_link;    /**< outbox->replays, while stale is not 0 */
    uint8_t stale;              /**< bits of enum retained_kind to replay */
    bool lossy;                 /**< an overflow made the replay due: what it supersedes was dropped */
    bool announced;             /**< the control was told of the endpoint */
    uint64_t floor;             /**< retained state up to this publication has been told, or superseded */
    uint32_t n_queued;          /**< retained state that waits in the lanes */
    struct delivery farewell;
};

/** Binds a control to an endpoint under a grant that is not empty. As region_take(). */
int binding_new(struct binding **bindingp, struct control *control, struct endpoint *endpoint, struct grant grant);

/** Ends a binding. Takes and returns NULL. */
struct binding *binding_free(struct binding *binding);

/** The endpoint goes: its ROSTER event is the last thing that is delivered, if the control had been told of it. */
void binding_bid_farewell(struct binding *binding, struct event *event);

/** Replaces the grant; kinds that it does not cover any more are not delivered from now on, not even what waits. */
void binding_set_grant(struct binding *binding, struct grant grant);

/** Sets the kinds subscribed; retained state of kinds that are new is replayed. */
void binding_subscribe(struct binding *binding, uint64_t kinds);

/** What is subscribed, and which retained state is to be replayed, as it was handed over. */
void binding_take_over(struct binding *binding, uint64_t kinds, uint8_t stale);

/** Queues an event for the binding's control, or notes that it was dropped. */
void binding_deliver(struct binding *binding, struct event *event);

/** Notes that an event could not be queued: it counts for a GAP, and retained state is replayed later. */
void binding_drop(struct binding *binding, const struct vmibus_frame *frame);

/**
 * Takes the oldest piece of retained state that is to be replayed; but ROSTER first, where the control has not been told of the
 * endpoint yet.  If it was published after others, its copy is numbered before the oldest of them, so that numbers rise.
 * @return true and the frame with its tail (referenced, may be NULL); false: nothing is left, and the binding is off the
 *         replay list
 */
bool binding_take_replay(struct binding *binding, struct vmibus_frame *frame, struct tail **tailp);

/** A piece of retained state left the lanes. Returns whether something newer was told already, so that it must not be delivered. */
bool binding_settle(struct binding *binding, const struct event *event);

#endif
