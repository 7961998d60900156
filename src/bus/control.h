/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A control: whoever consumes events and gives commands, behind a socket or in this process alike.
 * Whoever owns the other end submits frames and takes frames; the bus calls wake() when there is
 * something to take.
 */
#ifndef BUS_CONTROL_H
#define BUS_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/binding.h"
#include "bus/outbox.h"
#include "policy/policy.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/region.h"
#include "util/slot_table.h"

struct bus;

struct control_ops {
    /** There is something to take. Called often; must be cheap and must not take at once. */
    void (*wake)(struct control *control);
    /** The control must go: an ERROR that says why is the last thing to take. */
    void (*fail)(struct control *control);
    /** Releases the charges of descriptors that the other end has read by now. May be NULL. */
    void (*reclaim)(struct control *control);
};

struct control {
    struct bus *bus;
    const struct control_ops *ops;
    struct list link;               /**< bus->controls */
    struct principal principal;
    struct grant grant;             /**< on the bus itself */
    struct account *account;
    uint8_t session[16];
    enum vmibus_role role;          /**< whose place it is: CONTROL, or SENSOR of one that observes */
    uint64_t session_number;        /**< by which the audit log calls it */
    struct outbox outbox;
    struct region region;           /**< what the control holds, the client of its session included */
    struct slot_table bindings;     /**< of struct binding; NULL where the grant is empty */
    uint32_t n_farewells;
    bool failed;
    bool ended;                     /**< the ERROR was taken: nothing follows it */
    struct list subscriptions;
    struct list leases;             /**< held */
    struct list waiters;            /**< places in lease queues */
    struct list commands;           /**< being executed, or waiting for their time */
    struct list holds;              /**< on guests: in force, or waiting for that */
    struct list departures;         /**< ended ones whose LET_GO is not answered yet */
    struct list watches;
    uint32_t n_commands;
};

/** One frame on its way out; release with control_item_deinit(). */
struct control_item {
    struct vmibus_frame frame;
    struct tail *tail;
    struct event_fds *fds;
};

/**
 * Adds a control to the bus.
 * @param control   embedded in its owner
 * @param session   16 octets, random
 * @param refusal   says which limit was hit, if one was
 * @return 0, VMIBUS_ERROR_QUOTA, VMIBUS_ERROR_PRESSURE or a negative errno
 */
int control_init(struct control *control, struct bus *bus, const struct principal *principal, const uint8_t *session,
                 const struct control_ops *ops, struct vmibus_ack *refusal);

/**
 * The same for a control that is handed over: it has an account, and neither bindings nor anything else yet.
 * @return as control_init()
 */
int control_take_over(struct control *control, struct bus *bus, const struct principal *principal, const uint8_t *session,
                      const struct control_ops *ops, struct vmibus_ack *refusal);

/** Tells the memory authority that there is this session, so that its peer may open a memory channel. */
void control_tell_session(const struct control *control);

/** Takes it away: its leases end, its commands are cancelled. */
void control_deinit(struct control *control);

/**
 * Executes or begins a command of the bus channel. Exactly one ACK follows, now or later. In bus/submission.c.
 * @param frame    validated as far as the definition of the wire goes
 * @param tail     borrowed
 * @param received CLOCK_MONOTONIC nanoseconds
 */
void control_submit(struct control *control, const struct vmibus_frame *frame, const void *tail, uint64_t received);

/** Whether the control may submit now: while too many of its answers wait, its frames are not read. */
bool control_may_submit(const struct control *control);

/** Takes the next frame. False: nothing waits. */
bool control_take(struct control *control, struct control_item *item);

/** Releases what a taken frame brought along. */
void control_item_deinit(struct control_item *item);

/**
 * Answers a command: copies what the ACK's header and body tell. @a fds, charged in flight, and @a tail may be NULL.
 * @return false: descriptors or tail could not be taken along, so what is answered is a failure, and what was done must be undone
 */
bool control_answer(struct control *control, const struct vmibus_header *command, const struct vmibus_ack *ack, const void *tail,
                    size_t tail_length, const int *fds, size_t n_fds);

/** Queues an ERROR about the connection itself, and asks its owner to close it. */
void control_fail(struct control *control, enum vmibus_error error, enum vmibus_reason reason, uint64_t bound);

/** The same for a frame at fault: its kind (0: unknown), the offending value and the bound it broke. */
void control_fail_with(struct control *control, enum vmibus_error error, enum vmibus_reason reason, uint16_t offender,
                       uint64_t value, uint64_t bound);

/** Tells the owner that something waits. */
void control_wake(struct control *control);

/** The control's binding to an endpoint of this generation; NULL: it may not know of it. */
struct binding *control_binding(const struct control *control, uint32_t slot, uint64_t generation);

/** Looks all grants up anew after the policy was replaced. */
void control_renew_grants(struct control *control);

/** An endpoint's UUID has been learnt: looks its grant up anew, and whether it is subscribed to. */
void control_see_identity(struct control *control, struct endpoint *endpoint);

/** The control's binding to whatever is in this slot; NULL: none. */
static inline struct binding *control_binding_in(const struct control *control, uint32_t slot) {
    return slot_table_get(&control->bindings, slot);
}

/** Binds the control to an endpoint that comes if the policy says so; one that cannot pay for it has to go, not the endpoint. */
void control_bind_or_fail(struct control *control, struct endpoint *endpoint);

#endif
