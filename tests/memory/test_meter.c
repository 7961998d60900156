/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rate of writing: buckets that hold a second's worth. */
#include "harness.h"

#include "memory/meter.h"

#define SECOND UINT64_C(1000000000)

static struct meters meters;
static uint64_t wait_us;

static int take(uid_t uid, uint64_t octets, uint64_t now) {
    return meter_take(&meters, uid, 1000, octets, now, &wait_us);
}

TEST(test_a_second_may_be_saved_up) {
    meters_init(&meters);
    ck_assert_int_eq(take(1, 600, SECOND), 0);
    ck_assert_int_eq(take(1, 400, SECOND), 0);
    ck_assert_int_eq(take(1, 1, SECOND), METER_WAIT);
    ck_assert_uint_eq(wait_us, 1000);
    ck_assert_int_eq(take(1, 1, SECOND + 999999), METER_WAIT);
    ck_assert_uint_eq(wait_us, 1);
    ck_assert_int_eq(take(1, 1, SECOND + 1000000), 0);
    ck_assert_int_eq(take(1, 1000, 100 * SECOND), 0);
    ck_assert_int_eq(take(1, 1, 100 * SECOND), METER_WAIT);
    meters_deinit(&meters);
}

TEST(test_users_have_meters_of_their_own) {
    meters_init(&meters);
    ck_assert_int_eq(take(1, 1000, SECOND), 0);
    ck_assert_int_eq(take(1, 1000, SECOND), METER_WAIT);
    ck_assert_int_eq(take(2, 1000, SECOND), 0);
    ck_assert_int_eq(take(2, 1, SECOND), METER_WAIT);
    meters_deinit(&meters);
}

TEST(test_what_is_larger_than_a_second_passes_alone) {
    meters_init(&meters);
    ck_assert_int_eq(take(1, 5000, SECOND), 0);
    ck_assert_int_eq(take(1, 1, SECOND), METER_WAIT);
    ck_assert_uint_eq(wait_us, 4001000);
    ck_assert_int_eq(take(1, 5000, SECOND + 4 * SECOND), METER_WAIT);
    ck_assert_int_eq(take(1, 5000, SECOND + 5 * SECOND), 0);
    ck_assert_int_eq(meter_take(&meters, 3, 1, UINT64_MAX, SECOND, &wait_us), 0);
    ck_assert_int_eq(meter_take(&meters, 3, 1, 1, 1000000 * SECOND, &wait_us), METER_WAIT);
    meters_deinit(&meters);
}

TEST(test_what_was_not_written_is_given_back) {
    meters_init(&meters);
    ck_assert_int_eq(take(1, 1000, SECOND), 0);
    meter_give_back(&meters, 1, meter_worth(1000, 1000));
    ck_assert_int_eq(take(1, 1000, SECOND), 0);
    meter_give_back(&meters, 2, meter_worth(1000, 1000));
    ck_assert_int_eq(take(1, 1, SECOND), METER_WAIT);
    meters_deinit(&meters);
}

/* A user writes two guests at two rates: what comes back of the faster one pays nothing of the slower one's. */
TEST(test_what_is_given_back_is_worth_what_was_taken) {
    meters_init(&meters);
    ck_assert_int_eq(take(1, 500, SECOND), 0);
    ck_assert_int_eq(meter_take(&meters, 1, 2, 1, SECOND, &wait_us), 0);
    meter_give_back(&meters, 1, meter_worth(500, 1000));
    ck_assert_int_eq(meter_take(&meters, 1, 2, 2, SECOND, &wait_us), METER_WAIT);
    ck_assert_uint_eq(wait_us, 500000);
    meters_deinit(&meters);
}

/* There are no more meters than users who wrote a moment ago. */
TEST(test_p08_full_meters_are_dropped) {
    meters_init(&meters);
    for (uid_t uid = 0; uid < 1000; uid++)
        ck_assert_int_eq(take(uid, 1, SECOND + uid * SECOND), 0);
    ck_assert_ptr_eq(meters.used.next->next, &meters.used);
    meters_deinit(&meters);
}

HARNESS_SUITE("meter", HARNESS_QUICK)
