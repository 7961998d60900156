/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/outbox.h"

#include <assert.h>

#include "bus/binding.h"

int outbox_init(struct outbox *outbox, struct pool *deliveries, struct account *account, uint32_t depth) {
    *outbox = (struct outbox){.deliveries = deliveries, .depth = depth};
    list_init(&outbox->replays);
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        outbox->lanes[i].last = &outbox->lanes[i].first;
    return charge_take(&outbox->charge, account, RESOURCE_EVENTS, 0);
}

static void lane_append(struct outbox *outbox, struct delivery *delivery, struct event *event) {
    struct outbox_lane *lane = &outbox->lanes[event->frame.header.priority];

    delivery->event = event;
    delivery->next = NULL;
    *lane->last = delivery;
    lane->last = &delivery->next;
}

static struct delivery *delivery_new(struct outbox *outbox, bool answer) {
    struct delivery *delivery = pool_take(outbox->deliveries);

    if (delivery) {
        delivery->farewell = NULL;
        delivery->answer = answer;
    }
    return delivery;
}

bool outbox_push_event(struct outbox *outbox, struct event *event) {
    struct delivery *delivery;

    if (outbox->n_events >= outbox->depth || charge_raise(&outbox->charge, 1))
        return false;
    delivery = delivery_new(outbox, false);
    if (!delivery) {
        charge_lower(&outbox->charge, 1);
        return false;
    }
    outbox->n_events++;
    lane_append(outbox, delivery, event_ref(event));
    return true;
}

void outbox_push_answer(struct outbox *outbox, struct event *event) {
    struct delivery *delivery = delivery_new(outbox, true);

    /* The pool holds a delivery for every answer that event_new() can make. */
    assert(delivery);
    outbox->n_answers++;
    lane_append(outbox, delivery, event);
}

void outbox_push_farewell(struct outbox *outbox, struct delivery *delivery, struct event *event, struct binding *binding) {
    delivery->farewell = binding;
    delivery->answer = false;
    lane_append(outbox, delivery, event_ref(event));
}

void outbox_note_drop(struct outbox *outbox, uint16_t kind) {
    unsigned bit = kind & 63;

    outbox->gaps |= UINT64_C(1) << bit;
    outbox->dropped[bit]++;
}

bool outbox_take_gap(struct outbox *outbox, struct vmibus_frame *frame) {
    unsigned bit;

    if (!outbox->gaps)
        return false;
    bit = (unsigned)__builtin_ctzll(outbox->gaps);
    *frame = (struct vmibus_frame){
        .header = {.kind = VMIBUS_KIND_GAP,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .version = VMIBUS_PROTOCOL_VERSION},
        .gap = {.dropped = (uint16_t)(0x0100 + bit), .count = outbox->dropped[bit]},
    };
    outbox->dropped[bit] = 0;
    outbox->gaps &= outbox->gaps - 1;
    return true;
}

/* The lane to serve: one whose patience has ended, lowest first, else the highest that holds something. */
static struct outbox_lane *lane_choose(struct outbox *outbox) {
    struct outbox_lane *chosen = NULL;

    for (size_t i = 0; i < OUTBOX_LANES; i++) {
        struct outbox_lane *lane = &outbox->lanes[i];

        if (!lane->first)
            continue;
        chosen = lane;
        if (lane->passed >= OUTBOX_PATIENCE)
            break;
    }
    return chosen;
}

struct delivery *outbox_take(struct outbox *outbox) {
    struct outbox_lane *lane = lane_choose(outbox);
    struct delivery *delivery;

    if (!lane)
        return NULL;
    for (struct outbox_lane *other = outbox->lanes; other < lane; other++)
        if (other->first)
            other->passed++;
    lane->passed = 0;
    delivery = lane->first;
    lane->first = delivery->next;
    if (!lane->first)
        lane->last = &lane->first;
    return delivery;
}

void outbox_finish(struct outbox *outbox, struct delivery *delivery) {
    event_unref(delivery->event);
    if (delivery->farewell) {
        binding_free(delivery->farewell);
        return;
    }
    if (delivery->answer) {
        outbox->n_answers--;
    } else {
        outbox->n_events--;
        charge_lower(&outbox->charge, 1);
    }
    pool_give(outbox->deliveries, delivery);
}

void outbox_deinit(struct outbox *outbox) {
    struct delivery *delivery;

    while ((delivery = outbox_take(outbox)))
        outbox_finish(outbox, delivery);
    assert(list_is_empty(&outbox->replays));
    assert(outbox->n_events == 0 && outbox->n_answers == 0);
    charge_release(&outbox->charge);
}

bool outbox_is_empty(const struct outbox *outbox) {
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        if (outbox->lanes[i].first)
            return false;
    return list_is_empty(&outbox->replays) && !outbox->gaps;
}
