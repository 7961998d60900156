/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases: exclusive ownership of a destructive class on one endpoint.
 *
 *      FREE --acquire--> HELD --release, expiry, preemption, disconnect--> REVOKING --drained--> FREE
 *                                                                             |
 *                                                                             +--deadline--> OUT_OF_SERVICE --drained--> FREE
 *
 * Revoke first, notify second: when a lease ends its token is dead before anybody hears of it, and the
 * next token is issued only after everything under the old one has finished: commands at sensors,
 * writes at the memory authority, and, for INPUT, the release of every held key.  Tokens only ever
 * rise; their upper half is the bus's incarnation, so none returns after a restart.
 *
 * Waiters are served in the order they came; a preemptor goes to the front, before lower ranks.
 */
#ifndef BUS_LEASE_H
#define BUS_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "policy/policy.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"

struct control;
struct endpoint;

#define LEASE_CLASSES POLICY_LEASE_CLASSES /* enum vmibus_lease_class, from 1 */

struct lease {
    struct endpoint *endpoint;
    enum vmibus_lease_class lease_class;
    enum vmibus_lease_state state;
    enum vmibus_reason reason;  /**< what changed it last */
    uint64_t token;             /**< the holder's, or the last holder's */
    uint64_t expires;           /**< CLOCK_MONOTONIC nanoseconds; 0: does not */
    struct control *holder;     /**< while HELD */
    struct list holder_link;    /**< control->leases, while HELD */
    struct charge charge;       /**< of the holder */
    uint32_t holder_uid, holder_pid, rank;
    uint32_t n_commands;        /**< being executed under the last token */
    uint32_t n_waiters;
    bool fence_drains;          /**< FENCE_REVOKE is not answered yet */
    bool input_drains;          /**< INPUT_RELEASE is due or not answered yet */
    bool ending;                /**< on the way from HELD to REVOKING */
    bool input_draining;        /**< it is on its way */
    struct list waiters;
    struct loop_timer timer;    /**< expiry while HELD, deadline while REVOKING */
};

/** Somebody in line. */
struct lease_waiter {
    struct lease *lease;
    struct control *control;
    struct list lease_link;
    struct list control_link;
    struct charge charge;
    struct vmibus_header header; /**< of the command, to answer it by */
    uint64_t received;
    uint64_t audit;
    uint32_t ttl_ms;
    uint32_t rank;
    uint64_t place;             /**< in the line, as it was handed over */
};

/** Prepares the lease of a class on an endpoint that has just come: nobody holds it. */
void lease_init(struct lease *lease, struct endpoint *endpoint, enum vmibus_lease_class lease_class);

/** The endpoint goes: waiters are answered GONE, the holder is told. */
void lease_deinit(struct lease *lease);

/**
 * Executes CMD_LEASE; answers it now, or when the lease comes (QUEUE, PREEMPT).
 * @param audit the command's audit record
 */
void lease_execute(struct lease *lease, struct control *control, const struct vmibus_frame *command, uint64_t received,
                   uint64_t audit);

/**
 * Checks a command's token against the holder.
 * @return VMIBUS_ERROR_OK, NO_LEASE or STALE_TOKEN, with a reason
 */
enum vmibus_error lease_check(const struct lease *lease, const struct control *control, uint64_t token, enum vmibus_reason *reason);

/** Ends the lease, if it is held. */
void lease_revoke(struct lease *lease, enum vmibus_reason reason);

/** Ends all that a control holds or waits for. */
void lease_drop_control(struct control *control, enum vmibus_reason reason);

/** A command begins under the lease's token. */
void lease_command_begin(struct lease *lease);

/** A command that began under some token ended. */
void lease_command_end(struct lease *lease);

/** Ends all that a control holds; it keeps its places in lines. */
void lease_end_all(struct control *control, enum vmibus_reason reason);

/** Tells a memory authority that begins to listen of the fence, or of a revocation that is not answered. MEMWRITE. */
void lease_tell_authority(const struct lease *lease);

/**
 * Another memory authority has taken the place of the one before: nothing is in flight under the last token. MEMWRITE.
 * @param was_there the holder may have had a memory channel, so the lease ends
 */
void lease_memory_replaced(struct lease *lease, bool was_there);

/** The memory authority says that nothing under this token is in flight any more. */
void lease_fence_drained(struct lease *lease, uint64_t token);

/**
 * The sensor answered INPUT_RELEASE.
 * @param released everything is released in the guest, or will be before any other input; false: it is tried again later
 */
void lease_input_answered(struct lease *lease, bool released);

/** A waiter as it was handed over, in its place. As charge_take() and region_take(). */
int lease_take_over_waiter(struct lease *lease, struct control *control, const struct lease_waiter *waiter);

/** The holder of a lease that was handed over as HELD is here. 0, CHARGE_QUOTA or CHARGE_PRESSURE. */
int lease_take_over_holder(struct lease *lease, struct control *control);

/** A lease that was handed over goes on. @param timer CLOCK_MONOTONIC nanoseconds of what was its deadline; 0: none */
void lease_go_on(struct lease *lease, uint64_t timer);

/** A provider that was waited for has come: what held keys there are can be released. */
void lease_see_claims(struct lease *lease);

#endif
