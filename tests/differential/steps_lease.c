/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Steps on leases: acquiring, renewing, releasing, and waiting until one has expired. */
#include "differential/connection.h"
#include "differential/handover.h"
#include "differential/sequence.h"
#include "differential/steps.h"

/* With faults nothing is predicted: it comes now, later or never. */
static void acquire_relaxed(struct vm *vm, unsigned lease_class, struct waiter waiter, struct vmibus_frame *frame) {
    struct vmibus_frame answer;
    int r;

    if (!actor_send(&sequence.actors[waiter.actor], frame, NULL, 0) ||
        (r = actor_poll_answer(&sequence.actors[waiter.actor], waiter.correlation, &answer)) < 0)
        connection_lost(waiter.actor);
    else if (r == 0)
        model_line_add(model_lease(vm, lease_class), waiter, false);
    else if (answer.ack.error == VMIBUS_ERROR_OK)
        handover_grant(vm, lease_class, waiter.actor, &answer.ack);
}

/* Gets into the line of a lease that another actor holds, or takes it away. */
static void acquire_held(struct vm *vm, unsigned lease_class, struct waiter waiter, struct vmibus_frame *frame) {
    bool preempts = frame->cmd_lease.mode == VMIBUS_LEASE_MODE_PREEMPT;
    struct vmibus_frame answer;

    if (!actor_send(&sequence.actors[waiter.actor], frame, NULL, 0))
        connection_lost(waiter.actor);
    model_line_add(model_lease(vm, lease_class), waiter, preempts);
    if (preempts)
        handover_end(vm, lease_class, VMIBUS_REASON_PREEMPTED);
    else if (actor_poll_answer(&sequence.actors[waiter.actor], waiter.correlation, &answer))
        sequence_fail("a lease that is held was granted");
}

/* What comes at once of acquiring a lease. False: the actor gets into its line. */
static bool judge_acquire(const struct lease *lease, int actor, unsigned lease_class, unsigned mode, enum vmibus_error *error,
                          enum vmibus_reason *reason) {
    *error = VMIBUS_ERROR_BUSY;
    *reason = VMIBUS_REASON_HELD;
    if (!model_may(actor, lease_class)) {
        *error = VMIBUS_ERROR_DENIED;
        *reason = VMIBUS_REASON_NO_CAPABILITY;
        return true;
    }
    if (lease->holder < 0) {
        *error = VMIBUS_ERROR_OK;
        *reason = VMIBUS_REASON_NONE;
        return true;
    }
    if (lease->holder == actor || model_line_find(lease, actor) >= 0 || mode == VMIBUS_LEASE_MODE_FAIL)
        return true;
    *reason = VMIBUS_REASON_RANK;
    return mode == VMIBUS_LEASE_MODE_PREEMPT && model_rank(lease->holder) >= model_rank(actor);
}

static struct vmibus_frame lease_command(const struct vm *vm, enum vmibus_lease_operation operation, unsigned lease_class) {
    struct vmibus_frame frame = sequence_command(VMIBUS_KIND_CMD_LEASE, vm);

    frame.cmd_lease.operation = (uint8_t)operation;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    return frame;
}

/* Apart, the end of the lease before may be under way between the processes yet; then it is asked for again. */
static bool ask_free(int actor, struct vmibus_frame *frame, struct vmibus_frame *answer) {
    do {
        if (!connection_ask(actor, frame, NULL, 0, answer))
            return false;
    } while (channels_are_apart() && answer->ack.error == VMIBUS_ERROR_BUSY && answer->ack.reason == VMIBUS_REASON_REVOKING);
    return true;
}

void step_acquire(int actor, struct vm *vm, unsigned lease_class) {
    struct vmibus_frame frame = lease_command(vm, VMIBUS_LEASE_OPERATION_ACQUIRE, lease_class), answer;
    const struct waiter waiter = {.actor = actor, .rank = model_rank(actor), .correlation = frame.header.correlation};
    unsigned mode = VMIBUS_LEASE_MODE_FAIL + (unsigned)sequence_draw(3);
    enum vmibus_reason reason;
    enum vmibus_error error;

    frame.cmd_lease.mode = (uint8_t)mode;
    if (sequence.relaxed)
        acquire_relaxed(vm, lease_class, waiter, &frame);
    else if (!judge_acquire(model_lease(vm, lease_class), actor, lease_class, mode, &error, &reason))
        acquire_held(vm, lease_class, waiter, &frame);
    else if (ask_free(actor, &frame, &answer) && sequence_expect(&answer, error, reason, 0))
        handover_grant(vm, lease_class, actor, &answer.ack);
}

void step_renew(int actor, struct vm *vm, unsigned lease_class) {
    struct lease *lease = model_lease(vm, lease_class);
    struct vmibus_frame frame = lease_command(vm, VMIBUS_LEASE_OPERATION_RENEW, lease_class), answer;
    enum vmibus_reason reason;
    enum vmibus_error error;

    frame.cmd_lease.token = sequence_choose_token(lease);
    error = model_judge_token(lease, actor, frame.cmd_lease.token, &reason);
    if (!model_may(actor, lease_class)) {
        error = VMIBUS_ERROR_DENIED;
        reason = VMIBUS_REASON_NO_CAPABILITY;
    }
    if (connection_ask(actor, &frame, NULL, 0, &answer))
        sequence_expect(&answer, error, reason, 0);
}

/* What it waited with is answered too. */
static void leave_line(int actor, struct lease *lease) {
    int place = model_line_find(lease, actor); /* the connection may have lost and found itself meanwhile */
    struct vmibus_frame cancelled;

    if (place < 0)
        return;
    if (!actor_answer(&sequence.actors[actor], lease->line[place].correlation, &cancelled)) {
        connection_lost(actor);
        return;
    }
    sequence_expect(&cancelled, VMIBUS_ERROR_BUSY, VMIBUS_REASON_CANCELLED, 0);
    model_line_remove(lease, (size_t)place);
}

void step_release(int actor, struct vm *vm, unsigned lease_class) {
    struct lease *lease = model_lease(vm, lease_class);
    struct vmibus_frame frame = lease_command(vm, VMIBUS_LEASE_OPERATION_RELEASE, lease_class), answer;
    enum vmibus_reason reason;
    enum vmibus_error error;
    int place = model_line_find(lease, actor);

    frame.cmd_lease.token = place >= 0 ? 0 : sequence_choose_token(lease);
    error = model_judge_token(lease, actor, frame.cmd_lease.token, &reason);
    if (!model_may(actor, lease_class)) {
        error = VMIBUS_ERROR_DENIED;
        reason = VMIBUS_REASON_NO_CAPABILITY;
    } else if (frame.cmd_lease.token == 0 && place >= 0) {
        error = VMIBUS_ERROR_OK;
        reason = VMIBUS_REASON_NONE;
    }
    if (!connection_ask(actor, &frame, NULL, 0, &answer) || !sequence_expect(&answer, error, reason, 0))
        return;
    if (place >= 0)
        leave_line(actor, lease);
    else
        handover_end(vm, lease_class, VMIBUS_REASON_RELEASED);
}

void step_expire(int actor, struct vm *vm, unsigned lease_class) {
    struct lease *lease = model_lease(vm, lease_class);
    struct vmibus_frame frame = lease_command(vm, VMIBUS_LEASE_OPERATION_ACQUIRE, lease_class), answer;

    if (sequence.relaxed || lease->holder >= 0 || !model_may(actor, lease_class))
        return;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
    frame.cmd_lease.ttl_ms = 1;
    if (!ask_free(actor, &frame, &answer) || !sequence_expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0))
        return;
    handover_grant(vm, lease_class, actor, &answer.ack);
    if (!actor_await_loss(&sequence.actors[actor], answer.ack.token))
        connection_lost(actor);
    handover_end(vm, lease_class, VMIBUS_REASON_LEASE_EXPIRED);
}
