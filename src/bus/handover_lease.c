/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover_record.h"

#include <errno.h>

#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/lease.h"

/* Never reused. */
enum {
    LEASE_TIMER = 20,
};

static const struct handover_member lease_members[] = {
    HANDOVER_MEMBER(1, struct lease, lease_class),   HANDOVER_MEMBER(2, struct lease, state),
    HANDOVER_MEMBER(3, struct lease, reason),        HANDOVER_MEMBER(4, struct lease, token),
    HANDOVER_MEMBER(5, struct lease, expires),       HANDOVER_MEMBER(6, struct lease, holder_uid),
    HANDOVER_MEMBER(7, struct lease, holder_pid),    HANDOVER_MEMBER(8, struct lease, rank),
    HANDOVER_MEMBER(9, struct lease, fence_drains),  HANDOVER_MEMBER(10, struct lease, input_drains),
};

static const struct handover_member waiter_members[] = {
    HANDOVER_MEMBER(1, struct lease_waiter, header), HANDOVER_MEMBER(2, struct lease_waiter, received),
    HANDOVER_MEMBER(3, struct lease_waiter, audit),  HANDOVER_MEMBER(4, struct lease_waiter, ttl_ms),
    HANDOVER_MEMBER(5, struct lease_waiter, rank),   HANDOVER_MEMBER(6, struct lease_waiter, place),
};

/* --- an endpoint's ----------------------------------------------------------------------------- */

void handover_put_lease(struct handover_writer *writer, uint16_t tag, const struct lease *lease) {
    handover_begin(writer, tag);
    PUT(writer, lease_members, lease);
    if (loop_timer_is_armed(&lease->timer))
        handover_put_number(writer, LEASE_TIMER, lease->timer.deadline);
    handover_end(writer);
}

bool handover_take_lease(struct endpoint *endpoint, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct lease state = {};
    struct handover_record member;
    struct lease *lease;
    uint64_t timer = 0;

    while (handover_next(&records, &member))
        if (member.tag == LEASE_TIMER)
            timer = handover_number(&member);
        else
            (void)TAKE(&member, lease_members, &state);
    if (record->handover->error)
        return false;
    if (state.lease_class < 1 || state.lease_class > LEASE_CLASSES || state.state > VMIBUS_LEASE_STATE_OUT_OF_SERVICE ||
        (state.token && !handover_was_given(endpoint->bus, state.token, endpoint->bus->last_token)) ||
        (state.state == VMIBUS_LEASE_STATE_HELD && !state.token))
        return handover_wrong(record->handover, -EBADMSG);
    lease = &endpoint->leases[state.lease_class - 1];
    lease->state = state.state;
    lease->reason = state.reason;
    lease->token = state.token;
    lease->expires = state.expires;
    lease->holder_uid = state.holder_uid;
    lease->holder_pid = state.holder_pid;
    lease->rank = state.rank;
    lease->fence_drains = state.fence_drains;
    lease->input_drains = state.input_drains;
    lease->timer.deadline = timer; /* not armed yet: lease_go_on() */
    return true;
}

/* --- a control's ------------------------------------------------------------------------------- */

void handover_put_leases(struct handover_writer *writer, const struct control *control) {
    const struct lease_waiter *waiter;
    const struct lease *lease;

    list_for_each(lease, &control->leases, holder_link) {
        handover_begin(writer, CONTROL_LEASE);
        handover_put_place(writer, lease->endpoint, lease->lease_class);
        handover_end(writer);
    }
    list_for_each(waiter, &control->waiters, control_link) {
        handover_begin(writer, CONTROL_WAITER);
        handover_put_place(writer, waiter->lease->endpoint, waiter->lease->lease_class);
        PUT(writer, waiter_members, waiter);
        handover_end(writer);
    }
}

void handover_take_waiter(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct lease_waiter waiter = {};
    struct handover_record member;
    struct place place;
    struct endpoint *endpoint = handover_take_place(handover, record, &place);
    int r;

    while (handover_next(&records, &member))
        (void)TAKE(&member, waiter_members, &waiter);
    if (!endpoint || record->handover->error)
        return;
    if (!place.lease_class || !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = lease_take_over_waiter(&endpoint->leases[place.lease_class - 1], control, &waiter);
    if (r)
        handover_wrong(record->handover, handover_outcome(r));
}

void handover_take_held_lease(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct place place;
    struct endpoint *endpoint = handover_take_place(handover, record, &place);
    struct lease *lease;
    int r;

    if (!endpoint)
        return;
    lease = place.lease_class ? &endpoint->leases[place.lease_class - 1] : NULL;
    if (!lease || lease->state != VMIBUS_LEASE_STATE_HELD || lease->holder || lease->holder_uid != control->principal.uid ||
        !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = lease_take_over_holder(lease, control);
    if (r)
        handover_wrong(record->handover, handover_outcome(r));
}
