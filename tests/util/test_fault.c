/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fault injection itself: what each rule does, what is no rule, and that threads can ask. */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/fault.h"

#ifndef HAVE_FAULT_INJECTION

TEST(test_nothing_fails_in_a_build_that_is_not_for_it) {
    for (int i = 0; i < N_FAULT_LOCATIONS; i++)
        ck_assert_int_eq(fault_hit((enum fault_location)i), 0);
    test_skip("built without --enable-fault-injection: no rule can be set");
}

#else

static unsigned count_failures(enum fault_location location, unsigned n) {
    unsigned failures = 0;

    for (unsigned i = 0; i < n; i++)
        failures += fault_hit(location) < 0;
    return failures;
}

TEST(test_nothing_fails_without_rules) {
    for (int i = 0; i < N_FAULT_LOCATIONS; i++)
        ck_assert_uint_eq(count_failures((enum fault_location)i, 100), 0);
}

TEST(test_fail_always_and_off_never) {
    ck_assert_int_eq(fault_set("audit", "fail"), 0);
    ck_assert_uint_eq(count_failures(FAULT_AUDIT, 100), 100);
    ck_assert_uint_eq(count_failures(FAULT_WRITE, 100), 0);
    ck_assert_int_eq(fault_set("audit", "off"), 0);
    ck_assert_uint_eq(count_failures(FAULT_AUDIT, 100), 0);
}

TEST(test_drop_every_fails_the_last_of_each_so_many) {
    ck_assert_int_eq(fault_set("timer", "drop-every:3"), 0);
    for (unsigned i = 1; i <= 30; i++)
        ck_assert_int_eq(fault_hit(FAULT_TIMER) < 0, i % 3 == 0);
    ck_assert_uint_eq(fault_count(FAULT_TIMER).asked, 30);
    ck_assert_uint_eq(fault_count(FAULT_TIMER).failed, 10);
}

TEST(test_fail_after_lets_so_many_pass) {
    ck_assert_int_eq(fault_set("write", "fail-after:5"), 0);
    ck_assert_uint_eq(count_failures(FAULT_WRITE, 5), 0);
    ck_assert_uint_eq(count_failures(FAULT_WRITE, 5), 5);
    ck_assert_int_eq(fault_set("write", "fail-after:0"), 0);
    ck_assert_uint_eq(count_failures(FAULT_WRITE, 5), 5);
}

TEST(test_rate_is_about_as_given_and_the_same_for_one_seed) {
    bool first[1000];
    unsigned failures;

    ck_assert_int_eq(fault_set("seed", "42"), 0);
    ck_assert_int_eq(fault_set("translate", "rate:10"), 0);
    for (unsigned i = 0; i < 1000; i++)
        first[i] = fault_hit(FAULT_TRANSLATE) < 0;
    ck_assert_int_eq(fault_set("seed", "42"), 0);
    ck_assert_uint_eq(fault_seed(), 42);
    for (unsigned i = 0; i < 1000; i++)
        ck_assert_int_eq(fault_hit(FAULT_TRANSLATE) < 0, first[i]);
    failures = count_failures(FAULT_TRANSLATE, 10000);
    ck_assert_uint_gt(failures, 500);
    ck_assert_uint_lt(failures, 2000);
    ck_assert_int_eq(fault_set("translate", "rate:1"), 0);
    ck_assert_uint_eq(count_failures(FAULT_TRANSLATE, 100), 100);
}

TEST(test_delay_waits_and_fails_nothing) {
    uint64_t begin = clock_now();

    ck_assert_int_eq(fault_set("monitor", "delay-ms:20"), 0);
    ck_assert_int_eq(fault_hit(FAULT_MONITOR), 0);
    ck_assert_uint_ge(clock_now() - begin, 20 * NS_PER_MS);
}

/* At the sockets a part is done, or the connection is lost; which of the two the caller has to know. */
TEST(test_sockets_lose_a_part_or_everything) {
    ck_assert_int_eq(fault_set("socket-send", "drop-every:1"), 0);
    ck_assert_int_eq(fault_hit(FAULT_SOCKET_SEND), -EAGAIN);
    ck_assert_int_eq(fault_set("socket-send", "fail"), 0);
    ck_assert_int_eq(fault_hit(FAULT_SOCKET_SEND), -ECONNRESET);
    ck_assert_int_eq(fault_set("socket-receive", "drop-every:1"), 0);
    ck_assert_int_eq(fault_hit(FAULT_SOCKET_RECEIVE), -EAGAIN);
}

TEST(test_what_is_no_rule_is_refused_and_changes_nothing) {
    static const char *const wrong[] = {"", "fai", "failed", "fail:1", "off:1", "drop-every", "drop-every:", "drop-every:0",
                                        "rate:0", "rate:-1", "rate:x", "rate:1x", "rate: 1", "fail-after:4294967296",
                                        "delay-ms:60001", "Fail"};
    struct fault_rules rules = {};

    ck_assert_int_eq(fault_set("write", "fail"), 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(fault_set("write", wrong[i]) == -EINVAL, "'%s' was taken", wrong[i]);
    ck_assert_int_eq(fault_set("nowhere", "fail"), -EINVAL);
    ck_assert_int_eq(fault_set("seed", "0"), -EINVAL);
    ck_assert_int_lt(fault_hit(FAULT_WRITE), 0);
    ck_assert_int_eq(fault_rules_add(&rules, "nowhere", "fail"), -ENOENT);
    ck_assert_int_eq(fault_rules_add(&rules, "write", "nothing"), -EINVAL);
}

TEST(test_rules_come_from_the_environment) {
    struct fault_rules rules = {};
    const char *mistake;
    char text[32];

    ck_assert_int_eq(setenv("VMIBUS_FAULTS", "write=fail-after:7,seed=9,audit=rate:3", 1), 0);
    ck_assert_int_eq(fault_rules_add_environment(&rules, &mistake), 0);
    fault_apply(&rules);
    ck_assert_uint_eq(fault_seed(), 9);
    fault_describe(FAULT_WRITE, text, sizeof(text));
    ck_assert_str_eq(text, "fail-after:7");
    fault_describe(FAULT_AUDIT, text, sizeof(text));
    ck_assert_str_eq(text, "rate:3");
    fault_describe(FAULT_TIMER, text, sizeof(text));
    ck_assert_str_eq(text, "off");
    ck_assert_int_eq(setenv("VMIBUS_FAULTS", "write=fail,audit", 1), 0);
    ck_assert_int_eq(fault_rules_add_environment(&rules, &mistake), -EINVAL);
    ck_assert_str_eq(mistake, "audit");
}

#define THREADS 4
#define EACH 20000u

static void *ask(void *data) {
    *(unsigned *)data = count_failures(FAULT_ALLOCATION, EACH);
    return NULL;
}

TEST(test_threads_count_together) {
    pthread_t threads[THREADS];
    unsigned failures[THREADS], all = 0;

    ck_assert_int_eq(fault_set("allocation", "drop-every:5"), 0);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ask, &failures[i]), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        all += failures[i];
    }
    ck_assert_uint_eq(all, THREADS * EACH / 5);
    ck_assert_uint_eq(fault_count(FAULT_ALLOCATION).failed, all);
}

#endif

HARNESS_SUITE("fault", HARNESS_QUICK)
