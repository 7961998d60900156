/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "caller.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libvirt/virterror.h>

/* libvirt's client needs little of it; each busy domain has one. */
#define STACK_SIZE ((size_t)512 << 10)

struct caller {
    struct exchange *exchange; /* a reference; its lock guards what follows */
    char *uri;
    const struct caller_hooks *hooks;
    void *userdata;
    pthread_cond_t changed; /* on CLOCK_MONOTONIC */
    struct calls queue;
    struct call *current;
    bool running; /* there is a thread, which holds a reference too */
    bool staying;
    bool leaving;
    unsigned int references; /* the owner's and the thread's */
};

void call_free(struct call *call) {
    call->discard(call);
}

void call_note_error(struct call *call) {
    const char *message = virGetLastErrorMessage();

    snprintf(call->message, sizeof(call->message), "%s", message ? message : "unknown error");
}

/* --- ending ------------------------------------------------------------------------------------ */

/* Gives a reference back; under the lock, which is released. */
static void unref_and_unlock(struct caller *caller) {
    struct exchange *exchange = caller->exchange;
    bool last = --caller->references == 0;

    pthread_mutex_unlock(&exchange->lock);
    if (!last)
        return;
    if (caller->hooks)
        caller->hooks->free(caller->userdata);
    pthread_cond_destroy(&caller->changed);
    free(caller->uri);
    free(caller);
    exchange_unref(exchange);
}

/* --- the thread -------------------------------------------------------------------------------- */

static struct timespec from_now(int64_t ms) {
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += ms % 1000 * 1000000;
    at.tv_sec += ms / 1000 + at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;

    return at;
}

/* The next call, or NULL when the thread may end. Under the lock. */
static struct call *next_call(struct caller *caller) {
    const struct timespec until = from_now(CALLER_IDLE_S * 1000);
    struct call *call;
    int r = 0;

    while (STAILQ_EMPTY(&caller->queue) && !caller->leaving && r != ETIMEDOUT)
        r = caller->staying ? pthread_cond_wait(&caller->changed, &caller->exchange->lock)
                            : pthread_cond_timedwait(&caller->changed, &caller->exchange->lock, &until);
    call = caller->leaving ? NULL : STAILQ_FIRST(&caller->queue);
    if (call)
        STAILQ_REMOVE_HEAD(&caller->queue, link);
    else
        caller->running = false; /* a call that comes from here on gets another thread */
    caller->current = call;

    return call;
}

static virConnectPtr disconnect(const struct caller *caller, virConnectPtr connection) {
    if (connection && caller->hooks)
        caller->hooks->disconnecting(connection, caller->userdata);
    if (connection)
        virConnectClose(connection);

    return NULL;
}

/* A connection that is alive, or NULL. */
static virConnectPtr connect_again(const struct caller *caller, virConnectPtr connection) {
    if (connection && virConnectIsAlive(connection) == 1)
        return connection;
    disconnect(caller, connection);
    connection = virConnectOpen(caller->uri);
    if (!connection)
        return NULL;
    if (virConnectSetKeepAlive(connection, CALLER_KEEPALIVE_S, CALLER_KEEPALIVE_COUNT) < 0 ||
        (caller->hooks && caller->hooks->connected(connection, caller->userdata) < 0))
        return disconnect(caller, connection);

    return connection;
}

static void *thread(void *data) {
    struct caller *caller = data;
    struct exchange *exchange = caller->exchange;
    virConnectPtr connection = NULL;
    struct call *call;

    pthread_mutex_lock(&exchange->lock);
    while ((call = next_call(caller))) {
        pthread_mutex_unlock(&exchange->lock);
        connection = connect_again(caller, connection);
        if (connection) {
            call->run(call, connection);
        } else {
            call->outcome = CALL_NO_CONNECTION;
            call_note_error(call);
        }
        pthread_mutex_lock(&exchange->lock);
        caller->current = NULL;
        if (caller->leaving || !exchange_finish(exchange, call)) {
            pthread_mutex_unlock(&exchange->lock);
            call_free(call);
            pthread_mutex_lock(&exchange->lock);
        }
        pthread_cond_broadcast(&caller->changed);
    }
    if (connection) {
        pthread_mutex_unlock(&exchange->lock);
        disconnect(caller, connection);
        pthread_mutex_lock(&exchange->lock);
    }
    exchange->threads--;
    pthread_cond_broadcast(&exchange->thread_ended);
    unref_and_unlock(caller);

    return NULL;
}

/* Signals are for the threads of whoever owns the process. Under the lock. */
static int start_thread(struct caller *caller) {
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t started;
    int r;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&started, &attributes, thread, caller);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (r == 0) {
        caller->references++;
        caller->exchange->threads++;
    }

    return -r;
}

/* --- the loop's side --------------------------------------------------------------------------- */

void caller_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

int caller_new(struct caller **callerp, struct exchange *exchange, const char *uri, const struct caller_hooks *hooks,
               void *userdata) {
    struct caller *caller = calloc(1, sizeof(*caller));

    if (caller)
        caller->uri = strdup(uri);
    if (!caller || !caller->uri) {
        free(caller);
        if (hooks)
            hooks->free(userdata);
        return -ENOMEM;
    }
    caller->exchange = exchange_ref(exchange);
    caller->hooks = hooks;
    caller->userdata = userdata;
    caller->references = 1;
    caller_condition_init(&caller->changed);
    STAILQ_INIT(&caller->queue);
    *callerp = caller;

    return 0;
}

void caller_stay(struct caller *caller) {
    pthread_mutex_lock(&caller->exchange->lock);
    caller->staying = true;
    pthread_mutex_unlock(&caller->exchange->lock);
}

int caller_make(struct caller *caller, struct call *call) {
    struct exchange *exchange = caller->exchange;
    int r = 0;

    call->caller = caller;
    pthread_mutex_lock(&exchange->lock);
    if (!caller->running)
        r = start_thread(caller);
    if (r >= 0) {
        caller->running = true;
        STAILQ_INSERT_TAIL(&caller->queue, call, link);
        pthread_cond_broadcast(&caller->changed);
    }
    pthread_mutex_unlock(&exchange->lock);

    return r;
}

struct caller *caller_leave(struct caller *caller) {
    struct exchange *exchange;
    struct calls dropped;
    struct call *call, *next;

    if (!caller)
        return NULL;
    exchange = caller->exchange;
    STAILQ_INIT(&dropped);
    pthread_mutex_lock(&exchange->lock);
    caller->leaving = true;
    STAILQ_CONCAT(&dropped, &caller->queue);
    /* Those that were made, and not seen by the loop yet. */
    for (call = STAILQ_FIRST(&exchange->finished); call; call = next) {
        next = STAILQ_NEXT(call, link);
        if (call->caller != caller)
            continue;
        STAILQ_REMOVE(&exchange->finished, call, call, link);
        STAILQ_INSERT_TAIL(&dropped, call, link);
    }
    pthread_cond_broadcast(&caller->changed);
    unref_and_unlock(caller);
    while ((call = STAILQ_FIRST(&dropped))) {
        STAILQ_REMOVE_HEAD(&dropped, link);
        call_free(call);
    }

    return NULL;
}

bool caller_wait(struct caller *caller, int timeout_ms) {
    const struct timespec until = from_now(timeout_ms);
    bool idle;
    int r = 0;

    pthread_mutex_lock(&caller->exchange->lock);
    while ((caller->current || !STAILQ_EMPTY(&caller->queue)) && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&caller->changed, &caller->exchange->lock, &until);
    idle = !caller->current && STAILQ_EMPTY(&caller->queue);
    pthread_mutex_unlock(&caller->exchange->lock);

    return idle;
}

bool callers_wait(struct exchange *exchange, int timeout_ms) {
    const struct timespec until = from_now(timeout_ms);
    bool ended;
    int r = 0;

    pthread_mutex_lock(&exchange->lock);
    while (exchange->threads && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&exchange->thread_ended, &exchange->lock, &until);
    ended = exchange->threads == 0;
    pthread_mutex_unlock(&exchange->lock);

    return ended;
}

void *caller_userdata(const struct caller *caller) {
    return caller->userdata;
}
