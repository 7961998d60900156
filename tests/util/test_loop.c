/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The event loop: what may happen in a callback, the order of timers, and that every wakeup is a descriptor. */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/fds.h"
#include "util/loop.h"

#define N 8

static struct loop *loop;
static int n_called;

static void open_loop(void) {
    ck_assert_int_eq(loop_new(&loop), 0);
    n_called = 0;
}

static void close_loop(void) {
    loop = loop_free(loop);
}

static bool is_readable(void) {
    struct pollfd poll_fd = {.fd = loop_get_fd(loop), .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

/* --- descriptors ------------------------------------------------------------------------------- */

struct watched {
    struct loop_source source;
    int fd;
    int n_called;
    struct watched *victims;
};

static void watched_open(struct watched *watched, loop_source_fn callback, uint64_t value) {
    *watched = (struct watched){};
    watched->fd = eventfd((unsigned)value, EFD_CLOEXEC | EFD_NONBLOCK);
    ck_assert_int_ge(watched->fd, 0);
    ck_assert_int_eq(loop_source_init(&watched->source, loop, watched->fd, EPOLLIN, callback), 0);
}

static void watched_close(struct watched *watched) {
    loop_source_deinit(&watched->source);
    watched->fd = fd_close(watched->fd);
}

static void drain(struct loop_source *source, uint32_t events) {
    struct watched *watched = container_of(source, struct watched, source);
    uint64_t value;

    ck_assert_uint_eq(events, EPOLLIN);
    ck_assert_int_eq(read(source->fd, &value, sizeof(value)), sizeof(value));
    watched->n_called++;
    n_called++;
}

TEST(test_source_is_called_while_ready, .setup = open_loop, .teardown = close_loop) {
    struct watched watched;

    watched_open(&watched, drain, 1);
    ck_assert(is_readable());
    ck_assert_int_eq(loop_dispatch(loop, 0), 1);
    ck_assert_int_eq(watched.n_called, 1);
    ck_assert(!is_readable());
    ck_assert_int_eq(loop_dispatch(loop, 0), 0);
    ck_assert_int_eq(loop_source_modify(&watched.source, 0), 0);
    ck_assert_int_eq(eventfd_write(watched.fd, 1), 0);
    ck_assert_int_eq(loop_dispatch(loop, 0), 0);
    ck_assert_int_eq(loop_source_modify(&watched.source, EPOLLIN), 0);
    ck_assert_int_eq(loop_dispatch(loop, 0), 1);
    watched_close(&watched);
    loop_source_deinit(&watched.source);
}

TEST(test_source_that_cannot_be_polled_is_refused, .setup = open_loop, .teardown = close_loop) {
    struct loop_source source;
    FILE *file = tmpfile();

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(loop_source_init(&source, loop, fileno(file), EPOLLIN, drain), -EPERM);
    loop_source_deinit(&source);
    fclose(file);
}

/* Whoever is called first closes all others, which were ready in the same batch. */
static void close_others(struct loop_source *source, uint32_t events) {
    struct watched *self = container_of(source, struct watched, source);

    (void)events;
    n_called++;
    for (int i = 0; i < N; i++)
        watched_close(&self->victims[i]);
}

TEST(test_sources_removed_in_a_callback_are_not_called, .setup = open_loop, .teardown = close_loop) {
    struct watched *watched = calloc(N, sizeof(*watched));

    for (int i = 0; i < N; i++) {
        watched_open(&watched[i], close_others, 1);
        watched[i].victims = watched;
    }
    ck_assert_int_eq(loop_dispatch(loop, 0), 1);
    ck_assert_int_eq(n_called, 1);
    ck_assert_int_eq(loop_dispatch(loop, 0), 0);
    free(watched);
}

/* The storage of a removed source is used for another at once: what was ready is not told to it. */
static void replace_others(struct loop_source *source, uint32_t events) {
    struct watched *self = container_of(source, struct watched, source);
    struct watched *all = self->victims;

    (void)events;
    n_called++;
    for (int i = 0; i < N; i++) {
        watched_close(&all[i]);
        watched_open(&all[i], drain, 0);
    }
}

TEST(test_source_in_reused_storage_hears_nothing_of_the_last, .setup = open_loop, .teardown = close_loop) {
    struct watched watched[N];

    for (int i = 0; i < N; i++) {
        watched_open(&watched[i], replace_others, 1);
        watched[i].victims = watched;
    }
    ck_assert_int_eq(loop_dispatch(loop, 0), 1);
    ck_assert_int_eq(loop_dispatch(loop, 0), 0);
    ck_assert_int_eq(n_called, 1);
    for (int i = 0; i < N; i++)
        watched_close(&watched[i]);
}

TEST(test_more_sources_than_a_batch_holds, .setup = open_loop, .teardown = close_loop) {
    struct watched *watched = calloc(200, sizeof(*watched));

    for (int i = 0; i < 200; i++)
        watched_open(&watched[i], drain, 1);
    while (loop_dispatch(loop, 0) > 0)
        ;
    ck_assert_int_eq(n_called, 200);
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(watched[i].n_called, 1);
        watched_close(&watched[i]);
    }
    free(watched);
}

TEST(test_loop_with_a_source_is_not_freed, .signal = SIGABRT, .ignore_fds = true /* it dies half-way */) {
    struct watched watched;

    open_loop();
    watched_open(&watched, drain, 0);
    loop_free(loop);
}

/* --- timers ------------------------------------------------------------------------------------ */

struct alarm_clock {
    struct loop_timer timer;
    int name;
    struct alarm_clock *other;
    int n_fired;
};

static int fired[1000];

static void note(struct loop_timer *timer) {
    struct alarm_clock *alarm_clock = container_of(timer, struct alarm_clock, timer);

    ck_assert(!loop_timer_is_armed(timer));
    ck_assert_uint_le(timer->deadline, clock_now());
    alarm_clock->n_fired++;
    fired[n_called++] = alarm_clock->name;
}

/* Dispatches until so many callbacks have noted themselves. */
static void wait_for(int n) {
    while (n_called < n)
        ck_assert_int_ge(loop_dispatch(loop, -1), 0);
}

TEST(test_timers_fire_in_order, .setup = open_loop, .teardown = close_loop) {
    struct alarm_clock clocks[100] = {};
    uint64_t now = clock_now();

    srand(1);
    for (int i = 0; i < 100; i++) {
        loop_timer_init(&clocks[i].timer, loop, note);
        clocks[i].name = rand() % 50;
        ck_assert_int_eq(loop_timer_set(&clocks[i].timer, now + 1000 * (uint64_t)clocks[i].name), 0);
    }
    wait_for(100);
    for (int i = 1; i < 100; i++)
        ck_assert_int_le(fired[i - 1], fired[i]);
    ck_assert_int_eq(loop_dispatch(loop, 0), 0);
}

TEST(test_timers_for_the_same_time_fire_in_order_of_setting, .setup = open_loop, .teardown = close_loop) {
    struct alarm_clock clocks[50] = {};
    uint64_t when = clock_now() + NS_PER_MS;

    for (int i = 0; i < 50; i++) {
        loop_timer_init(&clocks[i].timer, loop, note);
        clocks[i].name = i;
        ck_assert_int_eq(loop_timer_set(&clocks[i].timer, when), 0);
    }
    /* Setting one again puts it behind the others. */
    clocks[7].name = 50;
    ck_assert_int_eq(loop_timer_set(&clocks[7].timer, when), 0);
    wait_for(50);
    for (int i = 1; i < 50; i++)
        ck_assert_int_lt(fired[i - 1], fired[i]);
}

/* A random walk of setting, moving and cancelling, against the plain list of what is armed. */
TEST(test_timers_against_a_model, .setup = open_loop, .teardown = close_loop) {
    struct alarm_clock clocks[200] = {};
    uint64_t now = clock_now();
    unsigned seed = (unsigned)now;
    int n_armed = 0;

    printf("seed %u\n", seed);
    srand(seed);
    for (int i = 0; i < 200; i++) {
        loop_timer_init(&clocks[i].timer, loop, note);
        clocks[i].name = i;
    }
    for (int i = 0; i < 5000; i++) {
        struct alarm_clock *chosen = &clocks[rand() % 200];

        if (rand() % 3)
            ck_assert_int_eq(loop_timer_set(&chosen->timer, now + (uint64_t)(rand() % 1000)), 0);
        else
            loop_timer_cancel(&chosen->timer);
    }
    for (int i = 0; i < 200; i++)
        n_armed += loop_timer_is_armed(&clocks[i].timer);
    wait_for(n_armed);
    for (int i = 1; i < n_armed; i++)
        ck_assert_uint_le(clocks[fired[i - 1]].timer.deadline, clocks[fired[i]].timer.deadline);
    ck_assert_int_eq(loop_dispatch(loop, 0), 0);
    ck_assert_int_eq(n_called, n_armed);
}

static void cancel_other(struct loop_timer *timer) {
    struct alarm_clock *alarm_clock = container_of(timer, struct alarm_clock, timer);

    n_called++;
    loop_timer_cancel(&alarm_clock->other->timer);
}

TEST(test_timer_cancelled_by_another_does_not_fire, .setup = open_loop, .teardown = close_loop) {
    struct alarm_clock clocks[2] = {};

    for (int i = 0; i < 2; i++) {
        loop_timer_init(&clocks[i].timer, loop, cancel_other);
        clocks[i].other = &clocks[1 - i];
        ck_assert_int_eq(loop_timer_set(&clocks[i].timer, 1), 0);
    }
    ck_assert_int_eq(loop_dispatch(loop, 0), 1);
    ck_assert_int_eq(n_called, 1);
    ck_assert_int_eq(loop_dispatch(loop, 0), 0);
}

static void set_again(struct loop_timer *timer) {
    if (++n_called < 5)
        ck_assert_int_eq(loop_timer_set(timer, clock_now() + 1000), 0);
}

TEST(test_timer_sets_itself_again, .setup = open_loop, .teardown = close_loop) {
    struct loop_timer timer;

    loop_timer_init(&timer, loop, set_again);
    ck_assert_int_eq(loop_timer_set(&timer, 0), 0);
    ck_assert(is_readable());
    wait_for(5);
    ck_assert(!loop_timer_is_armed(&timer));
}

static void set_for_the_past(struct loop_timer *timer) {
    n_called++;
    ck_assert_int_eq(loop_timer_set(timer, 1), 0);
}

TEST(test_timer_that_is_always_due_lets_others_run, .setup = open_loop, .teardown = close_loop) {
    struct watched watched;
    struct loop_timer timer;

    watched_open(&watched, drain, 1);
    loop_timer_init(&timer, loop, set_for_the_past);
    ck_assert_int_eq(loop_timer_set(&timer, 1), 0);
    loop_dispatch(loop, 0);
    ck_assert_int_eq(n_called, 2);
    ck_assert_int_eq(watched.n_called, 1);
    ck_assert(is_readable());
    loop_dispatch(loop, 0);
    ck_assert_int_eq(n_called, 3);
    loop_timer_cancel(&timer);
    watched_close(&watched);
}

TEST(test_timer_moved_earlier_from_outside_is_visible, .setup = open_loop, .teardown = close_loop) {
    struct loop_timer timer;

    loop_timer_init(&timer, loop, set_again);
    n_called = 4;
    ck_assert_int_eq(loop_timer_set(&timer, clock_now() + 3600 * NS_PER_S), 0);
    ck_assert(!is_readable());
    ck_assert_int_eq(loop_timer_set(&timer, clock_now()), 0);
    ck_assert(is_readable());
    wait_for(5);
}

/* A cancelled timer costs one idle wakeup at most, and nothing after it. */
TEST(test_cancelled_timer_leaves_quiet, .setup = open_loop, .teardown = close_loop) {
    struct loop_timer timer;

    loop_timer_init(&timer, loop, set_again);
    ck_assert_int_eq(loop_timer_set(&timer, 1), 0);
    loop_timer_cancel(&timer);
    loop_dispatch(loop, 0);
    ck_assert_int_eq(n_called, 0);
    ck_assert(!is_readable());
}

/* --- deferred work ----------------------------------------------------------------------------- */

static struct loop_deferred deferreds[3];

static void count(struct loop_deferred *deferred) {
    (void)deferred;
    n_called++;
}

static void defer_again(struct loop_deferred *deferred) {
    if (++n_called < 3)
        loop_defer(deferred);
}

static void cancel_all(struct loop_deferred *deferred) {
    (void)deferred;
    n_called++;
    for (int i = 0; i < 3; i++)
        loop_deferred_cancel(&deferreds[i]);
}

TEST(test_deferred_from_outside_is_visible_on_the_descriptor, .setup = open_loop, .teardown = close_loop) {
    struct loop_deferred deferred;

    loop_deferred_init(&deferred, loop, count);
    loop_defer(&deferred);
    loop_defer(&deferred);
    ck_assert(is_readable());
    loop_dispatch(loop, 0);
    ck_assert_int_eq(n_called, 1);
    ck_assert(!is_readable());
    loop_defer(&deferred);
    ck_assert(is_readable());
    loop_dispatch(loop, 0);
    ck_assert_int_eq(n_called, 2);
}

/* Whoever embeds the loop polls its descriptor: work deferred by deferred work must wake it too. */
TEST(test_deferred_again_is_visible_on_the_descriptor, .setup = open_loop, .teardown = close_loop) {
    struct loop_deferred deferred;

    loop_deferred_init(&deferred, loop, defer_again);
    loop_defer(&deferred);
    for (int i = 1; i <= 3; i++) {
        ck_assert(is_readable());
        loop_dispatch(loop, 0);
        ck_assert_int_eq(n_called, i);
    }
    ck_assert(!is_readable());
}

TEST(test_deferred_cancelled_by_another_does_not_run, .setup = open_loop, .teardown = close_loop) {
    for (int i = 0; i < 3; i++) {
        loop_deferred_init(&deferreds[i], loop, cancel_all);
        loop_defer(&deferreds[i]);
    }
    loop_dispatch(loop, 0);
    ck_assert_int_eq(n_called, 1);
}

static void stop(struct loop_deferred *deferred) {
    n_called++;
    loop_stop(deferred->loop, 42);
}

TEST(test_run_ends_with_what_stop_was_given, .setup = open_loop, .teardown = close_loop) {
    struct loop_deferred deferred;

    loop_deferred_init(&deferred, loop, stop);
    loop_defer(&deferred);
    ck_assert_int_eq(loop_run(loop), 42);
    ck_assert_int_eq(n_called, 1);
}

/* --- idleness ---------------------------------------------------------------------------------- */

/* The system call that a process is blocked in, and its fourth argument; -1: it is running. */
static long blocked_in(pid_t pid, unsigned long *fourth) {
    char path[64], line[256] = "";
    FILE *file;
    long number = -1;

    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
    file = fopen(path, "re");
    if (!file || !fgets(line, sizeof(line), file)) {
        if (file)
            fclose(file);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        test_skip("%s cannot be read: %s", path, strerror(errno));
    }
    fclose(file);
    if (sscanf(line, "%ld %*s %*s %*s %lx", &number, fourth) != 2)
        return -1;
    return number;
}

/* Whether a process has an armed timerfd. */
static bool has_armed_timer(pid_t pid) {
    bool found = false, armed = false;

    for (int fd = 3; fd < 32; fd++) {
        char path[64], line[256];
        unsigned long seconds, nanoseconds;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
            if (sscanf(line, "it_value: (%lu, %lu)", &seconds, &nanoseconds) == 2) {
                found = true;
                armed |= seconds || nanoseconds;
            }
        if (file)
            fclose(file);
    }
    ck_assert(found);
    return armed;
}

/*
 * No system call at all: after some work, a loop is blocked in epoll_wait without a timeout, none of its
 * descriptors is ready (or it would not be blocked), and its timerfd is not armed.
 */
TEST(test_p02_idle_makes_no_system_call) {
    pid_t pid = fork();
    unsigned long timeout = 0;
    long number;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct loop_deferred deferred;
        struct loop_timer timer;

        if (loop_new(&loop) < 0)
            _exit(1);
        loop_timer_init(&timer, loop, set_again);
        loop_deferred_init(&deferred, loop, count);
        (void)loop_timer_set(&timer, 1);
        loop_defer(&deferred);
        while (n_called < 5)
            loop_dispatch(loop, -1);
        (void)loop_timer_set(&timer, clock_now() + 1000);
        loop_timer_cancel(&timer);
        loop_run(loop);
        _exit(1);
    }
    /* It is there when its timer has been cancelled and the one idle wakeup of that is over. */
    do {
        ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
        number = blocked_in(pid, &timeout);
#ifdef SYS_epoll_wait
        if (number == SYS_epoll_wait)
            number = SYS_epoll_pwait;
#endif
    } while (number != SYS_epoll_pwait || (int)timeout != -1 || has_armed_timer(pid));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

HARNESS_SUITE("loop", HARNESS_QUICK)
