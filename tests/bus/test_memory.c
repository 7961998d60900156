/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the bus holds for peers: where it ends, who is told, who goes on; and RESOURCES, which come on demand only. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/stage.h"
#include "harness.h"
#include "util/region.h"

#define RESOURCES VMIBUS_KIND_BIT(VMIBUS_KIND_RESOURCES)

static uint64_t limits[N_RESOURCES], limits_total[N_RESOURCES];

static void set_limits(void) {
    for (int i = 0; i < N_RESOURCES; i++) {
        limits[i] = 1000;
        limits_total[i] = 4000;
    }
    limits[RESOURCE_BYTES] = limits_total[RESOURCE_BYTES] = UINT64_C(1) << 32;
    limits[RESOURCE_ANSWERS] = limits_total[RESOURCE_ANSWERS] = UINT64_C(1) << 32;
    limits[RESOURCE_SUBSCRIPTIONS] = limits_total[RESOURCE_SUBSCRIPTIONS] = 1 << 20;
}

/* Subscribes to patterns of 255 octets, no two the same, until one is refused. Returns that answer. */
static const struct vmibus_ack *subscribe_on(struct fake_control *control) {
    char pattern[256];

    for (unsigned i = 0;; i++) {
        const struct vmibus_ack *ack;

        snprintf(pattern, sizeof(pattern), "%0255u", i);
        ack = fake_control_ack(control, fake_subscribe(control, pattern, 1));
        if (ack->error)
            return ack;
        if (i % 64 == 0)
            fake_control_forget(control);
    }
}

TEST(test_p08_p09_greedy_control_ends_at_its_quota, .setup = set_limits) {
    struct fake_control greedy, modest;
    const struct vmibus_ack *ack;

    limits[RESOURCE_BYTES] = 8 * REGION_BLOCK;
    stage_open(&(struct stage_options){.limits = limits, .limits_total = limits_total});
    fake_control_open(&greedy, 1);
    ack = subscribe_on(&greedy);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(ack->value, 8 * REGION_BLOCK);
    ck_assert_uint_eq(ack->count, 8 * REGION_BLOCK);
    ck_assert_uint_eq(stage_used(RESOURCE_BYTES), 8 * REGION_BLOCK);
    fake_control_open(&modest, 2);
    assert_ack(&modest, fake_subscribe(&modest, "*", UINT64_MAX), OK, NONE);
    fake_control_close(&modest);
    fake_control_close(&greedy);
    ck_assert_uint_eq(stage_used(RESOURCE_BYTES), 0);
    stage_close();
}

TEST(test_p08_p09_memory_that_is_used_up_is_named, .setup = set_limits) {
    struct fake_control greedy, modest, late;
    const struct vmibus_ack *ack;

    stage_open(&(struct stage_options){.limits = limits, .limits_total = limits_total, .region_octets = 16 * REGION_BLOCK});
    fake_control_open(&modest, 2);
    fake_control_open(&greedy, 1);
    ack = subscribe_on(&greedy);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_LIMIT_MEMORY);
    ck_assert_uint_eq(ack->value, 16 * REGION_BLOCK);
    ck_assert_uint_eq(ack->count, 16 * REGION_BLOCK);
    ck_assert_uint_eq(ack->token, 1); /* who uses most */
    /* Whoever is in goes on with what it has, and nobody is let in without. */
    assert_ack(&modest, fake_subscribe(&modest, "*", UINT64_MAX), OK, NONE);
    ck_assert_int_eq(fake_control_try(&late, 3), VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(late.refusal.reason, VMIBUS_REASON_LIMIT_MEMORY);
    fake_control_close(&greedy);
    fake_control_open(&late, 3);
    fake_control_close(&late);
    fake_control_close(&modest);
    stage_close();
}

/* A VM comes whoever cannot pay for knowing of it. */
TEST(test_p09_endpoint_comes_past_a_control_without_memory, .setup = set_limits) {
    struct fake_control poor, modest;
    struct fake_sensor sensor;
    char name[16];

    limits[RESOURCE_BYTES] = REGION_BLOCK;
    stage_open(&(struct stage_options){.limits = limits, .limits_total = limits_total, .n_endpoints = 200});
    fake_sensor_open(&sensor, "host", VMIBUS_GROUP_LIFECYCLE, 0);
    fake_control_open(&poor, 1);
    (void)subscribe_on(&poor);
    fake_control_forget(&poor);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "vm%u", i);
        ck_assert_ptr_nonnull(fake_offer(&sensor, name, VMIBUS_GROUP_LIFECYCLE));
    }
    ck_assert(poor.failed);
    ck_assert_uint_eq(fake_control_next_of(&poor, VMIBUS_KIND_ERROR)->error.reason, VMIBUS_REASON_LIMIT_BYTES);
    stage.policy->limits[RESOURCE_BYTES] = UINT64_C(1) << 32;
    fake_control_open(&modest, 2);
    assert_ack(&modest, fake_subscribe(&modest, "*", UINT64_MAX), OK, NONE);
    fake_control_close(&modest);
    fake_control_close(&poor);
    fake_sensor_close(&sensor);
    stage_close();
}

/* An answer's tail is paid by who asked, until it is taken. */
TEST(test_p08_untaken_answers_are_charged, .setup = set_limits) {
    struct fake_control control;
    const struct vmibus_frame *frame;
    unsigned refused = 0;

    limits[RESOURCE_ANSWERS] = 4 * REGION_BLOCK;
    stage_open(&(struct stage_options){.limits = limits, .limits_total = limits_total, .commands = 512});
    fake_control_open(&control, 1);
    for (unsigned i = 0; i < 300; i++)
        (void)fake_query(&control, NULL, VMIBUS_QUERY_STATS);
    ck_assert_uint_le(stage_used(RESOURCE_ANSWERS), 4 * REGION_BLOCK);
    while ((frame = fake_control_next_of(&control, VMIBUS_KIND_ACK))) {
        ck_assert(frame->ack.error == VMIBUS_ERROR_OK || frame->ack.error == VMIBUS_ERROR_QUOTA);
        if (frame->ack.error) {
            ck_assert_uint_eq(frame->ack.reason, VMIBUS_REASON_LIMIT_ANSWERS);
            ck_assert_uint_eq(frame->header.tail_length, 0);
            refused++;
        }
    }
    ck_assert_uint_gt(refused, 0);
    ck_assert_uint_lt(refused, 300);
    assert_ack(&control, fake_query(&control, NULL, VMIBUS_QUERY_STATS), OK, NONE);
    fake_control_close(&control);
    ck_assert_uint_eq(stage_used(RESOURCE_ANSWERS), 0);
    ck_assert_uint_eq(stage_used(RESOURCE_BYTES), 0);
    stage_close();
}

/* --- RESOURCES --------------------------------------------------------------------------------- */

static unsigned n_wanted, n_unwanted;

static void resources_wanted(void *context, bool wanted) {
    (void)context;
    *(wanted ? &n_wanted : &n_unwanted) += 1;
}

static void tell_resources(struct endpoint *endpoint) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_RESOURCES, .priority = VMIBUS_PRIORITY_BULK}, .resources = {.pid = 5}};

    endpoint_publish(endpoint, &frame, NULL);
}

TEST(test_p02_resources_are_wanted_from_the_first_to_the_last) {
    struct fake_control first, second;
    struct fake_sensor sensor;
    struct endpoint *vm;

    stage_open_default();
    stage.bus->options.resources_wanted = resources_wanted;
    fake_sensor_open(&sensor, "host", VMIBUS_GROUP_LIFECYCLE, 0);
    fake_control_open(&first, 1);
    fake_control_open(&second, 2);
    assert_ack(&first, fake_subscribe(&first, "*", ~RESOURCES), OK, NONE);
    ck_assert_uint_eq(n_wanted, 0);
    assert_ack(&first, fake_subscribe(&first, "*", RESOURCES), OK, NONE);
    ck_assert_uint_eq(n_wanted, 1);
    vm = fake_offer(&sensor, "vm", VMIBUS_GROUP_LIFECYCLE);
    assert_ack(&second, fake_subscribe(&second, "vm", RESOURCES), OK, NONE);
    ck_assert_uint_eq(n_wanted, 1);
    assert_ack(&first, fake_subscribe(&first, "*", 0), OK, NONE);
    ck_assert_uint_eq(n_unwanted, 0);
    fake_withdraw(&sensor, vm);
    ck_assert_uint_eq(n_unwanted, 0); /* that of the bus itself is still wanted */
    fake_control_close(&second);
    ck_assert_uint_eq(n_unwanted, 1);
    assert_ack(&first, fake_subscribe(&first, "*", RESOURCES), OK, NONE);
    ck_assert_uint_eq(n_wanted, 2);
    fake_control_close(&first);
    ck_assert_uint_eq(n_unwanted, 2);
    fake_sensor_close(&sensor);
    stage_close();
}

TEST(test_p01_resources_need_the_capability_stats) {
    struct fake_control none, some, elsewhere;
    struct fake_sensor sensor;
    struct endpoint *vm;

    stage_open_default();
    stage.bus->options.resources_wanted = resources_wanted;
    stage_new_policy();
    stage_allow(1, "*", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX | VMIBUS_CAP_MEM_WRITE, 0);
    stage_allow(2, "vm", VMIBUS_CAP_STATS, 0);
    stage_allow(3, "other", VMIBUS_CAP_STATS, 0);
    stage_apply_policy();
    fake_sensor_open(&sensor, "host", VMIBUS_GROUP_LIFECYCLE, 0);
    vm = fake_offer(&sensor, "vm", VMIBUS_GROUP_LIFECYCLE);
    fake_control_open(&none, 1);
    assert_ack(&none, fake_subscribe(&none, "*", UINT64_MAX), OK, NONE);
    ck_assert_uint_eq(n_wanted, 0);
    fake_control_open(&some, 2);
    fake_control_open(&elsewhere, 3);
    assert_ack(&some, fake_subscribe(&some, "*", UINT64_MAX), OK, NONE);
    assert_ack(&elsewhere, fake_subscribe(&elsewhere, "*", UINT64_MAX), OK, NONE);
    tell_resources(vm);
    ck_assert_ptr_nonnull(fake_control_next_of(&some, VMIBUS_KIND_RESOURCES));
    ck_assert_ptr_null(fake_control_next_of(&some, VMIBUS_KIND_RESOURCES));
    ck_assert_ptr_null(fake_control_next_of(&none, VMIBUS_KIND_RESOURCES));
    ck_assert_ptr_null(fake_control_next_of(&elsewhere, VMIBUS_KIND_RESOURCES));
    fake_control_close(&none);
    fake_control_close(&some);
    fake_control_close(&elsewhere);
    fake_sensor_close(&sensor);
    stage_close();
}

HARNESS_SUITE("memory", HARNESS_QUICK)
