/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tests of every outcome, for tests/test_harness.py to look at: what passes, what fails in each way
 * that the harness knows, and what is skipped.  No test of the product.
 */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

TEST(test_pass) {
    ck_assert_int_eq(1, 1);
}

TEST(test_pass_with_expected_signal, .signal = SIGABRT) {
    abort();
}

TEST(test_pass_iterated, .iterations = 2) {
    ck_assert_int_lt(_i, 2);
}

TEST(test_pass_when_full, .full = true) {
    ck_assert(harness_is_full());
}

TEST(test_fail_assertion) {
    ck_assert_int_eq(1, 2);
}

TEST(test_fail_leaked_fd) {
    ck_assert_int_ge(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
}

TEST(test_fail_closed_fd) {
    close(STDIN_FILENO);
}

TEST(test_pass_ignored_fd, .ignore_fds = true) {
    ck_assert_int_ge(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
}

TEST(test_fail_leaked_memory) {
#ifdef VMIBUS_ADDRESS_SANITIZED
    static char *volatile memory;

    memory = malloc(17);
    ck_assert_ptr_nonnull(memory);
    memory = NULL;
#else
    test_skip("%s", "not a sanitizer build");
#endif
}

TEST(test_fail_crash) {
    raise(SIGBUS);
}

TEST(test_fail_exit) {
    _exit(3);
}

TEST(test_fail_exit_with_success) {
    exit(EXIT_SUCCESS);
}

TEST(test_fail_timeout, .timeout = 1) {
    for (;;)
        pause();
}

TEST(test_fail_missing_signal, .signal = SIGABRT) {
}

TEST(test_skip_with_reason) {
    test_skip("no %s here", "unicorn");
}

TEST(test_skip_with_signal_and_fd, .signal = SIGABRT) {
    ck_assert_int_ge(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
    test_skip("too early");
}

static void open_fixture(void);
static void close_fixture(void);
static int fixture = -1;

TEST(test_pass_with_fixture, .setup = open_fixture, .teardown = close_fixture) {
    ck_assert_int_ge(fixture, 0);
}

TEST(test_fail_leaky_fixture, .setup = open_fixture) {
    ck_assert_int_ge(fixture, 0);
}

static void open_fixture(void) {
    fixture = open("/dev/zero", O_RDONLY | O_CLOEXEC);
}

static void close_fixture(void) {
    close(fixture);
}

HARNESS_SUITE("specimen", HARNESS_QUICK)
