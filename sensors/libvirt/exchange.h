/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the sensor's threads and the loop hand to each other: calls that have been made, and notices of
 * libvirt's.  A descriptor is readable while there is something to take.
 *
 * Rules: one lock for all that threads share; nothing of libvirt's is called under it.  Threads hold a
 * reference of their own: one that hangs in a call when the sensor ends finds the exchange closed when it
 * comes back, and all that it brings is freed.
 */
#ifndef SENSORS_LIBVIRT_EXCHANGE_H
#define SENSORS_LIBVIRT_EXCHANGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

/** Notices that may wait for the loop. Beyond it they are dropped, and everything is looked at anew. */
#define EXCHANGE_NOTICES_BOUND 4096

struct call;
struct caller;

/** What libvirt told of by itself. */
enum notice_kind {
    NOTICE_LIFECYCLE,   /**< event and detail as virConnectDomainEventLifecycleCallback has them */
    NOTICE_REBOOT,
    NOTICE_WAKEUP,
    NOTICE_DEVICES,     /**< devices or memory came or went */
    NOTICE_COPYING,     /**< memory is being copied */
    NOTICE_COPIED,      /**< ... no more */
    NOTICE_LOST,        /**< the connection of events is over; names no domain */
};

/** A notice. */
struct notice {
    STAILQ_ENTRY(notice) link;
    enum notice_kind kind;
    uint8_t uuid[16];
    int event;
    int detail;
    uint64_t connection; /**< number of the connection that told it */
    char name[256];
};

STAILQ_HEAD(notices, notice);
STAILQ_HEAD(calls, call);

struct exchange {
    pthread_mutex_t lock;
    size_t references;
    size_t threads;              /**< of callers, that have not ended */
    pthread_cond_t thread_ended; /**< on CLOCK_MONOTONIC */
    int event_fd;
    bool closed;             /* the loop takes nothing any more */
    struct calls finished;
    struct notices notices;
    size_t n_notices;
    bool overflown;
};

/** Makes an exchange with one reference, the loop's. 0 or a negative errno. */
int exchange_new(struct exchange **exchangep);

/** Another reference. Any thread; not under the lock. */
struct exchange *exchange_ref(struct exchange *exchange);

/** Gives a reference back. Takes NULL, returns NULL. */
struct exchange *exchange_unref(struct exchange *exchange);

/** The loop takes nothing any more: what is there is freed, and so is what comes. */
void exchange_close(struct exchange *exchange);

/** Hands over a notice, which is copied. Any thread. */
void exchange_tell(struct exchange *exchange, const struct notice *notice);

/** Hands over a call that was made. Under the lock. False: closed, the call stays the caller's. */
bool exchange_finish(struct exchange *exchange, struct call *call);

/** Takes all notices, on the loop. Returns whether some were dropped. */
bool exchange_take_notices(struct exchange *exchange, struct notices *notices);

/** Takes one call that was made, on the loop; NULL: there is none. Its caller has not left. */
struct call *exchange_take_call(struct exchange *exchange);

#endif
