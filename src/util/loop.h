/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event loop: descriptors, timers and deferred work on one epoll set.
 *
 * Every wakeup is a descriptor: timers share one timerfd, work deferred from outside a dispatch raises
 * one eventfd, so the loop itself can be polled by whoever embeds it.  An idle loop makes no system
 * call.  One iteration costs one epoll_wait and what the callbacks do.
 *
 * One thread owns a loop and everything registered with it.  Sources, timers and deferred work are
 * embedded in their owners and may be removed in any callback, also in their own; nothing is called
 * after its removal.
 */
#ifndef UTIL_LOOP_H
#define UTIL_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "util/list.h"

struct loop;
struct loop_source;
struct loop_timer;
struct loop_deferred;

typedef void (*loop_source_fn)(struct loop_source *source, uint32_t events);
typedef void (*loop_timer_fn)(struct loop_timer *timer);
typedef void (*loop_deferred_fn)(struct loop_deferred *deferred);

/** A descriptor being watched, level-triggered. The descriptor is borrowed. */
struct loop_source {
    struct loop *loop; /**< NULL while not registered */
    loop_source_fn callback;
    int fd;
    uint32_t events;
};

/** A one-shot timer. Timers for the same time fire in the order in which they were set. */
struct loop_timer {
    struct loop *loop;
    loop_timer_fn callback;
    uint64_t deadline; /**< CLOCK_MONOTONIC nanoseconds */
    uint64_t order;    /**< of setting: timers for the same time fire in it */
    uint32_t position; /**< in the heap, counted from 1; 0 while not armed */
};

/** Work to do at the end of the current iteration, or at the next one. */
struct loop_deferred {
    struct loop *loop;
    loop_deferred_fn callback;
    struct list link;
};

/** Makes a loop. 0 or a negative errno. */
int loop_new(struct loop **loopp);

/** Frees a loop; nothing may be registered any more. Takes and returns NULL. */
struct loop *loop_free(struct loop *loop);

/** A descriptor that is readable while loop_dispatch() has something to do. */
int loop_get_fd(const struct loop *loop);

/**
 * One iteration: waits, calls what is ready, then what is deferred.
 * @param timeout_ms as epoll_wait(2)
 * @return how many callbacks ran, or a negative errno
 */
int loop_dispatch(struct loop *loop, int timeout_ms);

/** Dispatches until loop_stop(). Returns what loop_stop() was given, or a negative errno. */
int loop_run(struct loop *loop);

/** The number of the current iteration, or of the last one. */
uint64_t loop_round(const struct loop *loop);

/** Ends loop_run() after the current iteration. */
void loop_stop(struct loop *loop, int result);

/** Watches a descriptor. 0 or a negative errno (-EPERM: the file cannot be polled). */
int loop_source_init(struct loop_source *source, struct loop *loop, int fd, uint32_t events, loop_source_fn callback);

/** Changes what is waited for; costs a system call only if it differs. */
int loop_source_modify(struct loop_source *source, uint32_t events);

/** Stops watching. Harmless if not registered. Before the descriptor is closed. */
void loop_source_deinit(struct loop_source *source);

/** Prepares a timer, not armed. */
void loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_timer_fn callback);

/** Arms a timer for a CLOCK_MONOTONIC time in nanoseconds, or moves it. 0 or -ENOMEM. */
int loop_timer_set(struct loop_timer *timer, uint64_t deadline);

/** Disarms a timer. Harmless if not armed. */
void loop_timer_cancel(struct loop_timer *timer);

static inline bool loop_timer_is_armed(const struct loop_timer *timer) {
    return timer->position != 0;
}

/** Prepares deferred work, not scheduled. */
void loop_deferred_init(struct loop_deferred *deferred, struct loop *loop, loop_deferred_fn callback);

/** Schedules it, once, however often it is called before it runs. */
void loop_defer(struct loop_deferred *deferred);

/** Takes it back. Harmless if not scheduled. */
void loop_deferred_cancel(struct loop_deferred *deferred);

#endif
