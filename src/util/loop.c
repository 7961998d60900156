/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fault.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 timerfd_create timerfd_settime")

#define BATCH 64

struct loop {
    int epoll_fd;
    bool dispatching;
    bool stopping;
    uint64_t round; /* iterations */
    int result;
    size_t n_sources;

    /* The batch being worked on, so that a source removed by an earlier callback is not called. */
    struct epoll_event batch[BATCH];
    int batch_length;
    int batch_position;

    /* Binary heap by deadline. armed is the time the timerfd is set to: never later than the first timer's deadline. */
    struct loop_timer **heap;
    uint32_t n_timers;
    uint32_t heap_capacity;
    uint64_t timers_set; /* how often: the order of timers for the same time */
    uint64_t armed;
    struct loop_source timer_source;

    struct list deferred;
    bool kicked;
    struct loop_source kick_source;
};

/* --- timers ------------------------------------------------------------------------------------ */

static bool timer_is_before(const struct loop_timer *timer, const struct loop_timer *other) {
    return timer->deadline != other->deadline ? timer->deadline < other->deadline : timer->order < other->order;
}

static void heap_place(struct loop *loop, struct loop_timer *timer, uint32_t position) {
    loop->heap[position] = timer;
    timer->position = position;
}

static void heap_rise(struct loop *loop, struct loop_timer *timer) {
    uint32_t position = timer->position;

    while (position > 1 && timer_is_before(timer, loop->heap[position / 2])) {
        heap_place(loop, loop->heap[position / 2], position);
        position /= 2;
    }
    heap_place(loop, timer, position);
}

static void heap_sink(struct loop *loop, struct loop_timer *timer) {
    uint32_t position = timer->position;

    for (;;) {
        uint32_t child = position * 2;

        if (child > loop->n_timers)
            break;
        if (child < loop->n_timers && timer_is_before(loop->heap[child + 1], loop->heap[child]))
            child++;
        if (!timer_is_before(loop->heap[child], timer))
            break;
        heap_place(loop, loop->heap[child], position);
        position = child;
    }
    heap_place(loop, timer, position);
}

static int heap_reserve(struct loop *loop) {
    uint32_t capacity = loop->heap_capacity ? loop->heap_capacity * 2 : 64;
    struct loop_timer **heap;

    if (loop->n_timers + 1 < loop->heap_capacity)
        return 0;
    heap = reallocarray(loop->heap, capacity, sizeof(*heap));
    if (!heap)
        return -ENOMEM;
    loop->heap = heap;
    loop->heap_capacity = capacity;
    return 0;
}

/* Sets the timerfd for the first timer. A timerfd set too early only costs one idle wakeup, so removals do not touch it. */
static int timers_arm(struct loop *loop) {
    struct itimerspec when = {};
    uint64_t first = loop->n_timers ? loop->heap[1]->deadline : UINT64_MAX;

    if (first >= loop->armed)
        return 0;
    if (first == 0)
        first = 1; /* zero would disarm */
    when.it_value.tv_sec = (time_t)(first / NS_PER_S);
    when.it_value.tv_nsec = (long)(first % NS_PER_S);
    if (timerfd_settime(loop->timer_source.fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        return -errno;
    loop->armed = first;
    return 0;
}

static void timers_expire(struct loop_source *source, uint32_t events) {
    struct loop *loop = source->loop;
    uint64_t expirations, now = clock_now();

    (void)events;
    if (read(source->fd, &expirations, sizeof(expirations)) < 0 && errno == EAGAIN)
        return;
    loop->armed = UINT64_MAX;
    /* A timer that sets itself again for a time that has passed waits for the next iteration, or it would never end. */
    for (uint64_t last = loop->timers_set;
         loop->n_timers && loop->heap[1]->deadline <= now && loop->heap[1]->order <= last;) {
        struct loop_timer *timer = loop->heap[1];

        loop_timer_cancel(timer);
        timer->callback(timer);
    }
}

void loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_timer_fn callback) {
    *timer = (struct loop_timer){.loop = loop, .callback = callback};
}

int loop_timer_set(struct loop_timer *timer, uint64_t deadline) {
    struct loop *loop = timer->loop;
    int r;

    if (timer->position) {
        timer->deadline = deadline;
        timer->order = ++loop->timers_set;
        heap_sink(loop, timer);
        heap_rise(loop, timer);
    } else {
        r = fault_hit(FAULT_TIMER);
        if (r == 0)
            r = heap_reserve(loop);
        if (r < 0)
            return r;
        timer->deadline = deadline;
        timer->order = ++loop->timers_set;
        heap_place(loop, timer, ++loop->n_timers);
        heap_rise(loop, timer);
    }
    return loop->dispatching ? 0 : timers_arm(loop);
}

void loop_timer_cancel(struct loop_timer *timer) {
    struct loop *loop = timer->loop;
    struct loop_timer *last;
    uint32_t position = timer->position;

    if (!position)
        return;
    last = loop->heap[loop->n_timers--];
    timer->position = 0;
    if (last == timer)
        return;
    heap_place(loop, last, position);
    heap_sink(loop, last);
    heap_rise(loop, last);
}

/* --- deferred work ----------------------------------------------------------------------------- */

static void kick_drain(struct loop_source *source, uint32_t events) {
    uint64_t value;

    (void)events;
    if (read(source->fd, &value, sizeof(value)) < 0)
        return;
    source->loop->kicked = false;
}

/* Whoever polls the loop's descriptor must learn of deferred work. An eventfd takes a 1 unless it is full: then it is readable. */
static void kick(struct loop *loop) {
    const uint64_t one = 1;

    if (!loop->kicked && write(loop->kick_source.fd, &one, sizeof(one)) == sizeof(one))
        loop->kicked = true;
}

void loop_deferred_init(struct loop_deferred *deferred, struct loop *loop, loop_deferred_fn callback) {
    *deferred = (struct loop_deferred){.loop = loop, .callback = callback};
    list_init(&deferred->link);
}

void loop_defer(struct loop_deferred *deferred) {
    struct loop *loop = deferred->loop;

    if (list_is_linked(&deferred->link))
        return;
    list_append(&loop->deferred, &deferred->link);
    if (!loop->dispatching)
        kick(loop);
}

void loop_deferred_cancel(struct loop_deferred *deferred) {
    list_unlink(&deferred->link);
}

/* Runs what is deferred now; what these defer again waits for the next iteration, so that descriptors get their turn. */
static int deferred_run(struct loop *loop) {
    struct list batch;
    int n = 0;

    list_init(&batch);
    if (list_is_empty(&loop->deferred))
        return 0;
    list_insert_between(&batch, loop->deferred.previous, loop->deferred.next);
    list_init(&loop->deferred);
    while (!list_is_empty(&batch)) {
        struct loop_deferred *deferred = list_first(&batch, struct loop_deferred, link);

        list_unlink(&deferred->link);
        deferred->callback(deferred);
        n++;
    }
    return n;
}

/* --- descriptors ------------------------------------------------------------------------------- */

int loop_source_init(struct loop_source *source, struct loop *loop, int fd, uint32_t events, loop_source_fn callback) {
    struct epoll_event event = {.events = events, .data.ptr = source};

    *source = (struct loop_source){.callback = callback, .fd = fd, .events = events};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    source->loop = loop;
    loop->n_sources++;
    return 0;
}

int loop_source_modify(struct loop_source *source, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (source->events == events)
        return 0;
    if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return -errno;
    source->events = events;
    return 0;
}

void loop_source_deinit(struct loop_source *source) {
    struct loop *loop = source->loop;

    if (!loop)
        return;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    for (int i = loop->batch_position; i < loop->batch_length; i++)
        if (loop->batch[i].data.ptr == source)
            loop->batch[i].data.ptr = NULL;
    loop->n_sources--;
    source->loop = NULL;
}

/* --- loop -------------------------------------------------------------------------------------- */

int loop_new(struct loop **loopp) {
    struct loop *loop;
    int r;

    loop = calloc(1, sizeof(*loop));
    if (!loop)
        return -ENOMEM;
    list_init(&loop->deferred);
    loop->armed = UINT64_MAX;
    loop->timer_source.fd = loop->kick_source.fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        r = -errno;
        goto fail;
    }
    r = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (r >= 0)
        r = loop_source_init(&loop->timer_source, loop, r, EPOLLIN, timers_expire);
    else
        r = -errno;
    if (r < 0)
        goto fail;
    r = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r >= 0)
        r = loop_source_init(&loop->kick_source, loop, r, EPOLLIN, kick_drain);
    else
        r = -errno;
    if (r < 0)
        goto fail;
    *loopp = loop;
    return 0;
fail:
    loop_free(loop);
    return r;
}

struct loop *loop_free(struct loop *loop) {
    if (!loop)
        return NULL;
    assert(loop->n_timers == 0);
    assert(list_is_empty(&loop->deferred));
    loop_source_deinit(&loop->timer_source);
    loop_source_deinit(&loop->kick_source);
    assert(loop->n_sources == 0);
    fd_close(loop->timer_source.fd);
    fd_close(loop->kick_source.fd);
    fd_close(loop->epoll_fd);
    free(loop->heap);
    free(loop);
    return NULL;
}

uint64_t loop_round(const struct loop *loop) {
    return loop->round;
}

int loop_get_fd(const struct loop *loop) {
    return loop->epoll_fd;
}

static int iterate(struct loop *loop, int timeout_ms) {
    int n, ran = 0, r;

    assert(!loop->dispatching);
    r = timers_arm(loop);
    if (r < 0)
        return r;
    if (!list_is_empty(&loop->deferred))
        timeout_ms = 0;
    n = epoll_wait(loop->epoll_fd, loop->batch, BATCH, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    loop->dispatching = true;
    loop->round++;
    loop->batch_length = n;
    for (loop->batch_position = 0; loop->batch_position < loop->batch_length; loop->batch_position++) {
        struct epoll_event *event = &loop->batch[loop->batch_position];
        struct loop_source *source = event->data.ptr;

        if (!source)
            continue;
        source->callback(source, event->events);
        ran++;
    }
    loop->batch_length = 0;
    ran += deferred_run(loop);
    loop->dispatching = false;
    r = timers_arm(loop);
    return r < 0 ? r : ran;
}

/* Whoever goes on by polling the loop's descriptor has to find it readable if there is something left to do. */
static int leave(struct loop *loop, int r) {
    if (!list_is_empty(&loop->deferred))
        kick(loop);
    return r;
}

int loop_dispatch(struct loop *loop, int timeout_ms) {
    return leave(loop, iterate(loop, timeout_ms));
}

int loop_run(struct loop *loop) {
    int r = 0;

    loop->stopping = false;
    while (!loop->stopping && r >= 0)
        r = iterate(loop, -1);
    return leave(loop, r < 0 ? r : loop->result);
}

void loop_stop(struct loop *loop, int result) {
    loop->stopping = true;
    loop->result = result;
}
