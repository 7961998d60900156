/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Everything is charged, limits are named, and whoever hoards or is slow hurts only itself. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <vmibus/names.h>

#include "bus/stage.h"
#include "util/fds.h"

static struct fake_control alice, bob;
static struct fake_sensor sensor;
static uint64_t limits[N_RESOURCES], limits_total[N_RESOURCES];

static void check_zero(void) {
    for (int i = 0; i < N_RESOURCES; i++)
        if (i != RESOURCE_ENDPOINTS)
            ck_assert_msg(stage_used((enum resource)i) == 0, "%s", vmibus_reason_name(resource_reason((enum resource)i)));
}

static void open_with(struct stage_options options) {
    options.limits = limits;
    options.limits_total = limits_total;
    stage_open(&options);
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
}

static void set_limits(void) {
    for (int i = 0; i < N_RESOURCES; i++) {
        limits[i] = 100;
        limits_total[i] = 1000;
    }
    limits[RESOURCE_BYTES] = limits_total[RESOURCE_BYTES] = 64 << 20; /* a region of each control's own */
    limits[RESOURCE_ANSWERS] = limits_total[RESOURCE_ANSWERS] = 64 << 20;
}

static void close_stage(void) {
    fake_control_close(&alice);
    fake_control_close(&bob);
    fake_sensor_close(&sensor);
    stage_close();
}

TEST(test_p08_hoarded_leases_and_places, .setup = set_limits) {
    struct endpoint *endpoints[8];
    uint64_t command;

    limits[RESOURCE_LEASES] = 3;
    limits[RESOURCE_WAITERS] = 2;
    open_with((struct stage_options){});
    sensor.answers = true;
    for (int i = 0; i < 8; i++)
        endpoints[i] = fake_offer(&sensor, "vm", GROUPS_ALL);
    for (int i = 0; i < 3; i++)
        fake_hold(&alice, endpoints[i], VMIBUS_LEASE_CLASS_INPUT);
    command = fake_acquire(&alice, endpoints[3], VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_FAIL, 0);
    assert_ack(&alice, command, QUOTA, LIMIT_LEASES);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, 3);
    fake_hold(&bob, endpoints[3], VMIBUS_LEASE_CLASS_INPUT);
    for (int i = 0; i < 2; i++)
        fake_acquire(&bob, endpoints[i], VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_QUEUE, 0);
    command = fake_acquire(&bob, endpoints[2], VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_QUEUE, 0);
    assert_ack(&bob, command, QUOTA, LIMIT_WAITERS);
    ck_assert_uint_eq(fake_control_ack(&bob, command)->value, 2);
    ck_assert_uint_eq(stage_used(RESOURCE_LEASES), 4);
    ck_assert_uint_eq(stage_used(RESOURCE_WAITERS), 2);
    fake_control_close(&bob);
    ck_assert_uint_eq(stage_used(RESOURCE_WAITERS), 0);
    fake_control_close(&alice);
    check_zero();
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    close_stage();
}

/* A waiter that cannot pay when its turn comes is told so, and the next has it. */
TEST(test_p08_waiter_over_its_quota_is_passed_over, .setup = set_limits) {
    struct endpoint *endpoints[2];
    struct fake_control carol;
    uint64_t token, second, third;

    limits[RESOURCE_LEASES] = 1;
    open_with((struct stage_options){});
    fake_control_open(&carol, 3);
    for (int i = 0; i < 2; i++)
        endpoints[i] = fake_offer(&sensor, "vm", GROUPS_ALL);
    token = fake_hold(&alice, endpoints[0], VMIBUS_LEASE_CLASS_POWER);
    second = fake_acquire(&bob, endpoints[0], VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
    third = fake_acquire(&carol, endpoints[0], VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
    fake_hold(&bob, endpoints[1], VMIBUS_LEASE_CLASS_POWER);
    fake_release(&alice, endpoints[0], VMIBUS_LEASE_CLASS_POWER, token);
    assert_ack(&bob, second, QUOTA, LIMIT_LEASES);
    assert_ack(&carol, third, OK, NONE);
    fake_control_close(&carol);
    close_stage();
}

TEST(test_p08_hoarded_subscriptions, .setup = set_limits) {
    char pattern[32];
    uint64_t command = 0;

    limits[RESOURCE_SUBSCRIPTIONS] = 5;
    open_with((struct stage_options){});
    for (int i = 0; i < 6; i++) {
        snprintf(pattern, sizeof(pattern), "vm%d", i);
        command = fake_subscribe(&alice, pattern, KINDS_ALL);
    }
    assert_ack(&alice, command, QUOTA, LIMIT_SUBSCRIPTIONS);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, 5);
    /* The same pattern is no further one, and another uid has its own. */
    assert_ack(&alice, fake_subscribe(&alice, "vm0", BIT(VMIBUS_KIND_ROSTER)), OK, NONE);
    assert_ack(&bob, fake_subscribe(&bob, "vm0", KINDS_ALL), OK, NONE);
    assert_ack(&alice, fake_subscribe(&alice, "vm1", 0), OK, NONE);
    assert_ack(&alice, fake_subscribe(&alice, "vm9", KINDS_ALL), OK, NONE);
    fake_control_close(&alice);
    fake_control_close(&bob);
    check_zero();
    fake_control_open(&alice, 1);
    fake_control_open(&bob, 2);
    close_stage();
}

TEST(test_p08_connections_are_bounded, .setup = set_limits) {
    struct fake_control third;

    open_with((struct stage_options){.n_connections = 2});
    ck_assert_int_eq(fake_control_try(&third, 3), VMIBUS_ERROR_PRESSURE);
    fake_control_close(&bob);
    fake_control_open(&third, 3);
    fake_control_close(&third);
    fake_control_open(&bob, 2);
    close_stage();
}

/* Whoever takes nothing: its queue fills, its uid pays, all others hear everything. */
TEST(test_p09_slow_control_hurts_only_itself, .setup = set_limits) {
    struct endpoint *endpoint;
    unsigned n_heard = 0;
    const struct entry *entry;

    limits[RESOURCE_EVENTS] = 8;
    open_with((struct stage_options){.queue_depth = 50, .commands = 4});
    endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    fake_subscribe(&alice, "*", KINDS_ALL);
    fake_subscribe(&bob, "*", KINDS_ALL);
    fake_control_forget(&alice);
    fake_control_forget(&bob);
    for (int i = 0; i < 1000; i++) {
        fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
        while ((entry = fake_control_next(&bob))) {
            ck_assert_uint_eq(entry->frame.header.kind, VMIBUS_KIND_LIFECYCLE);
            n_heard++;
        }
        ck_assert_uint_le(stage_used(RESOURCE_EVENTS), 8);
    }
    ck_assert_uint_eq(n_heard, 1000);
    /* Its commands are not read while their answers wait; those of others are answered. */
    while (control_may_submit(&alice.control))
        fake_query(&alice, NULL, VMIBUS_QUERY_STATS);
    ck_assert_uint_eq(alice.control.outbox.n_answers, 4);
    assert_ack(&bob, fake_query(&bob, NULL, VMIBUS_QUERY_STATS), OK, NONE);
    ck_assert_ptr_nonnull(fake_control_next_of(&alice, VMIBUS_KIND_GAP));
    ck_assert(control_may_submit(&alice.control));
    close_stage();
}

/* All that one control waits for or holds may end at once: there is room for every answer, however few connections there may be. */
TEST(test_p08_there_is_room_for_every_answer, .setup = set_limits) {
    struct endpoint *endpoints[60];
    unsigned n_answers = 0, n_lost = 0;
    const struct entry *entry;

    limits[RESOURCE_LEASES] = limits[RESOURCE_WAITERS] = 90;
    limits_total[RESOURCE_EVENTS] = 4; /* answers could use what events do not */
    open_with((struct stage_options){.n_connections = 2, .commands = 2, .n_endpoints = 60});
    for (int i = 0; i < 60; i++)
        endpoints[i] = fake_offer(&sensor, "vm", GROUPS_ALL);
    for (int i = 0; i < 60; i++) {
        fake_hold(i % 2 ? &alice : &bob, endpoints[i], VMIBUS_LEASE_CLASS_POWER);
        fake_hold(i % 2 ? &alice : &bob, endpoints[i], VMIBUS_LEASE_CLASS_MEMWRITE);
        fake_acquire(i % 2 ? &bob : &alice, endpoints[i], VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
        fake_acquire(i % 2 ? &bob : &alice, endpoints[i], VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_QUEUE, 0);
    }
    fake_control_forget(&alice);
    fake_control_forget(&bob);
    for (int i = 0; i < 60; i++)
        fake_withdraw(&sensor, endpoints[i]);
    ck_assert(!alice.failed && !bob.failed);
    while ((entry = fake_control_next(&alice)) || (entry = fake_control_next(&bob))) {
        n_answers += entry->frame.header.kind == VMIBUS_KIND_ACK;
        n_lost += entry->frame.header.kind == VMIBUS_KIND_LEASE;
    }
    ck_assert_uint_eq(n_answers, 120);
    ck_assert_uint_eq(n_lost, 120);
    close_stage();
}

/* --- descriptors ------------------------------------------------------------------------------- */

static uint64_t answer_with_fds(struct fake_control *control, int n_fds) {
    const struct vmibus_header command = {.kind = VMIBUS_KIND_MEM_ATTACH, .correlation = ++control->correlation};
    const struct vmibus_ack ack = {.count = (uint64_t)n_fds};
    int fds[VMIBUS_FDS_PER_FRAME];

    for (int i = 0; i < n_fds; i++)
        fds[i] = eventfd(0, EFD_CLOEXEC);
    control_answer(&control->control, &command, &ack, "tail", 4, fds, (size_t)n_fds);
    fds_close(fds, (size_t)n_fds);
    return control->correlation;
}

TEST(test_p08_descriptors_in_flight_are_charged, .setup = set_limits) {
    struct control_item item;
    uint64_t command;

    limits[RESOURCE_FDS] = 5;
    open_with((struct stage_options){});
    answer_with_fds(&alice, 3);
    ck_assert_uint_eq(stage_used(RESOURCE_FDS), 3);
    ck_assert(control_take(&alice.control, &item));
    alice.delivery++;
    ck_assert_uint_eq(item.frame.header.fd_count, 3);
    ck_assert_uint_eq(item.fds->n_fds, 3);
    ck_assert_uint_eq(item.tail->length, 4);
    /* Taken, but in flight until whoever took them says otherwise. */
    ck_assert_uint_eq(stage_used(RESOURCE_FDS), 3);
    command = answer_with_fds(&alice, 3);
    ck_assert_uint_gt(alice.n_reclaims, 0);
    assert_ack(&alice, command, QUOTA, LIMIT_FDS);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->count, 3);
    ck_assert_uint_eq(fake_control_ack(&alice, command)->token, alice.control.principal.uid);
    control_item_deinit(&item);
    ck_assert_uint_eq(stage_used(RESOURCE_FDS), 0);
    command = answer_with_fds(&bob, 5);
    assert_ack(&bob, command, OK, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_FDS), 0);
    /* What was never taken is closed with the control; the harness counts. */
    answer_with_fds(&alice, 4);
    close_stage();
}

/* --- everything at once ------------------------------------------------------------------------ */

/* Controls come, grab what they can and leave or stay; sensors stall, answer, come and go.  At the end everything is zero. */
TEST(test_p08_zero_after_chaos, .setup = set_limits, .iterations = 20) {
    struct fake_control controls[6];
    struct endpoint *endpoints[6] = {};
    unsigned seed = (unsigned)clock_now() * 20 + (unsigned)_i;

    printf("seed %u\n", seed);
    srand(seed);
    limits[RESOURCE_EVENTS] = 20;
    limits[RESOURCE_LEASES] = limits[RESOURCE_WAITERS] = limits[RESOURCE_COMMANDS] = 4;
    limits_total[RESOURCE_COMMANDS] = 6;
    stage_open(&(struct stage_options){
        .with_link = true, .limits = limits, .limits_total = limits_total, .queue_depth = 8, .commands = 8, .n_endpoints = 6});
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    for (int i = 0; i < 6; i++)
        fake_control_open(&controls[i], (uid_t)i / 2);
    for (int i = 0; i < 3000; i++) {
        struct fake_control *control = &controls[rand() % 6];
        struct endpoint **endpoint = &endpoints[rand() % 6];
        struct lease *lease = *endpoint ? &(*endpoint)->leases[rand() % 3] : NULL;
        const struct entry *entry;

        sensor.answers = rand() % 2;
        stage.link_drains = rand() % 2;
        if (control->failed || rand() % 50 == 0) {
            fake_control_close(control);
            fake_control_open(control, (uid_t)(control - controls) / 2);
        } else if (!*endpoint) {
            *endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
        } else if (rand() % 60 == 0) {
            fake_withdraw(&sensor, *endpoint);
            *endpoint = NULL;
        } else if (rand() % 4 == 0) {
            while ((entry = fake_sensor_next(&sensor)))
                if (entry->frame.header.kind != VMIBUS_KIND_DEMAND && entry->frame.header.kind != VMIBUS_KIND_CANCEL)
                    fake_complete(&sensor, &entry->frame, rand() % 3 ? VMIBUS_ERROR_OK : VMIBUS_ERROR_IO);
            for (unsigned j = 0; j < 3; j++)
                stage_drained(*endpoint, (*endpoint)->leases[j].token);
        } else if (rand() % 4 == 0) {
            fake_control_forget(control);
        } else if (!control_may_submit(&control->control)) {
            continue;
        } else if (rand() % 4 == 0) {
            fake_subscribe(control, rand() % 2 ? "*" : "vm", rand() % 4 ? KINDS_ALL : 0);
        } else if (lease->state == VMIBUS_LEASE_STATE_HELD && rand() % 3) {
            struct vmibus_frame frame = {
                .header = {.kind = VMIBUS_KIND_CMD_INPUT, .slot = (*endpoint)->slot, .generation = (*endpoint)->generation},
                .cmd_input = {.token = lease->token,
                              .not_before_us = (uint32_t)(rand() % 2 * rand()),
                              .count = 1,
                              .events = {{.type = VMIBUS_INPUT_TYPE_KEY}}},
            };

            if (rand() % 5 == 0)
                fake_release(control, *endpoint, lease->lease_class, lease->token);
            else if (lease->lease_class == VMIBUS_LEASE_CLASS_INPUT)
                fake_control_submit(control, &frame, NULL, 0);
            else
                fake_power(control, *endpoint, lease->token, VMIBUS_POWER_OPERATION_RESET);
        } else {
            fake_acquire(control, *endpoint, lease->lease_class, (enum vmibus_lease_mode)(1 + rand() % 3), (uint32_t)(rand() % 3));
        }
        if (rand() % 20 == 0)
            stage_settle();
    }
    for (int i = 0; i < 6; i++)
        fake_control_close(&controls[i]);
    fake_sensor_close(&sensor);
    check_zero();
    stage_close();
}

HARNESS_SUITE("limits", HARNESS_QUICK)
