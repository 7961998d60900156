/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The test harness; see harness.h.
 *
 * Each test gets a libcheck runner of its own, so that its line appears when it ends and its name is
 * known.  What a test's process has to tell beyond libcheck's protocol (that it was skipped) is
 * written to a page it shares with the harness.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_SKIPPED 77
#define EXIT_USAGE 2
#define FDS_MAX 4096

/* Exit status of a process in which a sanitizer found an error or a leak. */
#define SANITIZER_STATUS 23

/* What a test's process tells the harness. */
struct verdict {
    bool skipped;
    bool finished; /* ran to its end */
    char reason[1024];
};

struct counts {
    unsigned int passed;
    unsigned int failed;
    unsigned int skipped;
};

/*
 * What the sanitizers' run-time asks the program for; the environment's ASAN_OPTIONS and TSAN_OPTIONS
 * go on top.  No effect in other builds.
 */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *__asan_default_options(void) {
    return "exitcode=23:detect_stack_use_after_return=1:strict_string_checks=1";
}

const char *__tsan_default_options(void) {
    return "exitcode=23";
}

static struct harness_test *tests;
static struct harness_test **tests_end = &tests;

static struct verdict *verdict;      /* shared with the test's process */
static struct harness_test *current; /* the test that runs */
static int fds_before[FDS_MAX];
static size_t n_fds_before;

void harness_add(struct harness_test *test) {
    *tests_end = test;
    tests_end = &test->next;
}

bool harness_is_full(void) {
    const char *full = getenv("VMIBUS_TEST_FULL");

    return full && strcmp(full, "1") == 0;
}

bool harness_is_under_valgrind(void) {
    const char *preloaded = getenv("LD_PRELOAD");

    return preloaded && strstr(preloaded, "/vgpreload_");
}

unsigned int harness_scale(unsigned int limit) {
    const char *text = getenv("VMIBUS_TEST_TIMEOUT_FACTOR");
    unsigned long factor = text ? strtoul(text, NULL, 10) : 0;

#ifdef VMIBUS_SANITIZED
    if (factor == 0)
        factor = 4;
#endif
    if (factor == 0)
        factor = 1;
    return factor > 1000 ? limit * 1000 : limit * (unsigned int)factor;
}

void test_skip(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(verdict->reason, sizeof(verdict->reason), format, arguments);
    va_end(arguments);
    verdict->skipped = true;
    fflush(NULL);
    /* Not exit(): what a test had allocated when it was skipped is no leak. */
    _exit(EXIT_SUCCESS);
}

/* --- descriptors ------------------------------------------------------------------------------- */

/* Lists the open descriptors, without the one that it takes to list them. */
static size_t list_fds(int fds[FDS_MAX]) {
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    size_t n = 0;

    if (!directory)
        ck_abort_msg("cannot open /proc/self/fd: %s", strerror(errno));
    while ((entry = readdir(directory))) {
        int fd;

        if (entry->d_name[0] == '.')
            continue;
        fd = atoi(entry->d_name);
        if (fd != dirfd(directory) && n < FDS_MAX)
            fds[n++] = fd;
    }
    closedir(directory);
    return n;
}

static bool has_fd(const int *fds, size_t n, int fd) {
    for (size_t i = 0; i < n; i++)
        if (fds[i] == fd)
            return true;
    return false;
}

static void fail_on_leaked_fd(int fd) {
    char link[64], target[PATH_MAX];
    ssize_t length;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    length = readlink(link, target, sizeof(target) - 1);
    target[length < 0 ? 0 : length] = '\0';
    _ck_assert_failed(current->check.file, current->check.line, "Failed",
                      "leaked descriptor %d, which is %s", fd, target);
}

static void compare_fds(void) {
    int fds_after[FDS_MAX];
    size_t n_fds_after = list_fds(fds_after);

    for (size_t i = 0; i < n_fds_after; i++)
        if (!has_fd(fds_before, n_fds_before, fds_after[i]))
            fail_on_leaked_fd(fds_after[i]);
    for (size_t i = 0; i < n_fds_before; i++)
        if (!has_fd(fds_after, n_fds_after, fds_before[i]))
            _ck_assert_failed(current->check.file, current->check.line, "Failed",
                              "closed descriptor %d, which was not its own", fds_before[i]);
}

/* --- one test ---------------------------------------------------------------------------------- */

/* The checked fixture of every test: both run in the test's process. */
static void before_test(void) {
    if (current->signal != 0)
        setrlimit(RLIMIT_CORE, &(struct rlimit){0}); /* what is expected leaves no core file */
    if (!current->ignore_fds)
        n_fds_before = list_fds(fds_before);
    if (current->setup)
        current->setup();
}

static void after_test(void) {
    if (current->teardown)
        current->teardown();
    if (!current->ignore_fds)
        compare_fds();
    verdict->finished = true;
}

/* Says why a test failed, in our words where libcheck's mislead; NULL if it passed. */
static const char *explain_failure(TestResult *result) {
    static char message[128];
    bool failed = tr_rtype(result) != CK_PASS;

    if (failed && current->signal != 0 && verdict->finished) {
        snprintf(message, sizeof(message), "did not end with the expected signal %d (%s)",
                 current->signal, strsignal(current->signal));
        return message;
    }
    snprintf(message, sizeof(message), "Early exit with return value %d", SANITIZER_STATUS);
    if (failed && tr_msg(result) && strcmp(tr_msg(result), message) == 0)
        return "a sanitizer found an error or a leak: its report is above";
    if (failed)
        return tr_msg(result) ? tr_msg(result) : "no message";
    return current->signal == 0 && !verdict->finished ? "exited before its end" : NULL;
}

/* @a result is NULL if the test did not run. */
static void print_failure(const char *name, TestResult *result, const char *message) {
    bool has_place = result && tr_lfile(result) && tr_lno(result) > 0;

    printf("FAIL %s: %s:%d: %s\n", name, has_place ? tr_lfile(result) : current->check.file,
           has_place ? tr_lno(result) : current->check.line, message);
}

/* Runs one iteration of a test and prints its line. */
static void run_iteration(struct harness_test *test, const char *name, int iteration, struct counts *counts) {
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    SRunner *runner = srunner_create(suite);
    TestResult **results;
    const char *failure;

    current = test;
    memset(verdict, 0, sizeof(*verdict));
    tcase_set_timeout(tcase, harness_scale(test->timeout ? test->timeout : HARNESS_TIMEOUT));
    tcase_add_checked_fixture(tcase, before_test, after_test);
    _tcase_add_test(tcase, &test->check, test->signal, 0, iteration, iteration + 1);
    suite_add_tcase(suite, tcase);
    srunner_set_fork_status(runner, CK_FORK);
    fflush(NULL);
    srunner_run_all(runner, CK_SILENT);

    results = srunner_results(runner);
    failure = srunner_ntests_run(runner) == 1 ? explain_failure(results[0]) : "could not be run";
    /* First: to libcheck, a skipped test that should have ended with a signal has failed. */
    if (verdict->skipped) {
        printf("SKIP %s: %s\n", name, verdict->reason);
        counts->skipped++;
    } else if (failure) {
        print_failure(name, srunner_ntests_run(runner) == 1 ? results[0] : NULL, failure);
        counts->failed++;
    } else {
        printf("PASS %s\n", name);
        counts->passed++;
    }
    /* The array was allocated by libcheck, the results in it belong to the runner. */
    free(results);
    srunner_free(runner);
}

static void run_test(struct harness_test *test, enum harness_extent extent, struct counts *counts) {
    char name[256];

    if ((extent == HARNESS_FULL || test->full) && !harness_is_full()) {
        printf("SKIP %s: takes long, set VMIBUS_TEST_FULL=1 to run it\n", test->check.name);
        counts->skipped++;
        return;
    }
    if (test->iterations == 0) {
        run_iteration(test, test->check.name, 0, counts);
        return;
    }
    for (int i = 0; i < test->iterations; i++) {
        snprintf(name, sizeof(name), "%s[%d]", test->check.name, i);
        run_iteration(test, name, i, counts);
    }
}

/* --- the suite --------------------------------------------------------------------------------- */

/* Whether a test was asked for: its name contains or matches one of the words, or there are none. */
static bool is_selected(const struct harness_test *test, char **words) {
    if (!*words)
        return true;
    for (; *words; words++)
        if (strstr(test->check.name, *words) || fnmatch(*words, test->check.name, 0) == 0)
            return true;
    return false;
}

int harness_main(const char *suite, enum harness_extent extent, int argc, char **argv) {
    struct counts counts = {0};
    bool list = argc > 1 && strcmp(argv[1], "--list") == 0;
    char **words = argv + (argc > 0 ? 1 : 0) + (list ? 1 : 0);

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (*words && (*words)[0] == '-') {
        fprintf(stderr, "usage: %s [--list] [NAME-OR-PATTERN...]\n", argv[0]);
        return EXIT_USAGE;
    }
    verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (verdict == MAP_FAILED) {
        fprintf(stderr, "%s: cannot share a page with the tests: %s\n", suite, strerror(errno));
        return EXIT_FAILURE;
    }

    for (struct harness_test *test = tests; test; test = test->next) {
        if (!is_selected(test, words))
            continue;
        if (list)
            puts(test->check.name);
        else
            run_test(test, extent, &counts);
    }
    munmap(verdict, sizeof(*verdict));
    if (list)
        return EXIT_SUCCESS;

    if (counts.passed + counts.failed + counts.skipped == 0) {
        fprintf(stderr, "%s: no test selected; --list lists them\n", suite);
        return EXIT_USAGE;
    }
    printf("%u passed, %u failed, %u skipped\n", counts.passed, counts.failed, counts.skipped);
    if (counts.failed > 0)
        return EXIT_FAILURE;
    return counts.passed > 0 ? EXIT_SUCCESS : EXIT_SKIPPED;
}
