/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "caller.h"

VMIBUS_SYSCALLS("eventfd2")

int exchange_new(struct exchange **exchangep) {
    struct exchange *exchange = calloc(1, sizeof(*exchange));
    int r;

    if (!exchange)
        return -ENOMEM;
    exchange->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (exchange->event_fd < 0) {
        r = -errno;
        free(exchange);
        return r;
    }
    pthread_mutex_init(&exchange->lock, NULL);
    caller_condition_init(&exchange->thread_ended);
    exchange->references = 1;
    STAILQ_INIT(&exchange->finished);
    STAILQ_INIT(&exchange->notices);
    *exchangep = exchange;

    return 0;
}

struct exchange *exchange_ref(struct exchange *exchange) {
    pthread_mutex_lock(&exchange->lock);
    exchange->references++;
    pthread_mutex_unlock(&exchange->lock);

    return exchange;
}

void exchange_close(struct exchange *exchange) {
    struct notices notices;
    struct notice *notice;
    struct call *call;

    pthread_mutex_lock(&exchange->lock);
    exchange->closed = true;
    pthread_mutex_unlock(&exchange->lock);
    while ((call = exchange_take_call(exchange)))
        call_free(call);
    exchange_take_notices(exchange, &notices);
    while ((notice = STAILQ_FIRST(&notices))) {
        STAILQ_REMOVE_HEAD(&notices, link);
        free(notice);
    }
}

struct exchange *exchange_unref(struct exchange *exchange) {
    bool last;

    if (!exchange)
        return NULL;
    pthread_mutex_lock(&exchange->lock);
    last = --exchange->references == 0;
    pthread_mutex_unlock(&exchange->lock);
    if (last) {
        exchange_close(exchange);
        close(exchange->event_fd);
        pthread_cond_destroy(&exchange->thread_ended);
        pthread_mutex_destroy(&exchange->lock);
        free(exchange);
    }

    return NULL;
}

static void ring(struct exchange *exchange) {
    const uint64_t one = 1;
    ssize_t n;

    do
        n = write(exchange->event_fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
}

void exchange_tell(struct exchange *exchange, const struct notice *notice) {
    struct notice *copy = malloc(sizeof(*copy));

    if (copy)
        *copy = *notice;
    pthread_mutex_lock(&exchange->lock);
    if (exchange->closed) {
        free(copy);
    } else if (!copy || exchange->n_notices == EXCHANGE_NOTICES_BOUND) {
        exchange->overflown = true;
        free(copy);
    } else {
        STAILQ_INSERT_TAIL(&exchange->notices, copy, link);
        exchange->n_notices++;
    }
    pthread_mutex_unlock(&exchange->lock);
    ring(exchange);
}

bool exchange_finish(struct exchange *exchange, struct call *call) {
    if (exchange->closed)
        return false;
    STAILQ_INSERT_TAIL(&exchange->finished, call, link);
    ring(exchange);

    return true;
}

bool exchange_take_notices(struct exchange *exchange, struct notices *notices) {
    bool overflown;
    uint64_t count;

    if (read(exchange->event_fd, &count, sizeof(count)) < 0)
        count = 0; /* what is there is taken in either case */
    STAILQ_INIT(notices);
    pthread_mutex_lock(&exchange->lock);
    STAILQ_CONCAT(notices, &exchange->notices);
    exchange->n_notices = 0;
    overflown = exchange->overflown;
    exchange->overflown = false;
    pthread_mutex_unlock(&exchange->lock);

    return overflown;
}

struct call *exchange_take_call(struct exchange *exchange) {
    struct call *call;

    pthread_mutex_lock(&exchange->lock);
    call = STAILQ_FIRST(&exchange->finished);
    if (call)
        STAILQ_REMOVE_HEAD(&exchange->finished, link);
    pthread_mutex_unlock(&exchange->lock);

    return call;
}
