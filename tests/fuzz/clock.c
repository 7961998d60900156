/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define TIMERS 8

static _Atomic uint64_t shown;  /* 0: it goes */
static struct {
    int fd;
    uint64_t deadline;  /* 0: nothing is due, or it has been told */
} timers[TIMERS];

static long set_timer(int fd, int flags, const struct itimerspec *when, struct itimerspec *before) {
    return syscall(SYS_timerfd_settime, fd, flags, when, before);
}

uint64_t fuzz_clock_now(void) {
    struct timespec now;

    if (shown)
        return shown;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* At once if it is due, else never: time passes by fuzz_clock_advance() only. */
static void arm(size_t i) {
    const struct itimerspec when = {.it_value = {.tv_nsec = timers[i].deadline && timers[i].deadline <= shown}};

    (void)set_timer(timers[i].fd, 0, &when, NULL);
}

void fuzz_clock_stop(void) {
    if (!shown)
        shown = fuzz_clock_now();
}

void fuzz_clock_advance(uint64_t ns) {
    shown += ns;
    for (size_t i = 0; i < TIMERS; i++)
        if (timers[i].deadline && timers[i].deadline <= shown) {
            arm(i);
            timers[i].deadline = 0;
        }
}

/* --- in the place of libc's ---------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    uint64_t ns = shown;

    if (clock != CLOCK_MONOTONIC || !ns)
        return (int)syscall(SYS_clock_gettime, clock, now);
    *now = (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
    return 0;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *when, struct itimerspec *before) {
    size_t i = 0;

    if (!shown || flags != TFD_TIMER_ABSTIME)
        return (int)set_timer(fd, flags, when, before);
    while (i < TIMERS && timers[i].fd != fd && timers[i].deadline)
        i++;
    if (i == TIMERS)
        return (int)set_timer(fd, flags, when, before);
    timers[i].fd = fd;
    timers[i].deadline = (uint64_t)when->it_value.tv_sec * NS_PER_S + (uint64_t)when->it_value.tv_nsec;
    arm(i);
    if (timers[i].deadline <= shown)
        timers[i].deadline = 0;
    return 0;
}
