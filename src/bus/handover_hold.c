/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover_record.h"

#include <errno.h>

#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/watch.h"

static const struct handover_member hold_members[] = {
    HANDOVER_MEMBER(1, struct hold, still),    HANDOVER_MEMBER(2, struct hold, expires),
    HANDOVER_MEMBER(3, struct hold, header),   HANDOVER_MEMBER(4, struct hold, received),
    HANDOVER_MEMBER(5, struct hold, audit),    HANDOVER_MEMBER(6, struct hold, place),
};

static const struct handover_member watch_members[] = {
    HANDOVER_MEMBER(1, struct watch, number),
    HANDOVER_MEMBER(2, struct watch, state),
    HANDOVER_MEMBER(3, struct watch, request),
    HANDOVER_MEMBER(4, struct watch, epoch),
};

void handover_put_holds(struct handover_writer *writer, const struct control *control) {
    const struct hold *hold;

    list_for_each(hold, &control->holds, control_link) {
        handover_begin(writer, CONTROL_HOLD);
        handover_put_place(writer, hold->endpoint, 0);
        PUT(writer, hold_members, hold);
        handover_end(writer);
    }
}

void handover_put_watches(struct handover_writer *writer, const struct control *control) {
    const struct watch *watch;

    list_for_each(watch, &control->watches, control_link) {
        handover_begin(writer, CONTROL_WATCH);
        handover_put_place(writer, watch->endpoint, 0);
        PUT(writer, watch_members, watch);
        handover_end(writer);
    }
}

void handover_take_hold(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct hold hold = {};
    struct place place;
    int r;

    hold.endpoint = handover_take_place(handover, record, &place);
    while (handover_next(&records, &member))
        (void)TAKE(&member, hold_members, &hold);
    if (!hold.endpoint || record->handover->error)
        return;
    if (!place.slot || !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = hold_take_over(control, &hold);
    if (r)
        handover_wrong(record->handover, handover_outcome(r));
}

void handover_take_watch(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct watch watch = {};
    struct place place;
    int r;

    watch.endpoint = handover_take_place(handover, record, &place);
    while (handover_next(&records, &member))
        (void)TAKE(&member, watch_members, &watch);
    if (!watch.endpoint || record->handover->error)
        return;
    if (watch.state > WATCH_ENDS || !place.slot || !control_binding_in(control, place.slot)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    r = watch_take_over(control, &watch);
    if (r)
        handover_wrong(record->handover, handover_outcome(r));
}
