/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/outbox.h"

#include <assert.h>

#include "bus/binding.h"
#include "bus/retained.h"
#include "util/fault.h"

void outbox_init(struct outbox *outbox, struct pool *deliveries, struct account *account, uint32_t depth) {
    *outbox = (struct outbox){.deliveries = deliveries, .depth = depth};
    list_init(&outbox->replays);
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        outbox->lanes[i].last = &outbox->lanes[i].first;
    (void)charge_take(&outbox->charge, account, RESOURCE_EVENTS, 0); /* nothing is always had */
}

static void lane_append(struct outbox *outbox, struct delivery *delivery, struct event *event) {
    unsigned priority = event->frame.header.priority;
    struct outbox_lane *lane = &outbox->lanes[priority];

    delivery->event = event;
    delivery->next = NULL;
    *lane->last = delivery;
    lane->last = &delivery->next;
    lane->length++;
    outbox->filled |= 1u << priority;
}

/* The lane holds nothing any more. */
static void lane_see_empty(struct outbox *outbox, int lane) {
    outbox->lanes[lane].last = &outbox->lanes[lane].first;
    outbox->filled &= ~(1u << lane);
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
    delivery = fault_hit(FAULT_ALLOCATION) < 0 ? NULL : delivery_new(outbox, false);
    if (!delivery) {
        charge_lower(&outbox->charge, 1);
        return false;
    }
    outbox->n_events++;
    lane_append(outbox, delivery, event_ref(event));
    return true;
}

bool outbox_has_room_for_answer(const struct outbox *outbox) {
    return outbox->deliveries->in_use < outbox->deliveries->capacity;
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

static bool has_head(const struct outbox *outbox) {
    return outbox->gaps || !list_is_empty(&outbox->replays);
}

void outbox_note_drop(struct outbox *outbox, uint16_t kind) {
    unsigned bit = kind & 63;

    if (!has_head(outbox))
        outbox->head_waits = outbox->lanes[VMIBUS_PRIORITY_NORMAL].length;
    outbox->gaps |= UINT64_C(1) << bit;
    outbox->dropped[bit]++;
}

bool outbox_take_gap(struct outbox *outbox, struct vmibus_frame *frame) {
    unsigned bit;

    if (!outbox->gaps_due && !outbox->replay_owed)
        outbox->gaps_due = outbox->gaps;
    outbox->replay_owed = false;
    if (!outbox->gaps_due)
        return false;
    bit = (unsigned)__builtin_ctzll(outbox->gaps_due);
    *frame = (struct vmibus_frame){
        .header = {.kind = VMIBUS_KIND_GAP,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .version = VMIBUS_PROTOCOL_VERSION},
        .gap = {.dropped = (uint16_t)(0x0100 + bit), .count = outbox->dropped[bit]},
    };
    outbox->dropped[bit] = 0;
    outbox->gaps_due &= outbox->gaps_due - 1;
    outbox->gaps &= ~(UINT64_C(1) << bit);
    outbox->replay_owed = !outbox->gaps_due && !list_is_empty(&outbox->replays);
    return true;
}

/* The lanes that have something to tell, gaps and replays too. */
static unsigned lanes_waiting(const struct outbox *outbox) {
    return outbox->filled | (has_head(outbox) ? 1u << VMIBUS_PRIORITY_NORMAL : 0);
}

/* The lane to serve of some, at least one: one whose patience has ended, lowest first, else the highest. */
static int lane_choose(const struct outbox *outbox, unsigned lanes) {
    for (; lanes & (lanes - 1); lanes &= lanes - 1)
        if (outbox->lanes[__builtin_ctz(lanes)].passed >= OUTBOX_PATIENCE)
            break;
    return __builtin_ctz(lanes);
}

/* A lane has its turn: the lower ones are passed over. */
static void lane_serve(struct outbox *outbox, int lane) {
    for (unsigned passed = lanes_waiting(outbox) & ((1u << lane) - 1); passed; passed &= passed - 1)
        outbox->lanes[__builtin_ctz(passed)].passed++;
    outbox->lanes[lane].passed = 0;
}

bool outbox_head_is_due(struct outbox *outbox) {
    if (!has_head(outbox) || outbox->head_waits || lane_choose(outbox, lanes_waiting(outbox)) != VMIBUS_PRIORITY_NORMAL)
        return false;
    lane_serve(outbox, VMIBUS_PRIORITY_NORMAL);
    return true;
}

void outbox_hurry_head(struct outbox *outbox) {
    outbox->head_waits = 0;
}

struct delivery *outbox_take(struct outbox *outbox) {
    struct delivery *delivery;
    struct outbox_lane *lane;
    int place;

    if (!outbox->filled)
        return NULL;
    place = lane_choose(outbox, outbox->filled);
    lane_serve(outbox, place);
    lane = &outbox->lanes[place];
    delivery = lane->first;
    lane->first = delivery->next;
    if (!lane->first)
        lane_see_empty(outbox, place);
    lane->length--;
    if (place == VMIBUS_PRIORITY_NORMAL && outbox->head_waits)
        outbox->head_waits--;
    return delivery;
}

static bool is_withdrawn(const struct delivery *delivery, uint32_t slot, uint64_t generation, uint64_t kinds, uint64_t floor) {
    const struct vmibus_frame *frame = &delivery->event->frame;

    if (delivery->answer || delivery->farewell || frame->header.slot != slot || frame->header.generation != generation)
        return false;
    return !(kinds & VMIBUS_KIND_BIT(frame->header.kind)) ||
           (frame->header.publication <= floor && delivery->event->retained >= 0);
}

uint32_t outbox_withdraw(struct outbox *outbox, uint32_t slot, uint64_t generation, uint64_t kinds, uint64_t floor) {
    uint32_t n_retained = 0;

    for (int i = 0; i < OUTBOX_LANES; i++) {
        struct outbox_lane *lane = &outbox->lanes[i];
        struct delivery **link = &lane->first;
        uint32_t waits = outbox->head_waits, position = 0;

        for (struct delivery *delivery; (delivery = *link); position++) {
            if (!is_withdrawn(delivery, slot, generation, kinds, floor)) {
                link = &delivery->next;
                continue;
            }
            *link = delivery->next;
            lane->length--;
            if (i == VMIBUS_PRIORITY_NORMAL && position < waits)
                outbox->head_waits--;
            n_retained += delivery->event->retained >= 0;
            outbox_finish(outbox, delivery);
        }
        lane->last = link;
        if (!lane->first)
            lane_see_empty(outbox, i);
    }
    return n_retained;
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
    return !outbox->filled && !has_head(outbox);
}
