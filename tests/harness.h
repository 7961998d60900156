/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The test harness: a thin layer over libcheck, whose ck_assert_…() family tests use.
 *
 * A suite is one program:
 *
 *     #include "harness.h"
 *
 *     TEST(test_p05_stale_token_is_refused) {
 *         ck_assert_int_eq(...);
 *     }
 *
 *     TEST(test_deinit_asserts, .signal = SIGABRT) {
 *         ...
 *     }
 *
 *     HARNESS_SUITE("lease", HARNESS_QUICK)
 *
 * Each test runs in a process of its own, in the order of definition, and fails if it asserts, crashes,
 * runs too long, leaks memory (in a build with --enable-sanitizers), or ends with other descriptors
 * open than it began with.  What it started and left running is killed.  One line per test goes to
 * standard output:
 *
 *     PASS test_name
 *     FAIL test_name: file.c:17: what was expected
 *     SKIP test_name: why it could not run
 *
 * and a closing one: `N passed, N failed, N skipped`.  The program exits with 0 if none failed, 77 if
 * all were skipped, 1 if one failed, 2 if it was called wrongly.
 *
 * People may name tests: `test_lease p05 'test_queue_*'` runs those that contain or match a word;
 * `--list` lists them.
 *
 * Environment:
 *     VMIBUS_TEST_FULL=1            run full suites and tests too
 *     VMIBUS_TEST_TIMEOUT_FACTOR=N  multiply every time limit; 4 by default in a sanitizer build, else 1
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include <check.h>
#include <signal.h>
#include <stdbool.h>

/** When a suite runs. */
enum harness_extent {
    HARNESS_QUICK, /**< always */
    HARNESS_FULL,  /**< only with VMIBUS_TEST_FULL=1, else it is skipped visibly */
};

/** A test and how it is run; everything from `timeout` on is optional in TEST(). */
struct harness_test {
    TTest check;            /**< libcheck's view: name, function, place */
    struct harness_test *next;
    unsigned int timeout;   /**< seconds; 0: HARNESS_TIMEOUT */
    int signal;             /**< the signal that the test is expected to end with; 0: none */
    int iterations;         /**< run so many times, with _i rising from 0; 0: once */
    bool full;              /**< runs only with VMIBUS_TEST_FULL=1 */
    bool ignore_fds;        /**< do not compare descriptors; say why in a comment */
    void (*setup)(void);    /**< called in the test's process before it */
    void (*teardown)(void); /**< called in the test's process after it, unless it failed or was skipped */
};

/** The time limit of a test in seconds, unless it says otherwise. */
#define HARNESS_TIMEOUT 30

/**
 * Defines a test: its body follows.  Members of struct harness_test may follow the name, e.g.
 * `TEST(test_boot, .timeout = 120)`.  The body sees `_i`, the number of the iteration.
 */
#define TEST(function, ...)                                                                        \
    static void function(int _i);                                                                  \
    static struct harness_test function##_test = {                                                 \
        .check = {#function, function, __FILE__, __LINE__}, ##__VA_ARGS__};                        \
    __attribute__((constructor)) static void function##_add(void) {                                \
        harness_add(&function##_test);                                                             \
    }                                                                                              \
    static void function(int _i __attribute__((unused)))

/** Ends a suite: its name for people, and when it runs. Defines main(). */
#define HARNESS_SUITE(name, extent)                                                                \
    int main(int argc, char **argv) {                                                              \
        return harness_main(name, extent, argc, argv);                                             \
    }

/** Adds a test to the program's suite. TEST() calls it. */
void harness_add(struct harness_test *test);

/** Runs the suite. HARNESS_SUITE() calls it. Returns the exit status. */
int harness_main(const char *suite, enum harness_extent extent, int argc, char **argv);

/**
 * Ends the running test as skipped: it cannot run here, and the reason says what is missing. Only in a
 * test's own process and its first thread; nothing after it is executed, no teardown either.
 */
void test_skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/** Whether VMIBUS_TEST_FULL=1, for tests that do more then. */
bool harness_is_full(void);

/** Whether valgrind executes the test: then calls that it does not know are missing, and the stack is one of its own. */
bool harness_is_under_valgrind(void);

/** A time limit in seconds or any other allowance, multiplied as the test's own limit is. */
unsigned int harness_scale(unsigned int limit);

#endif
