/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover_record.h"

#include <errno.h>
#include <string.h>

#include "bus/binding.h"
#include "bus/bus.h"
#include "bus/control.h"
#include "bus/outbox.h"
#include "bus/retained.h"

/* Of each record its own numbers, never reused. */
enum {
    OUTBOX_DELIVERY = 20,
    OUTBOX_PASSED = 21, /* of each lane, in order */
};

enum {
    DELIVERY_EVENT = 1,
    DELIVERY_KIND = 2,
};

enum delivery_kind {
    DELIVERY_OF_EVENT,
    DELIVERY_OF_ANSWER,
    DELIVERY_OF_FAREWELL,
};

static const struct handover_member outbox_members[] = {
    HANDOVER_MEMBER(1, struct outbox, sequence), HANDOVER_MEMBER(2, struct outbox, head_waits),
    HANDOVER_MEMBER(3, struct outbox, gaps),     HANDOVER_MEMBER(4, struct outbox, gaps_due),
    HANDOVER_MEMBER(5, struct outbox, replay_owed), HANDOVER_MEMBER(6, struct outbox, dropped),
};

void handover_put_outbox(struct bus_handover *handover, struct handover_writer *writer, const struct outbox *outbox) {
    uint32_t passed[OUTBOX_LANES];

    handover_begin(writer, CONTROL_OUTBOX);
    PUT(writer, outbox_members, outbox);
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        passed[i] = outbox->lanes[i].passed;
    handover_put(writer, OUTBOX_PASSED, passed, sizeof(passed));
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        for (const struct delivery *delivery = outbox->lanes[i].first; delivery; delivery = delivery->next) {
            handover_begin(writer, OUTBOX_DELIVERY);
            handover_put_event(handover, writer, DELIVERY_EVENT, delivery->event);
            handover_put_number(writer, DELIVERY_KIND,
                                delivery->farewell ? DELIVERY_OF_FAREWELL
                                : delivery->answer ? DELIVERY_OF_ANSWER
                                                   : DELIVERY_OF_EVENT);
            handover_end(writer);
        }
    handover_end(writer);
}

/* The binding that a removal is embedded in: of an endpoint that is gone already. */
static bool push_farewell(struct control *control, struct event *event) {
    struct binding *binding;
    void *memory;

    if (region_take(&control->region, sizeof(*binding), &memory))
        return false;
    binding = memory;
    binding->control = control;
    control->n_farewells++;
    outbox_push_farewell(&control->outbox, &binding->farewell, event, binding);
    return true;
}

static void push_event(struct control *control, struct event *event) {
    const struct vmibus_header *header = &event->frame.header;
    struct binding *binding = control_binding(control, header->slot, header->generation);

    if (!outbox_push_event(&control->outbox, event)) {
        /* There is less room than there was. */
        if (binding)
            binding_drop(binding, &event->frame);
    } else if (binding && event->retained >= 0) {
        binding->n_queued++;
    }
}

static void take_delivery(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    enum delivery_kind kind = DELIVERY_OF_EVENT;
    struct handover_record member;
    struct event *event = NULL;

    while (handover_next(&records, &member))
        if (member.tag == DELIVERY_EVENT)
            event = handover_take_event(handover, &member, control->account);
        else if (member.tag == DELIVERY_KIND)
            kind = (enum delivery_kind)handover_number_below(&member, DELIVERY_OF_FAREWELL);
    if (record->handover->error)
        return;
    if (!event || (kind == DELIVERY_OF_EVENT && event->fds))
        handover_wrong(record->handover, -EBADMSG);
    else if (kind == DELIVERY_OF_EVENT)
        push_event(control, event);
    else if (kind == DELIVERY_OF_FAREWELL && !push_farewell(control, event))
        handover_wrong(record->handover, -ENOBUFS);
    else if (kind == DELIVERY_OF_ANSWER && outbox_has_room_for_answer(&control->outbox))
        outbox_push_answer(&control->outbox, event_ref(event));
    else if (kind == DELIVERY_OF_ANSWER)
        handover_wrong(record->handover, -ENOBUFS);
}

void handover_take_outbox(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct outbox *outbox = &control->outbox, state = {};
    uint32_t passed[OUTBOX_LANES] = {};
    struct handover_record member;

    while (handover_next(&records, &member))
        if (member.tag == OUTBOX_DELIVERY)
            take_delivery(handover, control, &member);
        else if (member.tag == OUTBOX_PASSED)
            handover_copy(&member, passed, sizeof(passed));
        else
            (void)TAKE(&member, outbox_members, &state);
    outbox->sequence = state.sequence;
    outbox->head_waits = state.head_waits <= outbox->lanes[VMIBUS_PRIORITY_NORMAL].length
                             ? state.head_waits
                             : outbox->lanes[VMIBUS_PRIORITY_NORMAL].length;
    outbox->gaps |= state.gaps;
    outbox->gaps_due = state.gaps_due & state.gaps;
    outbox->replay_owed = state.replay_owed;
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        outbox->lanes[i].passed = passed[i];
    for (size_t i = 0; i < 64; i++)
        outbox->dropped[i] += state.dropped[i];
}
