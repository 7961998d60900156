/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/lease.h"

#include <assert.h>
#include <string.h>

#include "bus/binding.h"
#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/command.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "util/clock.h"
#include "util/refusal.h"

static struct bus *lease_bus(const struct lease *lease) {
    return lease->endpoint->bus;
}

/* --- telling ----------------------------------------------------------------------------------- */

static void lease_frame(const struct lease *lease, struct vmibus_frame *frame) {
    *frame = (struct vmibus_frame){
        .header = {.kind = VMIBUS_KIND_LEASE},
        .lease = {.token = lease->token,
                  .expires = lease->expires,
                  .lease_class = (uint8_t)lease->lease_class,
                  .state = (uint8_t)lease->state,
                  .reason = (uint16_t)lease->reason,
                  .holder_uid = lease->holder_uid,
                  .holder_pid = lease->holder_pid,
                  .rank = lease->rank,
                  .waiters = lease->n_waiters},
    };
}

static void lease_publish(struct lease *lease) {
    struct vmibus_frame frame;

    lease_frame(lease, &frame);
    endpoint_publish(lease->endpoint, &frame, NULL);
}

/* Whoever lost a lease is told, also without a subscription: it would otherwise learn of it by a refused command. */
static void tell_last_holder(const struct lease *lease, struct control *control) {
    const struct binding *binding = control_binding(control, lease->endpoint->slot, lease->endpoint->generation);
    struct vmibus_frame frame;
    struct event *event;

    if (control->failed || (binding && binding->kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE)))
        return;
    lease_frame(lease, &frame);
    frame.header.direction = VMIBUS_DIRECTION_UP;
    frame.header.priority = VMIBUS_PRIORITY_HIGH;
    frame.header.version = VMIBUS_PROTOCOL_VERSION;
    frame.header.slot = lease->endpoint->slot;
    frame.header.generation = lease->endpoint->generation;
    frame.header.timestamp = clock_now();
    event = event_new(&lease_bus(lease)->events, EVENT_ANSWER, &frame);
    if (!event)
        return;
    outbox_push_answer(&control->outbox, event);
    control_wake(control);
}

static void answer(struct control *control, const struct vmibus_header *command, uint64_t received, uint64_t audit,
                   const struct vmibus_ack *result) {
    struct vmibus_ack ack = *result;

    ack.received = received;
    ack.started = ack.finished = clock_now();
    audit_finish(control->bus->audit, audit, &ack);
    control_answer(control, command, &ack, NULL, 0, NULL, 0);
}

static void refuse(struct control *control, const struct vmibus_header *command, uint64_t received, uint64_t audit,
                   enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    const struct vmibus_ack ack = {.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};

    answer(control, command, received, audit, &ack);
}

/* --- waiters ----------------------------------------------------------------------------------- */

static void waiter_free(struct lease_waiter *waiter) {
    list_unlink(&waiter->lease_link);
    list_unlink(&waiter->control_link);
    waiter->lease->n_waiters--;
    charge_release(&waiter->charge);
    region_give(&waiter->control->region, waiter, sizeof(*waiter));
}

static void waiter_refuse(struct lease_waiter *waiter, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    refuse(waiter->control, &waiter->header, waiter->received, waiter->audit, error, reason, value);
    waiter_free(waiter);
}

/* --- holding ----------------------------------------------------------------------------------- */

static void fence_issue(const struct lease *lease) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_FENCE_ISSUE},
        .fence_issue = {.token = lease->token, .expires = lease->expires, .uid = lease->holder_uid},
    };

    if (lease->lease_class != VMIBUS_LEASE_CLASS_MEMWRITE)
        return;
    memcpy(frame.fence_issue.session, lease->holder->session, sizeof(frame.fence_issue.session));
    bus_tell_link(lease_bus(lease), lease->endpoint, &frame, NULL);
}

static void fence_revoke(const struct lease *lease) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_FENCE_REVOKE},
        .fence_revoke = {.token = lease->token},
    };

    bus_tell_link(lease_bus(lease), lease->endpoint, &frame, NULL);
}

/* The time to live asked for, as far as the grant goes. */
static void lease_set_ttl(struct lease *lease, const struct binding *binding, uint32_t ttl_ms) {
    uint32_t bound = binding->grant.lease_ttl_ms[lease->lease_class - 1];

    if (bound && (ttl_ms == 0 || ttl_ms > bound))
        ttl_ms = bound;
    lease->expires = ttl_ms ? clock_now() + ttl_ms * NS_PER_MS : 0;
    if (!ttl_ms)
        loop_timer_cancel(&lease->timer);
    else if (loop_timer_set(&lease->timer, lease->expires) < 0)
        lease->expires = 0; /* it then lasts until released: shorter would be a lie, the authority would end it alone */
}

/*
 * FREE -> HELD.  The charge is taken from whoever gets the lease; the authority knows the fence before the holder knows the token,
 * so the first write cannot outrun it.
 */
static int lease_grant(struct lease *lease, struct control *control, uint32_t ttl_ms) {
    const struct binding *binding = control_binding(control, lease->endpoint->slot, lease->endpoint->generation);
    int r;

    assert(lease->state == VMIBUS_LEASE_STATE_FREE && binding);
    if (!bus_has_token(lease_bus(lease)))
        return CHARGE_PRESSURE;
    r = charge_take(&lease->charge, control->account, RESOURCE_LEASES, 1);
    if (r)
        return r;
    lease->state = VMIBUS_LEASE_STATE_HELD;
    lease->reason = VMIBUS_REASON_NONE;
    lease->token = bus_next_token(lease_bus(lease));
    lease->holder = control;
    lease->holder_uid = control->principal.uid;
    lease->holder_pid = (uint32_t)control->principal.pid;
    lease->rank = binding->grant.rank;
    list_append(&control->leases, &lease->holder_link);
    lease_bus(lease)->n_leases++;
    lease_set_ttl(lease, binding, ttl_ms);
    fence_issue(lease);
    lease_publish(lease);
    return 0;
}

static void answer_granted(const struct lease *lease, struct control *control, const struct vmibus_header *command,
                           uint64_t received, uint64_t audit) {
    const struct vmibus_ack ack = {.token = lease->token, .value = lease->expires};

    answer(control, command, received, audit, &ack);
}

static void answer_charge_refused(struct control *control, const struct vmibus_header *command, uint64_t received, uint64_t audit,
                                  int r, enum resource resource) {
    struct vmibus_ack ack = {};

    (void)refusal_of_charge(&ack, r, control->account, resource);
    answer(control, command, received, audit, &ack);
}

static bool may_hold(const struct lease *lease, const struct control *control) {
    const struct binding *binding = control_binding(control, lease->endpoint->slot, lease->endpoint->generation);

    return binding && binding->grant.capabilities & policy_lease_capabilities(lease->lease_class);
}

/* FREE: the first in line that can pay gets it. */
static void lease_serve_waiters(struct lease *lease) {
    while (lease->state == VMIBUS_LEASE_STATE_FREE && !list_is_empty(&lease->waiters)) {
        struct lease_waiter *waiter = list_first(&lease->waiters, struct lease_waiter, lease_link);
        struct lease_waiter served = *waiter;
        int r;

        waiter_free(waiter);
        if (!may_hold(lease, served.control)) {
            /* The policy changed while it waited. */
            refuse(served.control, &served.header, served.received, served.audit, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY,
                   policy_lease_capabilities(lease->lease_class));
            continue;
        }
        r = lease_grant(lease, served.control, served.ttl_ms);
        if (r)
            answer_charge_refused(served.control, &served.header, served.received, served.audit, r, RESOURCE_LEASES);
        else
            answer_granted(lease, served.control, &served.header, served.received, served.audit);
    }
}

/* --- ending ------------------------------------------------------------------------------------ */

static bool lease_is_drained(const struct lease *lease) {
    return lease->n_commands == 0 && !lease->fence_drains && !lease->input_drains;
}

static bool lease_is_draining(const struct lease *lease) {
    return lease->state == VMIBUS_LEASE_STATE_REVOKING || lease->state == VMIBUS_LEASE_STATE_OUT_OF_SERVICE;
}

/* REVOKING or OUT_OF_SERVICE -> FREE, once nothing of the last holder is in flight. */
static void lease_try_free(struct lease *lease) {
    if (lease->ending || !lease_is_draining(lease))
        return;
    /* Held keys are released after the last input command, or it could press one again. */
    if (lease->n_commands == 0 && lease->input_drains && !lease->input_draining && !lease->endpoint->passing_on) {
        lease->input_draining = true;
        command_begin_input_release(lease->endpoint, lease);
    }
    /* The release may have been answered at once, and the next holder be there already. */
    if (!lease_is_drained(lease) || !lease_is_draining(lease))
        return;
    loop_timer_cancel(&lease->timer);
    lease->state = VMIBUS_LEASE_STATE_FREE;
    lease->expires = 0;
    lease_serve_waiters(lease);
    if (lease->state == VMIBUS_LEASE_STATE_FREE)
        lease_publish(lease);
}

/* REVOKING -> OUT_OF_SERVICE. */
static void lease_close(struct lease *lease) {
    lease->state = VMIBUS_LEASE_STATE_OUT_OF_SERVICE;
    lease->reason = VMIBUS_REASON_OUT_OF_SERVICE;
    lease_publish(lease);
    while (!list_is_empty(&lease->waiters))
        waiter_refuse(list_first(&lease->waiters, struct lease_waiter, lease_link), VMIBUS_ERROR_BUSY, VMIBUS_REASON_OUT_OF_SERVICE,
                      0);
}

/*
 * HELD -> REVOKING.  The token is dead from here on: the bus refuses it because the lease is not HELD, the authority because the
 * fence is revoked before anybody is told.
 */
static void lease_end(struct lease *lease, enum vmibus_reason reason) {
    struct bus *bus = lease_bus(lease);
    struct control *holder = lease->holder;

    assert(lease->state == VMIBUS_LEASE_STATE_HELD);
    lease->state = VMIBUS_LEASE_STATE_REVOKING;
    lease->reason = reason;
    lease->holder = NULL;
    list_unlink(&lease->holder_link);
    charge_release(&lease->charge);
    bus->n_leases--;
    lease->input_drains = lease->lease_class == VMIBUS_LEASE_CLASS_INPUT;
    lease->fence_drains = lease->lease_class == VMIBUS_LEASE_CLASS_MEMWRITE && bus->options.link;
    if (loop_timer_set(&lease->timer, clock_now() + bus->options.drain_ms * NS_PER_MS) < 0)
        loop_timer_cancel(&lease->timer);
    lease->ending = true; /* an answer that comes at once must not let the next holder in before the last one is told */
    if (lease->fence_drains)
        fence_revoke(lease);
    /* Whoever released it learns by the answer. */
    if (reason != VMIBUS_REASON_RELEASED)
        tell_last_holder(lease, holder);
    /* What waits for its time will not be executed, so nobody has to wait for it. */
    command_drop_waiting(lease, reason);
    lease->ending = false;
    lease_try_free(lease);
    if (lease->state != VMIBUS_LEASE_STATE_REVOKING)
        return;
    /* Nobody may wait for what has no deadline. */
    if (loop_timer_is_armed(&lease->timer))
        lease_publish(lease);
    else
        lease_close(lease);
}

/*
 * A release that the sensor could not do is asked for again, as long as the class is closed for it; without a timer, when somebody
 * wants the class.
 */
static void lease_retry_release(struct lease *lease) {
    if (lease->input_drains && !lease->input_draining)
        lease_try_free(lease);
    if (lease->state == VMIBUS_LEASE_STATE_OUT_OF_SERVICE && lease->input_drains)
        (void)loop_timer_set(&lease->timer, clock_now() + lease_bus(lease)->options.drain_ms * NS_PER_MS);
}

static void lease_timer_fired(struct loop_timer *timer) {
    struct lease *lease = container_of(timer, struct lease, timer);

    if (lease->state == VMIBUS_LEASE_STATE_HELD) {
        lease_end(lease, VMIBUS_REASON_LEASE_EXPIRED);
        return;
    }
    if (lease->state == VMIBUS_LEASE_STATE_REVOKING)
        lease_close(lease);
    lease_retry_release(lease);
}

void lease_revoke(struct lease *lease, enum vmibus_reason reason) {
    if (lease->state == VMIBUS_LEASE_STATE_HELD)
        lease_end(lease, reason);
}

void lease_drop_control(struct control *control, enum vmibus_reason reason) {
    while (!list_is_empty(&control->waiters))
        waiter_free(list_first(&control->waiters, struct lease_waiter, control_link));
    lease_end_all(control, reason);
}

void lease_end_all(struct control *control, enum vmibus_reason reason) {
    while (!list_is_empty(&control->leases))
        lease_end(list_first(&control->leases, struct lease, holder_link), reason);
}

void lease_tell_authority(const struct lease *lease) {
    if (lease->state == VMIBUS_LEASE_STATE_HELD)
        fence_issue(lease);
    else if (lease->fence_drains)
        fence_revoke(lease);
}

void lease_memory_replaced(struct lease *lease, bool was_there) {
    if (was_there && lease->state == VMIBUS_LEASE_STATE_HELD)
        lease_end(lease, VMIBUS_REASON_MEMORY_LOST);
    if (lease->fence_drains)
        lease_fence_drained(lease, lease->token);
}

void lease_command_begin(struct lease *lease) {
    lease->n_commands++;
}

void lease_command_end(struct lease *lease) {
    lease->n_commands--;
    lease_try_free(lease);
}

void lease_fence_drained(struct lease *lease, uint64_t token) {
    if (token != lease->token)
        return;
    lease->fence_drains = false;
    lease_try_free(lease);
}

void lease_input_answered(struct lease *lease, bool released) {
    lease->input_draining = false;
    /* Keys that may still be down are nobody's to inherit: the class stays closed, and the timer tries again. */
    if (!released)
        return;
    lease->input_drains = false;
    lease_try_free(lease);
}

/* --- commands ---------------------------------------------------------------------------------- */

static bool waits_already(const struct lease *lease, const struct control *control) {
    const struct lease_waiter *waiter;

    list_for_each(waiter, &lease->waiters, lease_link)
        if (waiter->control == control)
            return true;
    return false;
}

/* Puts a command in line: a preemptor before the first waiter of lower rank, anyone else at the end. False: it was refused. */
static bool lease_queue(struct lease *lease, struct control *control, const struct vmibus_frame *command, uint64_t received,
                        uint64_t audit, uint32_t rank) {
    struct lease_waiter *waiter, *other;
    struct vmibus_ack refusal = {};
    void *memory;
    int r = region_take(&control->region, sizeof(*waiter), &memory);

    if (r) {
        (void)region_refusal(&refusal, r, &control->region);
        answer(control, &command->header, received, audit, &refusal);
        return false;
    }
    waiter = memory;
    r = charge_take(&waiter->charge, control->account, RESOURCE_WAITERS, 1);
    if (r) {
        region_give(&control->region, waiter, sizeof(*waiter));
        answer_charge_refused(control, &command->header, received, audit, r, RESOURCE_WAITERS);
        return false;
    }
    waiter->lease = lease;
    waiter->control = control;
    waiter->header = command->header;
    waiter->received = received;
    waiter->audit = audit;
    waiter->ttl_ms = command->cmd_lease.ttl_ms;
    waiter->rank = rank;
    list_append(&control->waiters, &waiter->control_link);
    lease->n_waiters++;
    if (command->cmd_lease.mode == VMIBUS_LEASE_MODE_PREEMPT)
        list_for_each(other, &lease->waiters, lease_link)
            if (other->rank < rank) {
                list_insert_between(&waiter->lease_link, other->lease_link.previous, &other->lease_link);
                return true;
            }
    list_append(&lease->waiters, &waiter->lease_link);
    return true;
}

static void lease_preempt(struct lease *lease, struct control *control, const struct vmibus_frame *command, uint64_t received,
                          uint64_t audit, const struct grant *grant) {
    if (!(grant->capabilities & VMIBUS_CAP_PREEMPT)) {
        refuse(control, &command->header, received, audit, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, VMIBUS_CAP_PREEMPT);
        return;
    }
    if (lease->state == VMIBUS_LEASE_STATE_HELD && lease->rank >= grant->rank) {
        refuse(control, &command->header, received, audit, VMIBUS_ERROR_BUSY, VMIBUS_REASON_RANK, lease->rank);
        return;
    }
    if (lease_queue(lease, control, command, received, audit, grant->rank))
        lease_revoke(lease, VMIBUS_REASON_PREEMPTED);
}

static void lease_acquire(struct lease *lease, struct control *control, const struct vmibus_frame *command, uint64_t received,
                          uint64_t audit) {
    const struct grant *grant = &control_binding(control, lease->endpoint->slot, lease->endpoint->generation)->grant;
    int r;

    if (lease->state == VMIBUS_LEASE_STATE_OUT_OF_SERVICE && !loop_timer_is_armed(&lease->timer))
        lease_retry_release(lease);
    if (lease->state == VMIBUS_LEASE_STATE_OUT_OF_SERVICE) {
        refuse(control, &command->header, received, audit, VMIBUS_ERROR_BUSY, VMIBUS_REASON_OUT_OF_SERVICE, 0);
    } else if (lease->state == VMIBUS_LEASE_STATE_FREE) {
        r = lease_grant(lease, control, command->cmd_lease.ttl_ms);
        if (r)
            answer_charge_refused(control, &command->header, received, audit, r, RESOURCE_LEASES);
        else
            answer_granted(lease, control, &command->header, received, audit);
    } else if (lease->holder == control || waits_already(lease, control)) {
        refuse(control, &command->header, received, audit, VMIBUS_ERROR_BUSY, VMIBUS_REASON_HELD, lease->holder_pid);
    } else if (command->cmd_lease.mode == VMIBUS_LEASE_MODE_QUEUE) {
        (void)lease_queue(lease, control, command, received, audit, grant->rank);
    } else if (command->cmd_lease.mode == VMIBUS_LEASE_MODE_PREEMPT) {
        lease_preempt(lease, control, command, received, audit, grant);
    } else {
        refuse(control, &command->header, received, audit, VMIBUS_ERROR_BUSY,
               lease->state == VMIBUS_LEASE_STATE_HELD ? VMIBUS_REASON_HELD : VMIBUS_REASON_REVOKING, lease->holder_pid);
    }
}

static void lease_renew(struct lease *lease, struct control *control, const struct vmibus_frame *command, uint64_t received,
                        uint64_t audit) {
    const struct binding *binding = control_binding(control, lease->endpoint->slot, lease->endpoint->generation);

    lease_set_ttl(lease, binding, command->cmd_lease.ttl_ms);
    fence_issue(lease);
    lease_publish(lease);
    answer_granted(lease, control, &command->header, received, audit);
}

/* RELEASE without the lease leaves the queue; that needs no token, a waiter has none. */
static bool lease_leave_queue(struct lease *lease, struct control *control) {
    struct lease_waiter *waiter;

    list_for_each(waiter, &lease->waiters, lease_link)
        if (waiter->control == control) {
            waiter_refuse(waiter, VMIBUS_ERROR_BUSY, VMIBUS_REASON_CANCELLED, 0);
            return true;
        }
    return false;
}

void lease_execute(struct lease *lease, struct control *control, const struct vmibus_frame *command, uint64_t received,
                   uint64_t audit) {
    const struct vmibus_cmd_lease *request = &command->cmd_lease;
    enum vmibus_reason reason = VMIBUS_REASON_NONE;
    const struct vmibus_ack done = {};
    enum vmibus_error error;

    if (request->operation == VMIBUS_LEASE_OPERATION_ACQUIRE) {
        lease_acquire(lease, control, command, received, audit);
        return;
    }
    if (request->operation == VMIBUS_LEASE_OPERATION_RELEASE && request->token == 0 && lease_leave_queue(lease, control)) {
        answer(control, &command->header, received, audit, &done);
        return;
    }
    error = lease_check(lease, control, request->token, &reason);
    if (error) {
        refuse(control, &command->header, received, audit, error, reason, lease->lease_class);
    } else if (request->operation == VMIBUS_LEASE_OPERATION_RENEW) {
        lease_renew(lease, control, command, received, audit);
    } else {
        lease_end(lease, VMIBUS_REASON_RELEASED);
        answer(control, &command->header, received, audit, &done);
    }
}

enum vmibus_error lease_check(const struct lease *lease, const struct control *control, uint64_t token,
                              enum vmibus_reason *reason) {
    if (token == 0) {
        *reason = lease->state == VMIBUS_LEASE_STATE_HELD && lease->holder != control ? VMIBUS_REASON_HELD : VMIBUS_REASON_NONE;
        return VMIBUS_ERROR_NO_LEASE;
    }
    if (token != lease->token) {
        *reason = VMIBUS_REASON_REVOKED;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    if (lease->state != VMIBUS_LEASE_STATE_HELD) {
        *reason = lease->reason;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    if (lease->holder != control) {
        *reason = VMIBUS_REASON_NOT_RIGHTS_HOLDER;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    /* The timer may be late; the token is not alive for that. */
    if (lease->expires && clock_now() >= lease->expires) {
        *reason = VMIBUS_REASON_LEASE_EXPIRED;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    return VMIBUS_ERROR_OK;
}

/* --- over a restart ---------------------------------------------------------------------------- */

int lease_take_over_waiter(struct lease *lease, struct control *control, const struct lease_waiter *as) {
    struct lease_waiter *waiter, *other;
    void *memory;
    int r = region_take(&control->region, sizeof(*waiter), &memory);

    if (r)
        return r;
    waiter = memory;
    r = charge_take(&waiter->charge, control->account, RESOURCE_WAITERS, 1);
    if (r) {
        region_give(&control->region, waiter, sizeof(*waiter));
        return r;
    }
    waiter->lease = lease;
    waiter->control = control;
    waiter->header = as->header;
    waiter->received = as->received;
    waiter->audit = as->audit;
    waiter->ttl_ms = as->ttl_ms;
    waiter->rank = as->rank;
    waiter->place = as->place;
    list_append(&control->waiters, &waiter->control_link);
    lease->n_waiters++;
    list_for_each(other, &lease->waiters, lease_link)
        if (other->place > waiter->place) {
            list_insert_between(&waiter->lease_link, other->lease_link.previous, &other->lease_link);
            return 0;
        }
    list_append(&lease->waiters, &waiter->lease_link);
    return 0;
}

int lease_take_over_holder(struct lease *lease, struct control *control) {
    int r = charge_take(&lease->charge, control->account, RESOURCE_LEASES, 1);

    if (r)
        return r;
    lease->holder = control;
    list_append(&control->leases, &lease->holder_link);
    lease_bus(lease)->n_leases++;
    return 0;
}

void lease_go_on(struct lease *lease, uint64_t timer) {
    if (lease->state == VMIBUS_LEASE_STATE_HELD && lease->expires && loop_timer_set(&lease->timer, lease->expires) < 0)
        lease_end(lease, VMIBUS_REASON_LEASE_EXPIRED);
    if (!lease_is_draining(lease))
        return;
    if (timer)
        (void)loop_timer_set(&lease->timer, timer);
    /* Nothing is in flight under it; the authority says so again. */
    if (lease->fence_drains)
        fence_revoke(lease);
    lease_see_claims(lease);
}

void lease_see_claims(struct lease *lease) {
    if (!lease->input_drains || !claims_promise(lease->endpoint, VMIBUS_GROUP_INPUT))
        lease_try_free(lease);
}

/* --- coming and going -------------------------------------------------------------------------- */

void lease_init(struct lease *lease, struct endpoint *endpoint, enum vmibus_lease_class lease_class) {
    *lease = (struct lease){.endpoint = endpoint, .lease_class = lease_class};
    list_init(&lease->holder_link);
    list_init(&lease->waiters);
    loop_timer_init(&lease->timer, endpoint->bus->loop, lease_timer_fired);
}

void lease_deinit(struct lease *lease) {
    while (!list_is_empty(&lease->waiters))
        waiter_refuse(list_first(&lease->waiters, struct lease_waiter, lease_link), VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, 0);
    /* Without a holder it was handed over, and what was handed over is thrown away. */
    if (lease->state == VMIBUS_LEASE_STATE_HELD && lease->holder) {
        struct control *holder = lease->holder;

        lease->state = VMIBUS_LEASE_STATE_FREE;
        lease->reason = VMIBUS_REASON_EXIT;
        lease->holder = NULL;
        list_unlink(&lease->holder_link);
        charge_release(&lease->charge);
        lease_bus(lease)->n_leases--;
        tell_last_holder(lease, holder);
    }
    lease->state = VMIBUS_LEASE_STATE_FREE;
    loop_timer_cancel(&lease->timer);
}
