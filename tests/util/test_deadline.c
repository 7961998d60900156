/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deadlines of commands: the edge, none at all, and one beyond the end of time. */
#include "harness.h"

#include <stdint.h>

#include "util/deadline.h"

TEST(test_a_command_is_executed_up_to_and_including_its_deadline) {
    const struct vmibus_header header = {.timestamp = 5000, .deadline_us = 3};

    ck_assert_uint_eq(deadline_of(&header), 8000);
    ck_assert(!deadline_has_passed(&header, 0));
    ck_assert(!deadline_has_passed(&header, 8000));
    ck_assert(deadline_has_passed(&header, 8001));
    ck_assert(deadline_has_passed(&header, UINT64_MAX));
}

TEST(test_no_deadline_never_passes) {
    const struct vmibus_header header = {.timestamp = 5000};

    ck_assert_uint_eq(deadline_of(&header), DEADLINE_NONE);
    ck_assert(!deadline_has_passed(&header, UINT64_MAX));
}

TEST(test_a_deadline_beyond_the_end_of_time_never_passes) {
    struct vmibus_header header = {.timestamp = UINT64_MAX - 999, .deadline_us = 1};

    ck_assert(!deadline_has_passed(&header, UINT64_MAX));
    header = (struct vmibus_header){.timestamp = UINT64_MAX, .deadline_us = UINT32_MAX};
    ck_assert_uint_eq(deadline_of(&header), DEADLINE_NONE);
    ck_assert(!deadline_has_passed(&header, 0));
    /* The longest that can be said is not too long by itself. */
    header.timestamp = 0;
    ck_assert_uint_eq(deadline_of(&header), UINT32_MAX * NS_PER_US);
}

HARNESS_SUITE("deadline", HARNESS_QUICK)
