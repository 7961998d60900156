/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Delivery: order, gaps, replay, and that an endpoint's state is never told backwards. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/outbox.h"
#include "bus/stage.h"

static struct fake_control alice, bob;
static struct fake_sensor sensor;
static struct endpoint *endpoint;

static void open_with(const struct stage_options *options) {
    stage_open(options);
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    fake_control_open(&alice, 1);
    endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    sensor.answers = true;
}

static void open_stage(void) {
    open_with(&(struct stage_options){});
}

static void open_narrow_stage(void) {
    open_with(&(struct stage_options){.queue_depth = 4});
}

static void close_stage(void) {
    fake_control_close(&alice);
    fake_sensor_close(&sensor);
    stage_close();
}

/* --- the queue alone --------------------------------------------------------------------------- */

static struct arena arena;
static struct event_pool events;
static struct pool deliveries;
static struct ledger ledger;
static struct account *account;
static struct outbox outbox;

static void open_outbox(void) {
    const struct event_room room = {.live = 1000, .answers = 10, .tail_octets = 1 << 16, .tail_bound = 4096};
    uint64_t limits[N_RESOURCES];

    for (int i = 0; i < N_RESOURCES; i++)
        limits[i] = 1000;
    ledger_init(&ledger, limits);
    ck_assert_int_eq(ledger_ref_account(&ledger, 1, limits, &account), 0);
    ck_assert_int_eq(arena_init(&arena, 1 << 20), 0);
    ck_assert_int_eq(event_pool_init(&events, &arena, &room), 0);
    ck_assert_int_eq(pool_init(&deliveries, &arena, sizeof(struct delivery), 1010), 0);
    outbox_init(&outbox, &deliveries, account, 1000);
}

static void close_outbox(void) {
    outbox_deinit(&outbox);
    account_unref(account);
    ledger_deinit(&ledger);
    pool_deinit(&deliveries);
    event_pool_deinit(&events);
    arena_deinit(&arena);
}

static void push(enum vmibus_priority priority, uint64_t number) {
    const struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SENSOR, .priority = (uint8_t)priority, .publication = number}};
    struct event *event = event_new(&events, EVENT_LIVE, &frame);

    ck_assert_ptr_nonnull(event);
    ck_assert(outbox_push_event(&outbox, event));
    event_unref(event);
}

static struct vmibus_header take(void) {
    struct delivery *delivery = outbox_take(&outbox);
    struct vmibus_header header;

    ck_assert_ptr_nonnull(delivery);
    header = delivery->event->frame.header;
    outbox_finish(&outbox, delivery);
    return header;
}

TEST(test_p07_higher_first_and_in_order_within_a_priority, .setup = open_outbox, .teardown = close_outbox) {
    uint64_t last[4] = {};
    int last_priority = 3;

    for (uint64_t i = 1; i <= 24; i++)
        push((enum vmibus_priority)(i % 4), i);
    for (int i = 0; i < 24; i++) {
        struct vmibus_header header = take();

        ck_assert_int_le(header.priority, last_priority);
        ck_assert_uint_gt(header.publication, last[header.priority]);
        last_priority = header.priority;
        last[header.priority] = header.publication;
    }
    ck_assert(outbox_is_empty(&outbox));
    ck_assert_uint_eq(ledger.used[RESOURCE_EVENTS], 0);
}

/* However much comes above it, a lane that holds something is served within a bound. */
TEST(test_p07_no_lane_starves, .setup = open_outbox, .teardown = close_outbox) {
    unsigned waited[4] = {}, n_taken[4] = {};

    for (int i = 0; i < 4; i++)
        push((enum vmibus_priority)i, 1);
    for (int i = 0; i < 5000; i++) {
        struct vmibus_header header = take();

        for (int lane = 0; lane < 4; lane++)
            ck_assert_uint_le(++waited[lane], OUTBOX_PATIENCE + 8);
        waited[header.priority] = 0;
        n_taken[header.priority]++;
        push((enum vmibus_priority)header.priority, 1);
    }
    /* The highest still has by far the most. */
    ck_assert_uint_gt(n_taken[3], 4000);
}

TEST(test_p07_lane_is_not_served_early, .setup = open_outbox, .teardown = close_outbox) {
    push(VMIBUS_PRIORITY_BULK, 1);
    for (int i = 0; i < OUTBOX_PATIENCE; i++) {
        push(VMIBUS_PRIORITY_HIGH, 1);
        ck_assert_uint_eq(take().priority, VMIBUS_PRIORITY_HIGH);
    }
    push(VMIBUS_PRIORITY_HIGH, 1);
    ck_assert_uint_eq(take().priority, VMIBUS_PRIORITY_BULK);
}

TEST(test_p08_queue_is_bounded_by_depth_and_by_limit, .setup = open_outbox, .teardown = close_outbox) {
    const struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_SENSOR}};
    struct event *event = event_new(&events, EVENT_LIVE, &frame);

    outbox.depth = 3;
    for (int i = 0; i < 3; i++)
        ck_assert(outbox_push_event(&outbox, event));
    ck_assert(!outbox_push_event(&outbox, event));
    outbox.depth = 1000;
    account->limit[RESOURCE_EVENTS] = 4;
    ck_assert(outbox_push_event(&outbox, event));
    ck_assert(!outbox_push_event(&outbox, event));
    ck_assert_uint_eq(account->used[RESOURCE_EVENTS], 4);
    ck_assert_uint_eq(event->refs, 5);
    event_unref(event);
}

TEST(test_p08_answers_have_room_of_their_own, .setup = open_outbox, .teardown = close_outbox) {
    const struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_ACK}};
    struct event *live[1000], *answers[10];

    for (int i = 0; i < 1000; i++)
        live[i] = event_new(&events, EVENT_LIVE, &frame);
    ck_assert_ptr_null(event_new(&events, EVENT_LIVE, &frame));
    for (int i = 0; i < 10; i++)
        ck_assert_ptr_nonnull(answers[i] = event_new(&events, EVENT_ANSWER, &frame));
    ck_assert_ptr_null(event_new(&events, EVENT_ANSWER, &frame));
    for (int i = 0; i < 10; i++)
        event_unref(answers[i]);
    for (int i = 0; i < 1000; i++)
        event_unref(live[i]);
}

/* --- gaps -------------------------------------------------------------------------------------- */

/* That delivery numbers have no hole, fake_control_take() checks everywhere. */
TEST(test_p07_what_is_dropped_is_told_by_kind_and_count, .setup = open_narrow_stage, .teardown = close_stage) {
    struct vmibus_frame announce = {.header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE},
                                    .sensor_announce = {.state = VMIBUS_SENSOR_STATE_READY, .groups = GROUPS_ALL}};
    const struct entry *entry;
    const enum vmibus_kind expected[] = {VMIBUS_KIND_LIFECYCLE, VMIBUS_KIND_LIFECYCLE, VMIBUS_KIND_LIFECYCLE, VMIBUS_KIND_LIFECYCLE,
                                         VMIBUS_KIND_GAP,       VMIBUS_KIND_GAP,       VMIBUS_KIND_LIFECYCLE};
    uint64_t state = 0;

    fake_subscribe(&alice, "*", KINDS_ALL);
    fake_control_forget(&alice);
    for (int i = 0; i < 7; i++)
        fake_lifecycle(&sensor, endpoint, (enum vmibus_vm_state)i);
    for (int i = 0; i < 3; i++)
        sensor_hear(&sensor.sensor, &announce, NULL, NULL);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        entry = fake_control_next(&alice);
        ck_assert_ptr_nonnull(entry);
        ck_assert_uint_eq(entry->frame.header.kind, expected[i]);
        if (expected[i] == VMIBUS_KIND_LIFECYCLE)
            state = entry->frame.lifecycle.state;
        if (i == 4) {
            ck_assert_uint_eq(entry->frame.gap.dropped, VMIBUS_KIND_LIFECYCLE);
            ck_assert_uint_eq(entry->frame.gap.count, 3); /* all but the last are lost: only the state they left is replayed */
        } else if (i == 5) {
            ck_assert_uint_eq(entry->frame.gap.dropped, VMIBUS_KIND_SENSOR);
            ck_assert_uint_eq(entry->frame.gap.count, 3);
        }
    }
    ck_assert_ptr_null(fake_control_next(&alice));
    ck_assert_uint_eq(state, 6);
    ck_assert_uint_eq(stage.bus->counters.dropped, 4);
    /* It is told once. */
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    ck_assert_uint_eq(fake_control_next(&alice)->frame.header.kind, VMIBUS_KIND_LIFECYCLE);
    ck_assert_ptr_null(fake_control_next(&alice));
}

/* A gap is told where it is: behind what came before it, before what comes after it. */
TEST(test_p07_gap_has_its_place, .setup = open_narrow_stage, .teardown = close_stage) {
    struct vmibus_frame announce = {.header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE},
                                    .sensor_announce = {.state = VMIBUS_SENSOR_STATE_READY, .groups = GROUPS_ALL}};

    fake_subscribe(&alice, "*", KINDS_ALL);
    fake_control_forget(&alice);
    for (int i = 0; i < 4; i++)
        fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    sensor_hear(&sensor.sensor, &announce, NULL, NULL);
    ck_assert_uint_eq(fake_control_take(&alice)->frame.header.kind, VMIBUS_KIND_LIFECYCLE);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(fake_control_take(&alice)->frame.lifecycle.state, VMIBUS_VM_STATE_RUNNING);
    ck_assert_uint_eq(fake_control_take(&alice)->frame.gap.dropped, VMIBUS_KIND_SENSOR);
    ck_assert_uint_eq(fake_control_take(&alice)->frame.lifecycle.state, VMIBUS_VM_STATE_PAUSED);
    ck_assert_ptr_null(fake_control_take(&alice));
}

/* A reader that is slower than a flood still gets its answers, and what waited before the flood. */
TEST(test_p07_flood_starves_no_answer, .setup = open_narrow_stage, .teardown = close_stage) {
    struct endpoint *other = fake_offer(&sensor, "other", GROUPS_ALL);
    unsigned n_taken = 0, n_other = 0;
    uint64_t query;

    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_LIFECYCLE));
    fake_control_forget(&alice);
    fake_lifecycle(&sensor, other, VMIBUS_VM_STATE_PAUSED);
    for (int i = 0; i < 20; i++)
        fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    query = fake_query(&alice, endpoint, VMIBUS_QUERY_GRANT);
    ck_assert_uint_eq(fake_control_take(&alice)->frame.header.correlation, query);
    while (n_taken < 100) {
        const struct entry *entry = fake_control_take(&alice);

        n_taken++;
        n_other += entry->frame.header.slot == other->slot;
        /* Faster than it is taken. */
        for (int i = 0; i < 3; i++) {
            fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
            fake_lifecycle(&sensor, other, VMIBUS_VM_STATE_RUNNING);
        }
        query = fake_query(&alice, endpoint, VMIBUS_QUERY_GRANT);
        ck_assert_uint_eq(fake_control_take(&alice)->frame.header.correlation, query);
    }
    ck_assert_uint_gt(n_other, 20);
    ck_assert_uint_lt(n_other, 80);
}

/* --- replay ------------------------------------------------------------------------------------ */

TEST(test_p07_state_is_replayed_before_the_answer_and_before_what_is_live, .setup = open_stage, .teardown = close_stage) {
    struct endpoint *other = fake_offer(&sensor, "other", GROUPS_ALL);
    uint64_t command, seen = 0;
    const struct entry *entry;

    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_READY);
    fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT);
    fake_control_forget(&alice);
    command = fake_subscribe(&alice, "vm", KINDS_ALL);
    fake_lifecycle(&sensor, other, VMIBUS_VM_STATE_PAUSED);
    while ((entry = fake_control_next(&alice)) && entry->frame.header.kind != VMIBUS_KIND_ACK) {
        const struct vmibus_header *header = &entry->frame.header;

        ck_assert_uint_eq(header->flags, VMIBUS_FRAME_RETAINED);
        ck_assert_uint_eq(header->slot, endpoint->slot);
        ck_assert_uint_eq(header->priority, VMIBUS_PRIORITY_NORMAL);
        seen |= BIT(header->kind);
        if (header->kind == VMIBUS_KIND_ROSTER) {
            ck_assert_str_eq(entry->tail, "vm");
            ck_assert_uint_eq(entry->frame.roster.change, VMIBUS_ROSTER_CHANGE_ADDED);
        } else if (header->kind == VMIBUS_KIND_LIFECYCLE) {
            ck_assert_uint_eq(entry->frame.lifecycle.state, VMIBUS_VM_STATE_RUNNING);
        }
    }
    ck_assert_ptr_nonnull(entry);
    ck_assert_uint_eq(entry->frame.header.correlation, command);
    ck_assert_uint_eq(seen, KINDS_RETAINED & ~BIT(VMIBUS_KIND_MEMCTX_INVALIDATED));
    ck_assert_ptr_null(fake_control_next(&alice));
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    entry = fake_control_next(&alice);
    ck_assert_uint_eq(entry->frame.header.kind, VMIBUS_KIND_LIFECYCLE);
    ck_assert_uint_eq(entry->frame.header.flags, 0);
    /* What has been told is not told again, a kind that is new is. */
    fake_subscribe(&alice, "vm", KINDS_ALL);
    ck_assert_uint_eq(fake_control_next(&alice)->frame.header.kind, VMIBUS_KIND_ACK);
    fake_subscribe(&alice, "v*", BIT(VMIBUS_KIND_ROSTER));
    ck_assert_uint_eq(fake_control_next(&alice)->frame.header.kind, VMIBUS_KIND_ACK);
    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_ROSTER));
    entry = fake_control_next(&alice);
    ck_assert_uint_eq(entry->frame.header.kind, VMIBUS_KIND_ROSTER);
    ck_assert_str_eq(entry->tail, "other");
}

/* Also where the roster was published anew since: numbers rise all the same, and what follows is newer than all of it. */
TEST(test_p07_late_subscriber_hears_the_name_first, .setup = open_stage, .teardown = close_stage) {
    const struct entry *entry;
    uint64_t publication = 0;
    unsigned n = 0;

    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_PAUSED);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_READY);
    endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
    fake_subscribe(&alice, "*", KINDS_RETAINED);
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    while ((entry = fake_control_next(&alice))) {
        if (entry->frame.header.slot != endpoint->slot)
            continue;
        ck_assert_int_eq(entry->frame.header.kind == VMIBUS_KIND_ROSTER, n == 0);
        ck_assert_uint_gt(entry->frame.header.publication, publication);
        publication = entry->frame.header.publication;
        n++;
    }
    ck_assert_uint_ge(n, 3);
}

TEST(test_p07_patterns_cover_vms_that_come_later, .setup = open_stage, .teardown = close_stage) {
    const struct entry *entry;

    fake_subscribe(&alice, "web*", BIT(VMIBUS_KIND_ROSTER));
    fake_control_forget(&alice);
    fake_offer(&sensor, "db", GROUPS_ALL);
    fake_offer(&sensor, "web1", GROUPS_ALL);
    entry = fake_control_next(&alice);
    ck_assert_str_eq(entry->tail, "web1");
    ck_assert_uint_eq(entry->frame.header.flags, 0);
    ck_assert_ptr_null(fake_control_next(&alice));
    /* kinds = 0 ends a subscription, of one that is not there too. */
    assert_ack(&alice, fake_subscribe(&alice, "web*", 0), OK, NONE);
    assert_ack(&alice, fake_subscribe(&alice, "web*", 0), OK, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_SUBSCRIPTIONS), 0);
    fake_control_forget(&alice);
    fake_offer(&sensor, "web2", GROUPS_ALL);
    ck_assert_ptr_null(fake_control_next(&alice));
}

TEST(test_p07_publication_numbers_rise_by_one, .setup = open_stage, .teardown = close_stage) {
    uint64_t last = endpoint->publication;

    fake_subscribe(&alice, "*", BIT(VMIBUS_KIND_LIFECYCLE));
    for (int i = 0; i < 10; i++) {
        fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
        ck_assert_uint_eq(fake_control_next_of(&alice, VMIBUS_KIND_LIFECYCLE)->header.publication, ++last);
    }
}

/* --- memory contexts --------------------------------------------------------------------------- */

TEST(test_p07_invalidated_withdraws_what_waits_of_its_epoch, .setup = open_stage, .teardown = close_stage) {
    const struct vmibus_frame *frame;

    fake_subscribe(&alice, "*", KINDS_RETAINED);
    fake_control_forget(&alice);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_PENDING);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_READY);
    stage_invalidate(endpoint, 1);
    stage_memctx(endpoint, 2, VMIBUS_MEMCTX_STATE_PENDING);
    stage_memctx(endpoint, 2, VMIBUS_MEMCTX_STATE_READY);
    frame = &fake_control_next(&alice)->frame;
    ck_assert_uint_eq(frame->header.kind, VMIBUS_KIND_MEMCTX_INVALIDATED);
    ck_assert_uint_eq(frame->memctx_invalidated.epoch, 1);
    frame = fake_control_next_of(&alice, VMIBUS_KIND_MEMCTX);
    ck_assert_uint_eq(frame->memctx.epoch, 2);
    while (frame->memctx.state != VMIBUS_MEMCTX_STATE_READY)
        ck_assert_ptr_nonnull(frame = fake_control_next_of(&alice, VMIBUS_KIND_MEMCTX));
    ck_assert_ptr_null(fake_control_next(&alice));
    /* One that has been told already is only ended. */
    stage_invalidate(endpoint, 2);
    ck_assert_uint_eq(fake_control_next(&alice)->frame.memctx_invalidated.epoch, 2);
    fake_subscribe(&alice, "vm", KINDS_RETAINED);
    ck_assert_ptr_null(fake_control_next_of(&alice, VMIBUS_KIND_MEMCTX));
}

TEST(test_p06_memctx_of_a_vm_that_is_gone_is_not_told, .setup = open_stage, .teardown = close_stage) {
    fake_subscribe(&alice, "*", KINDS_RETAINED);
    fake_control_forget(&alice);
    stage_memctx(endpoint, 1, VMIBUS_MEMCTX_STATE_READY);
    fake_withdraw(&sensor, endpoint);
    ck_assert_uint_eq(fake_control_next(&alice)->frame.header.kind, VMIBUS_KIND_ROSTER);
    ck_assert_ptr_null(fake_control_next(&alice));
}

/* --- removals ---------------------------------------------------------------------------------- */

TEST(test_p07_removal_is_never_lost, .setup = open_narrow_stage, .teardown = close_stage) {
    struct endpoint *endpoints[16];
    unsigned n_removed = 0, n_added = 0;
    const struct vmibus_frame *frame;

    fake_withdraw(&sensor, endpoint);
    fake_subscribe(&alice, "*", KINDS_RETAINED);
    for (int i = 0; i < 16; i++) {
        endpoints[i] = fake_offer(&sensor, "vm", GROUPS_ALL);
        fake_lifecycle(&sensor, endpoints[i], VMIBUS_VM_STATE_RUNNING);
        fake_control_forget(&alice);
    }
    /* Now it takes nothing any more. */
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 10; j++)
            fake_lifecycle(&sensor, endpoints[i], VMIBUS_VM_STATE_RUNNING);
    for (int i = 0; i < 16; i++)
        fake_withdraw(&sensor, endpoints[i]);
    ck_assert(!alice.failed);
    while ((frame = fake_control_next_of(&alice, VMIBUS_KIND_ROSTER))) {
        n_added += frame->roster.change == VMIBUS_ROSTER_CHANGE_ADDED;
        n_removed += frame->roster.change == VMIBUS_ROSTER_CHANGE_REMOVED;
    }
    ck_assert_uint_eq(n_added, 0);
    ck_assert_uint_eq(n_removed, 16);
    for (size_t i = 0; i < alice.log.n; i++)
        if (alice.log.entries[i]->frame.header.kind == VMIBUS_KIND_ROSTER)
            ck_assert_str_eq(alice.log.entries[i]->tail, "vm");
}

TEST(test_p09_control_that_takes_no_removals_has_to_go, .setup = open_narrow_stage, .teardown = close_stage) {
    const struct entry *entry;

    fake_subscribe(&alice, "*", KINDS_RETAINED);
    fake_control_forget(&alice);
    for (int i = 0; i < 30 && !alice.failed; i++) {
        fake_withdraw(&sensor, endpoint);
        endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    }
    ck_assert(alice.failed);
    entry = fake_control_next(&alice);
    ck_assert_uint_eq(entry->frame.header.kind, VMIBUS_KIND_ERROR);
    ck_assert_uint_eq(entry->frame.error.error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(entry->frame.error.reason, VMIBUS_REASON_LIMIT_QUEUE);
    ck_assert_uint_eq(entry->frame.error.closing, 1);
    ck_assert_ptr_null(fake_control_next(&alice));
}

/* --- against a model --------------------------------------------------------------------------- */

#define SLOTS 4

/* What one control was told of one endpoint. */
struct told {
    uint64_t generation;
    uint64_t last;              /* publication */
    uint64_t by_kind[64];       /* the last of each kind and, for leases, class */
    uint64_t ended_epoch;       /* published as ended, while INVALIDATED was subscribed */
    bool removed;
};

struct model {
    struct endpoint *endpoints[SLOTS + 1];
    struct told told[2000];     /* by the lower half of the generation */
    uint64_t epoch;
    uint64_t token[4];
    bool resubscribes;          /* then an old state may be told late, but never older than its kind was */
};

static struct model model;

static unsigned below(unsigned bound) {
    return (unsigned)rand() % bound;
}

static unsigned state_of(const struct vmibus_frame *frame) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_LEASE:
        return 32u + frame->lease.lease_class;
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        return VMIBUS_KIND_MEMCTX & 63;
    default:
        return frame->header.kind & 63;
    }
}

static struct told *told_of(uint64_t generation) {
    struct told *told = &model.told[(uint32_t)generation];

    ck_assert_uint_lt((uint32_t)generation, 2000);
    told->generation = generation;
    return told;
}

static void check_told(const struct entry *entry) {
    const struct vmibus_header *header = &entry->frame.header;
    struct told *told;
    uint64_t *last;

    if (header->kind == VMIBUS_KIND_GAP || header->kind == VMIBUS_KIND_ACK)
        return;
    told = told_of(header->generation);
    last = &told->by_kind[state_of(&entry->frame)];
    ck_assert_msg(!told->removed, "told of a VM after its removal");
    ck_assert_uint_gt(header->publication, *last - (model.resubscribes && *last));
    *last = header->publication;
    if (!model.resubscribes)
        ck_assert_uint_gt(header->publication, told->last);
    told->last = header->publication;
    if (header->kind == VMIBUS_KIND_MEMCTX)
        ck_assert_uint_gt(entry->frame.memctx.epoch, told->ended_epoch);
    told->removed = header->kind == VMIBUS_KIND_ROSTER && entry->frame.roster.change == VMIBUS_ROSTER_CHANGE_REMOVED;
}

static void take_some(unsigned n) {
    const struct entry *entry;

    while (n-- && (entry = fake_control_take(&alice)))
        check_told(entry);
}

/* Everything has been taken: what was told last is what is. */
static void check_complete(uint64_t kinds) {
    for (unsigned i = 1; i <= SLOTS; i++) {
        const struct endpoint *it = model.endpoints[i];

        for (unsigned j = 0; it && j < N_RETAINED; j++) {
            const struct retained *retained = &it->retained[j];

            if (retained->present && kinds & BIT(retained->frame.header.kind))
                ck_assert_uint_eq(told_of(it->generation)->by_kind[state_of(&retained->frame)], retained->frame.header.publication);
        }
    }
    ck_assert_uint_eq(stage_used(RESOURCE_EVENTS), 0);
    ck_assert(outbox_is_empty(&alice.control.outbox));
}

static void step(unsigned slot, uint64_t *kinds) {
    struct endpoint **place = &model.endpoints[slot], *it = *place;
    struct lease *lease;

    if (!it) {
        /* Whichever slot the bus takes, the model calls it by its own. */
        *place = fake_offer(&sensor, "vm", GROUPS_ALL);
        ck_assert_ptr_nonnull(*place);
        return;
    }
    switch (below(12)) {
    case 0:
        ck_assert(!told_of(it->generation)->removed);
        fake_withdraw(&sensor, it);
        *place = NULL;
        break;
    case 1:
    case 2:
        stage_memctx(it, ++model.epoch, VMIBUS_MEMCTX_STATE_READY);
        break;
    case 3:
        stage_memctx(it, model.epoch ? model.epoch : ++model.epoch, VMIBUS_MEMCTX_STATE_READY);
        stage_invalidate(it, model.epoch);
        told_of(it->generation)->ended_epoch = model.epoch++;
        break;
    case 4:
    case 5:
        lease = &it->leases[below(3)];
        if (lease->state == VMIBUS_LEASE_STATE_HELD)
            fake_release(&bob, it, lease->lease_class, lease->token);
        else
            fake_acquire(&bob, it, lease->lease_class, VMIBUS_LEASE_MODE_FAIL, 0);
        fake_control_forget(&bob);
        break;
    case 6:
        if (model.resubscribes) {
            *kinds = KINDS_RETAINED & ~BIT(VMIBUS_KIND_ROSTER + below(4));
            fake_subscribe(&alice, "*", *kinds | BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) | BIT(VMIBUS_KIND_ROSTER));
            *kinds |= BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) | BIT(VMIBUS_KIND_ROSTER);
        }
        break;
    default:
        fake_lifecycle(&sensor, it, (enum vmibus_vm_state)below(6));
        break;
    }
}

TEST(test_p07_state_never_goes_backwards, .iterations = 40, .timeout = 60) {
    unsigned seed = (unsigned)clock_now() * 40 + (unsigned)_i;
    uint64_t kinds = KINDS_RETAINED;

    printf("seed %u\n", seed);
    srand(seed);
    stage_open(&(struct stage_options){.n_endpoints = SLOTS, .queue_depth = 1 + below(12), .commands = 10000});
    model = (struct model){.resubscribes = _i % 2};
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    sensor.answers = true;
    fake_subscribe(&alice, "*", kinds);
    for (int i = 0; i < 2000; i++) {
        step(1 + below(SLOTS), &kinds);
        if (below(3) == 0 || alice.control.n_farewells == SLOTS)
            take_some(below(6) + 4 * (alice.control.n_farewells == SLOTS));
        if (below(100) == 0) {
            take_some(UINT32_MAX);
            check_complete(kinds);
        }
        while (alice.control.n_farewells == SLOTS)
            take_some(1);
    }
    take_some(UINT32_MAX);
    check_complete(kinds);
    ck_assert(!alice.failed);
    fake_control_close(&alice);
    fake_control_close(&bob);
    fake_sensor_close(&sensor);
    stage_close();
}

HARNESS_SUITE("delivery", HARNESS_QUICK)
