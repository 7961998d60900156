/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mock host: sources and timers over poll(2), one worker thread, a log of calls.
 *
 * What may be freed inside its own callback (sources, timers) is only marked and swept after the
 * iteration.  Failures of the mock's own resources end the test.
 */
#include "mock_host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Ends the test: the sensor broke a rule of the interface, or the mock ran out of something. */
#define require(condition, text) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "mock_host: %s (%s:%d)\n", text, __func__, __LINE__); \
            abort(); \
        } \
    } while (0)

struct vmibus_sensor_source {
    struct mock_host *host;
    struct vmibus_sensor_source *next;
    int fd;
    uint32_t events;
    void (*callback)(void *userdata, uint32_t events);
    void *userdata;
    bool dead;
};

struct vmibus_sensor_timer {
    struct mock_host *host;
    struct vmibus_sensor_timer *next;
    uint64_t deadline; /* 0: not armed */
    void (*callback)(void *userdata);
    void *userdata;
    bool dead;
};

struct mock_job {
    struct mock_job *next;
    void (*work)(void *data);
    void (*done)(void *data);
    void *data;
};

struct mock_queue {
    struct mock_job *first;
    struct mock_job **last;
};

enum verdict_kind { VERDICT_LAYOUT, VERDICT_ROOT };

struct mock_verdict {
    struct mock_verdict *next;
    enum verdict_kind kind;
    struct vmibus_sensor_endpoint *endpoint;
    uint64_t epoch;
    enum vmibus_error error;
    enum vmibus_reason reason;
};

struct mock_command {
    struct vmibus_sensor_endpoint *endpoint;
    bool answered;
};

/* struct vmibus_sensor_host is what the sensor is given: the mock itself. */
struct vmibus_sensor_host {
    int unused;
};

struct mock_host {
    struct vmibus_sensor_host handle; /* first: the sensor's pointer is the mock's */
    const struct vmibus_sensor_module *module;
    struct mock_behaviour behaviour;
    void *instance;
    bool running;
    bool owns_time;
    const struct vmibus_sensor_saved *saved; /* borrowed */
    uint64_t time;

    struct vmibus_sensor_source *sources;
    struct vmibus_sensor_timer *timers;
    struct mock_verdict *verdicts;
    uint64_t last_epoch;

    struct vmibus_sensor_endpoint **endpoints;
    size_t n_endpoints;
    struct mock_record **records;
    size_t n_records;
    struct mock_command *commands; /* command id is its index + 1 */
    size_t n_commands;

    pthread_t worker;
    bool has_worker;
    pthread_mutex_t mutex; /* guards the members below */
    pthread_cond_t changed;
    bool stopping;
    struct mock_queue waiting;
    struct mock_queue finished;
    size_t outstanding;
    int done_fd;
};

static struct mock_host *the_host;

static struct mock_host *host_of(struct vmibus_sensor_host *handle) {
    require(handle && (struct mock_host *)(void *)handle == the_host,
            "not the host that start() was given");
    return the_host;
}

static void *allocate(size_t n, size_t size) {
    void *memory = calloc(n ? n : 1, size);

    require(memory, "out of memory");
    return memory;
}

static void *duplicate(const void *memory, size_t len) {
    void *copy = allocate(1, len ? len : 1);

    if (len > 0)
        memcpy(copy, memory, len);
    return copy;
}

/* Room for one more element; returns the array, possibly moved. */
static void *grow(void *array, size_t n, size_t size) {
    void *grown = realloc(array, (n + 1) * size);

    require(grown, "out of memory");
    return grown;
}

/* --- time ------------------------------------------------------------------------------------- */

static uint64_t api_now(void) {
    struct timespec now;

    if (the_host && the_host->owns_time)
        return the_host->time;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t mock_host_now(struct mock_host *host) {
    (void)host;
    return api_now();
}

/* --- the log ---------------------------------------------------------------------------------- */

static struct mock_record *record_new(struct mock_host *host, enum mock_call call,
                                      struct vmibus_sensor_endpoint *endpoint) {
    struct mock_record *record = allocate(1, sizeof(*record));

    record->call = call;
    record->endpoint = endpoint;
    record->at = api_now();
    record->result = host->behaviour.results[call];
    host->records = grow(host->records, host->n_records, sizeof(*host->records));
    host->records[host->n_records++] = record;
    return record;
}

static int record_finish(struct mock_host *host, struct mock_record *record) {
    if (host->behaviour.observe)
        host->behaviour.observe(host->behaviour.observe_data, record);
    return record->result;
}

static void record_free(struct mock_record *record) {
    size_t i;

    for (i = 0; i < record->layout.n_fds; i++)
        close(record->layout.fds[i]);
    free(record->layout.fds);
    free(record->layout.ranges);
    for (i = 0; i < record->n_fds; i++)
        close(record->fds[i]);
    free(record->tail);
    free(record->message);
    free(record);
}

void mock_host_clear(struct mock_host *host) {
    size_t i;

    for (i = 0; i < host->n_records; i++)
        record_free(host->records[i]);
    free(host->records);
    host->records = NULL;
    host->n_records = 0;
}

const struct mock_record *mock_host_any(const struct mock_host *host, size_t index) {
    return index < host->n_records ? host->records[index] : NULL;
}

const struct mock_record *mock_host_record(const struct mock_host *host, enum mock_call call,
                                           size_t index) {
    size_t i;

    for (i = 0; i < host->n_records; i++)
        if (host->records[i]->call == call && index-- == 0)
            return host->records[i];
    return NULL;
}

size_t mock_host_count(const struct mock_host *host, enum mock_call call) {
    size_t i, count = 0;

    for (i = 0; i < host->n_records; i++)
        count += host->records[i]->call == call;
    return count;
}

const struct mock_record *mock_host_last_of(const struct mock_host *host, enum mock_call call,
                                            const struct vmibus_sensor_endpoint *endpoint) {
    size_t i;

    for (i = host->n_records; i > 0; i--)
        if (host->records[i - 1]->call == call &&
            (!endpoint || host->records[i - 1]->endpoint == endpoint))
            return host->records[i - 1];
    return NULL;
}

const struct mock_record *mock_host_last(const struct mock_host *host, enum mock_call call) {
    return mock_host_last_of(host, call, NULL);
}

const struct vmibus_ack *mock_host_ack(const struct mock_host *host, uint64_t id) {
    size_t i;

    for (i = 0; i < host->n_records; i++)
        if (host->records[i]->call == MOCK_COMPLETE && host->records[i]->id == id)
            return &host->records[i]->ack;
    return NULL;
}

struct vmibus_sensor_endpoint *mock_host_endpoint(struct mock_host *host, const char *name) {
    size_t i;

    for (i = host->n_endpoints; i > 0; i--)
        if (!host->endpoints[i - 1]->gone && strcmp(host->endpoints[i - 1]->name, name) == 0)
            return host->endpoints[i - 1];
    return NULL;
}

/* --- calls about endpoints -------------------------------------------------------------------- */

static struct mock_host *check_endpoint(const struct vmibus_sensor_endpoint *endpoint, bool own) {
    require(endpoint, "endpoint handle is NULL");
    require(!endpoint->gone, "endpoint handle used after it ended");
    require(!own || !endpoint->foreign, "endpoint belongs to another sensor");
    return endpoint->host;
}

static struct vmibus_sensor_endpoint *endpoint_new(struct mock_host *host,
                                                   const struct vmibus_sensor_offer *offer) {
    struct vmibus_sensor_endpoint *endpoint = allocate(1, sizeof(*endpoint));

    endpoint->host = host;
    endpoint->name = duplicate(offer->name, strlen(offer->name) + 1);
    memcpy(endpoint->uuid, offer->uuid, sizeof(endpoint->uuid));
    endpoint->pid = offer->pid;
    endpoint->start_time = offer->start_time;
    endpoint->groups = offer->groups;
    host->endpoints = grow(host->endpoints, host->n_endpoints, sizeof(*host->endpoints));
    host->endpoints[host->n_endpoints++] = endpoint;
    return endpoint;
}

static int api_announce(struct vmibus_sensor_host *handle, enum vmibus_sensor_state state,
                        const char *message) {
    struct mock_host *host = host_of(handle);
    struct mock_record *record = record_new(host, MOCK_ANNOUNCE, NULL);

    record->state = state;
    record->message = message ? duplicate(message, strlen(message) + 1) : NULL;
    return record_finish(host, record);
}

static int api_offer(struct vmibus_sensor_host *handle, const struct vmibus_sensor_offer *offer,
                     void *userdata, struct vmibus_sensor_endpoint **endpointp) {
    struct mock_host *host = host_of(handle);
    size_t len = offer->name ? strlen(offer->name) : 0;
    struct vmibus_sensor_endpoint *endpoint;
    struct mock_record *record;

    if (len == 0)
        return -EINVAL;
    if (len > VMIBUS_NAME_BOUND)
        return -E2BIG;
    if (host->behaviour.results[MOCK_OFFER] < 0)
        return record_finish(host, record_new(host, MOCK_OFFER, NULL));
    endpoint = endpoint_new(host, offer);
    endpoint->userdata = userdata;
    record = record_new(host, MOCK_OFFER, endpoint);
    *endpointp = endpoint;
    return record_finish(host, record);
}

/* Commands of an endpoint that ends are answered GONE by the bus: the sensor may forget them. */
static void drop_commands(struct mock_host *host, const struct vmibus_sensor_endpoint *endpoint) {
    size_t i;

    for (i = 0; i < host->n_commands; i++)
        if (host->commands[i].endpoint == endpoint)
            host->commands[i].answered = true;
}

static void api_withdraw(struct vmibus_sensor_endpoint *endpoint, enum vmibus_reason reason) {
    struct mock_host *host = check_endpoint(endpoint, true);
    struct mock_record *record = record_new(host, MOCK_WITHDRAW, endpoint);

    record->reason = reason;
    endpoint->gone = true;
    endpoint->epoch = 0;
    drop_commands(host, endpoint);
    record_finish(host, record);
}

static int api_publish(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame,
                       const void *tail, size_t tail_length) {
    struct mock_host *host = check_endpoint(endpoint, false);
    struct mock_record *record = record_new(host, MOCK_PUBLISH, endpoint);

    require(tail_length == 0 || tail, "tail_length without a tail");
    record->frame = *frame;
    record->tail = tail_length > 0 ? duplicate(tail, tail_length) : NULL;
    record->tail_length = tail_length;
    return record_finish(host, record);
}

static int api_provide(struct vmibus_sensor_endpoint *endpoint, uint32_t groups) {
    struct mock_host *host = check_endpoint(endpoint, false);
    struct mock_record *record = record_new(host, MOCK_PROVIDE, endpoint);

    record->groups = groups;
    return record_finish(host, record);
}

static int api_complete_with(struct vmibus_sensor_host *handle, uint64_t id,
                             const struct vmibus_ack *ack, const void *tail, size_t tail_length,
                             const int *fds, size_t n_fds) {
    struct mock_host *host = host_of(handle);
    struct mock_record *record;

    if (tail_length > VMIBUS_TAIL_BOUND_DEFAULT || n_fds > VMIBUS_FDS_PER_FRAME)
        return -E2BIG;
    require(tail_length == 0 || tail, "tail_length without a tail");
    require(id > 0 && id <= host->n_commands, "complete() of a command that never was");
    if (host->commands[id - 1].answered) {
        require(host->commands[id - 1].endpoint->gone, "command answered twice");
        return 0;
    }
    host->commands[id - 1].answered = true;
    record = record_new(host, MOCK_COMPLETE, NULL);
    record->id = id;
    record->ack = *ack;
    record->tail = tail_length > 0 ? duplicate(tail, tail_length) : NULL;
    record->tail_length = tail_length;
    for (size_t i = 0; i < n_fds; i++) {
        record->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        require(record->fds[i] >= 0, "complete_with() of a descriptor that is not open");
        record->n_fds++;
    }
    (void)record_finish(host, record);
    return 0;
}

static void api_complete(struct vmibus_sensor_host *handle, uint64_t id,
                         const struct vmibus_ack *ack) {
    (void)api_complete_with(handle, id, ack, NULL, 0, NULL, 0);
}

/* --- calls about memory ----------------------------------------------------------------------- */

static void verdict_post(struct mock_host *host, enum verdict_kind kind,
                         struct vmibus_sensor_endpoint *endpoint, uint64_t epoch,
                         enum vmibus_error error, enum vmibus_reason reason) {
    struct mock_verdict *verdict = allocate(1, sizeof(*verdict)), **last = &host->verdicts;

    verdict->kind = kind;
    verdict->endpoint = endpoint;
    verdict->epoch = epoch;
    verdict->error = error;
    verdict->reason = reason;
    while (*last)
        last = &(*last)->next;
    *last = verdict;
}

static void copy_layout(struct mock_layout *copy, const struct vmibus_sensor_layout *layout) {
    size_t i;

    copy->pid = layout->pid;
    copy->start_time = layout->start_time;
    copy->ranges = duplicate(layout->ranges, layout->n_ranges * sizeof(*layout->ranges));
    copy->n_ranges = layout->n_ranges;
    copy->fds = allocate(layout->n_fds, sizeof(*copy->fds));
    for (i = 0; i < layout->n_fds; i++) {
        copy->fds[i] = fcntl(layout->fds[i], F_DUPFD_CLOEXEC, 0);
        require(copy->fds[i] >= 0, "layout() with a descriptor that is not open");
        copy->n_fds++;
    }
}

static int api_layout(struct vmibus_sensor_endpoint *endpoint,
                      const struct vmibus_sensor_layout *layout) {
    struct mock_host *host = check_endpoint(endpoint, true);
    struct mock_behaviour *behaviour = &host->behaviour;
    struct mock_record *record = record_new(host, MOCK_LAYOUT, endpoint);

    copy_layout(&record->layout, layout);
    if (record->result == 0 && behaviour->answer_layout)
        verdict_post(host, VERDICT_LAYOUT, endpoint,
                     behaviour->layout_error ? 0 : host->last_epoch + 1, behaviour->layout_error,
                     behaviour->layout_reason);
    if (record->result == 0)
        host->last_epoch++;
    return record_finish(host, record);
}

static int api_root(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_mem_root *root) {
    struct mock_host *host = check_endpoint(endpoint, false);
    struct mock_behaviour *behaviour = &host->behaviour;
    struct mock_record *record = record_new(host, MOCK_ROOT, endpoint);

    record->root = *root;
    if (record->result == 0 && behaviour->answer_root)
        verdict_post(host, VERDICT_ROOT, endpoint, root->epoch, behaviour->root_error,
                     behaviour->root_reason);
    return record_finish(host, record);
}

static int api_end_epoch(struct vmibus_sensor_endpoint *endpoint, enum vmibus_reason reason) {
    struct mock_host *host = check_endpoint(endpoint, true);
    struct mock_record *record = record_new(host, MOCK_END_EPOCH, endpoint);

    record->reason = reason;
    record->epoch = endpoint->epoch;
    if (record->result == 0)
        endpoint->epoch = 0;
    return record_finish(host, record);
}

static int api_memory_busy(struct vmibus_sensor_endpoint *endpoint, bool busy,
                           enum vmibus_reason reason) {
    struct mock_host *host = check_endpoint(endpoint, true);
    struct mock_record *record = record_new(host, MOCK_MEMORY_BUSY, endpoint);

    record->busy = busy;
    record->reason = reason;
    return record_finish(host, record);
}

static int api_attach(struct vmibus_sensor_endpoint *endpoint, uint64_t epoch) {
    struct mock_host *host = check_endpoint(endpoint, false);
    struct mock_record *record = record_new(host, MOCK_ATTACH, endpoint);

    record->epoch = epoch;
    return record_finish(host, record);
}

static int api_detach(struct vmibus_sensor_endpoint *endpoint, uint64_t epoch) {
    struct mock_host *host = check_endpoint(endpoint, false);
    struct mock_record *record = record_new(host, MOCK_DETACH, endpoint);

    record->epoch = epoch;
    return record_finish(host, record);
}

/* --- sources and timers ----------------------------------------------------------------------- */

static int api_watch_fd(struct vmibus_sensor_host *handle, int fd, uint32_t events,
                        void (*callback)(void *userdata, uint32_t events), void *userdata,
                        struct vmibus_sensor_source **sourcep) {
    struct mock_host *host = host_of(handle);
    struct vmibus_sensor_source *source;

    if (fcntl(fd, F_GETFD) < 0)
        return -errno;
    source = allocate(1, sizeof(*source));
    source->host = host;
    source->fd = fd;
    source->events = events;
    source->callback = callback;
    source->userdata = userdata;
    source->next = host->sources;
    host->sources = source;
    *sourcep = source;
    return 0;
}

static int api_change_fd(struct vmibus_sensor_source *source, uint32_t events) {
    require(!source->dead, "source used after unwatch_fd()");
    source->events = events;
    return 0;
}

static void api_unwatch_fd(struct vmibus_sensor_source *source) {
    if (!source)
        return;
    require(!source->dead, "unwatch_fd() twice");
    require(fcntl(source->fd, F_GETFD) >= 0, "descriptor closed before unwatch_fd()");
    source->dead = true;
}

static int api_timer_new(struct vmibus_sensor_host *handle, void (*callback)(void *userdata),
                         void *userdata, struct vmibus_sensor_timer **timerp) {
    struct mock_host *host = host_of(handle);
    struct vmibus_sensor_timer *timer = allocate(1, sizeof(*timer));

    timer->host = host;
    timer->callback = callback;
    timer->userdata = userdata;
    timer->next = host->timers;
    host->timers = timer;
    *timerp = timer;
    return 0;
}

static void api_timer_set(struct vmibus_sensor_timer *timer, uint64_t delay_ns) {
    require(!timer->dead, "timer used after timer_free()");
    timer->deadline = delay_ns ? api_now() + delay_ns : 0;
}

static void api_timer_free(struct vmibus_sensor_timer *timer) {
    if (!timer)
        return;
    require(!timer->dead, "timer_free() twice");
    timer->dead = true;
}

static void sweep(struct mock_host *host) {
    struct vmibus_sensor_source **source = &host->sources, *dead_source;
    struct vmibus_sensor_timer **timer = &host->timers, *dead_timer;

    while (*source)
        if ((*source)->dead) {
            dead_source = *source;
            *source = dead_source->next;
            free(dead_source);
        } else {
            source = &(*source)->next;
        }
    while (*timer)
        if ((*timer)->dead) {
            dead_timer = *timer;
            *timer = dead_timer->next;
            free(dead_timer);
        } else {
            timer = &(*timer)->next;
        }
}

size_t mock_host_timers(const struct mock_host *host) {
    const struct vmibus_sensor_timer *timer;
    size_t count = 0;

    for (timer = host->timers; timer; timer = timer->next)
        count += !timer->dead;
    return count;
}

size_t mock_host_sources(const struct mock_host *host) {
    const struct vmibus_sensor_source *source;
    size_t count = 0;

    for (source = host->sources; source; source = source->next)
        count += !source->dead;
    return count;
}

/* --- work ------------------------------------------------------------------------------------- */

static void queue_init(struct mock_queue *queue) {
    queue->first = NULL;
    queue->last = &queue->first;
}

static void queue_append(struct mock_queue *queue, struct mock_job *job) {
    job->next = NULL;
    *queue->last = job;
    queue->last = &job->next;
}

static struct mock_job *queue_take(struct mock_queue *queue) {
    struct mock_job *job = queue->first;

    if (job) {
        queue->first = job->next;
        if (!queue->first)
            queue->last = &queue->first;
    }
    return job;
}

static void *worker_main(void *data) {
    struct mock_host *host = data;
    struct mock_job *job;
    uint64_t one = 1;

    pthread_mutex_lock(&host->mutex);
    while (!host->stopping) {
        job = queue_take(&host->waiting);
        if (!job) {
            pthread_cond_wait(&host->changed, &host->mutex);
            continue;
        }
        pthread_mutex_unlock(&host->mutex);
        job->work(job->data);
        pthread_mutex_lock(&host->mutex);
        queue_append(&host->finished, job);
        require(write(host->done_fd, &one, sizeof(one)) == sizeof(one), "eventfd");
    }
    pthread_mutex_unlock(&host->mutex);
    return NULL;
}

static int api_work(struct vmibus_sensor_host *handle, void (*work)(void *data),
                    void (*done)(void *data), void *data) {
    struct mock_host *host = host_of(handle);
    struct mock_job *job = allocate(1, sizeof(*job));

    job->work = work;
    job->done = done;
    job->data = data;
    if (!host->has_worker) {
        require(pthread_create(&host->worker, NULL, worker_main, host) == 0, "no worker thread");
        host->has_worker = true;
    }
    pthread_mutex_lock(&host->mutex);
    queue_append(&host->waiting, job);
    host->outstanding++;
    pthread_cond_signal(&host->changed);
    pthread_mutex_unlock(&host->mutex);
    return 0;
}

size_t mock_host_work(const struct mock_host *host) {
    struct mock_host *locked = (struct mock_host *)(uintptr_t)host;
    size_t outstanding;

    pthread_mutex_lock(&locked->mutex);
    outstanding = locked->outstanding;
    pthread_mutex_unlock(&locked->mutex);
    return outstanding;
}

static int run_finished_work(struct mock_host *host) {
    struct mock_job *job;
    uint64_t count;
    int ran = 0;

    if (read(host->done_fd, &count, sizeof(count)) < 0)
        require(errno == EAGAIN, "eventfd");
    for (;;) {
        pthread_mutex_lock(&host->mutex);
        job = queue_take(&host->finished);
        if (job)
            host->outstanding--;
        pthread_mutex_unlock(&host->mutex);
        if (!job)
            return ran;
        if (job->done)
            job->done(job->data);
        free(job);
        ran++;
    }
}

static void end_worker(struct mock_host *host) {
    struct mock_job *job;

    if (host->has_worker) {
        pthread_mutex_lock(&host->mutex);
        host->stopping = true;
        pthread_cond_signal(&host->changed);
        pthread_mutex_unlock(&host->mutex);
        pthread_join(host->worker, NULL);
        host->has_worker = false;
        host->stopping = false;
    }
    while ((job = queue_take(&host->waiting)))
        free(job);
    while ((job = queue_take(&host->finished)))
        free(job);
    host->outstanding = 0;
}

/* --- iterations ------------------------------------------------------------------------------- */

static void give_verdict(struct mock_host *host, const struct mock_verdict *verdict) {
    struct vmibus_sensor_endpoint *endpoint = verdict->endpoint;

    if (endpoint->gone)
        return;
    if (verdict->kind == VERDICT_LAYOUT) {
        if (verdict->error == VMIBUS_ERROR_OK)
            endpoint->epoch = verdict->epoch;
        if (host->module->layout_result)
            host->module->layout_result(host->instance, endpoint->userdata, verdict->epoch,
                                        verdict->error, verdict->reason);
    } else if (host->module->root_result) {
        host->module->root_result(host->instance, endpoint->userdata, verdict->epoch,
                                  verdict->error, verdict->reason);
    }
}

static int give_verdicts(struct mock_host *host) {
    struct mock_verdict *verdict = host->verdicts, *next;
    int ran = 0;

    host->verdicts = NULL;
    for (; verdict; verdict = next) {
        next = verdict->next;
        give_verdict(host, verdict);
        free(verdict);
        ran++;
    }
    return ran;
}

static struct vmibus_sensor_timer *earliest_timer(struct mock_host *host) {
    struct vmibus_sensor_timer *timer, *earliest = NULL;

    for (timer = host->timers; timer; timer = timer->next)
        if (!timer->dead && timer->deadline && (!earliest || timer->deadline < earliest->deadline))
            earliest = timer;
    return earliest;
}

/*
 * Fires what is due now, in order of deadlines; a timer that is set again for now waits for the
 * next iteration.
 */
static int fire_timers(struct mock_host *host) {
    uint64_t now = api_now();
    struct vmibus_sensor_timer *timer;
    int ran = 0;

    while ((timer = earliest_timer(host)) && timer->deadline <= now) {
        timer->deadline = 0;
        timer->callback(timer->userdata);
        ran++;
    }
    return ran;
}

static short poll_events(uint32_t events) {
    return (short)((events & EPOLLIN ? POLLIN : 0) | (events & EPOLLOUT ? POLLOUT : 0) |
                   (events & EPOLLPRI ? POLLPRI : 0) | (events & EPOLLRDHUP ? POLLRDHUP : 0));
}

static uint32_t epoll_events(short events) {
    return (uint32_t)((events & POLLIN ? EPOLLIN : 0) | (events & POLLOUT ? EPOLLOUT : 0) |
                      (events & POLLPRI ? EPOLLPRI : 0) | (events & POLLRDHUP ? EPOLLRDHUP : 0) |
                      (events & POLLERR ? EPOLLERR : 0) | (events & POLLHUP ? EPOLLHUP : 0));
}

static int poll_timeout(struct mock_host *host, int timeout_ms) {
    struct vmibus_sensor_timer *timer = host->owns_time ? NULL : earliest_timer(host);
    uint64_t now, ms;

    if (host->verdicts)
        return 0;
    if (!timer)
        return timeout_ms;
    now = api_now();
    ms = timer->deadline > now ? (timer->deadline - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    return timeout_ms >= 0 && ms > (uint64_t)timeout_ms ? timeout_ms : (int)ms;
}

static int serve_sources(struct mock_host *host, int timeout_ms) {
    size_t n = 0, i, count = mock_host_sources(host);
    struct pollfd *fds = allocate(count + 1, sizeof(*fds));
    struct vmibus_sensor_source **sources =
                                    allocate(count + 1, sizeof(struct vmibus_sensor_source *)),
                                *source;
    int ran = 0;

    fds[n++] = (struct pollfd){.fd = host->done_fd, .events = POLLIN};
    for (source = host->sources; source; source = source->next)
        if (!source->dead) {
            sources[n] = source;
            fds[n++] = (struct pollfd){.fd = source->fd, .events = poll_events(source->events)};
        }
    if (poll(fds, n, timeout_ms) < 0)
        require(errno == EINTR, "poll");
    for (i = 1; i < n; i++) {
        require(!(fds[i].revents & POLLNVAL) || sources[i]->dead,
                "descriptor closed before unwatch_fd()");
        if (fds[i].revents && !sources[i]->dead) {
            sources[i]->callback(sources[i]->userdata, epoll_events(fds[i].revents));
            ran++;
        }
    }
    free(sources);
    free(fds);
    return ran;
}

int mock_host_iterate(struct mock_host *host, int timeout_ms) {
    int ran;

    require(host->running, "the sensor does not run");
    ran = serve_sources(host, poll_timeout(host, timeout_ms));
    ran += run_finished_work(host);
    ran += give_verdicts(host);
    ran += fire_timers(host);
    sweep(host);
    return ran;
}

void mock_host_settle(struct mock_host *host) {
    struct pollfd done = {.fd = host->done_fd, .events = POLLIN};

    for (;;) {
        if (mock_host_iterate(host, 0) > 0)
            continue;
        if (mock_host_work(host) == 0)
            return;
        poll(&done, 1, -1);
    }
}

bool mock_host_wait(struct mock_host *host, bool (*condition)(void *data), void *data,
                    int timeout_ms) {
    struct timespec now;
    int64_t end, left;

    clock_gettime(CLOCK_MONOTONIC, &now);
    end = now.tv_sec * 1000 + now.tv_nsec / 1000000 + timeout_ms;
    while (!condition(data)) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        left = end - (now.tv_sec * 1000 + now.tv_nsec / 1000000);
        if (left <= 0)
            return false;
        mock_host_iterate(host, (int)left);
    }
    return true;
}

void mock_host_advance(struct mock_host *host, uint64_t ns) {
    uint64_t target = host->time + ns;
    struct vmibus_sensor_timer *timer;

    require(host->owns_time, "mock_host_own_time() was not called");
    mock_host_settle(host);
    while ((timer = earliest_timer(host)) && timer->deadline <= target) {
        if (timer->deadline > host->time)
            host->time = timer->deadline;
        mock_host_settle(host);
    }
    host->time = target;
}

/* --- life ------------------------------------------------------------------------------------- */

static int api_saved(struct vmibus_sensor_host *handle, struct vmibus_sensor_saved *state) {
    struct mock_host *host = host_of(handle);

    if (!host->saved)
        return -ENOENT;
    *state = *host->saved;
    return 0;
}

static const struct vmibus_sensor_api mock_api = {
    .struct_size = sizeof(mock_api),
    .abi = VMIBUS_SENSOR_ABI,
    .announce = api_announce,
    .offer = api_offer,
    .withdraw = api_withdraw,
    .publish = api_publish,
    .complete = api_complete,
    .layout = api_layout,
    .root = api_root,
    .end_epoch = api_end_epoch,
    .memory_busy = api_memory_busy,
    .attach = api_attach,
    .detach = api_detach,
    .watch_fd = api_watch_fd,
    .change_fd = api_change_fd,
    .unwatch_fd = api_unwatch_fd,
    .timer_new = api_timer_new,
    .timer_set = api_timer_set,
    .timer_free = api_timer_free,
    .work = api_work,
    .now = api_now,
    .complete_with = api_complete_with,
    .provide = api_provide,
    .saved = api_saved,
};

struct mock_host *mock_host_new(const struct vmibus_sensor_module *module) {
    struct mock_host *host = allocate(1, sizeof(*host));

    require(!the_host, "one mock at a time");
    require(module->abi == VMIBUS_SENSOR_ABI && module->struct_size == sizeof(*module),
            "module of another ABI");
    require(module->name && strlen(module->name) <= 31, "module name too long");
    host->module = module;
    host->behaviour.answer_layout = true;
    host->behaviour.answer_root = true;
    host->last_epoch = UINT64_C(1) << 32;
    queue_init(&host->waiting);
    queue_init(&host->finished);
    pthread_mutex_init(&host->mutex, NULL);
    pthread_cond_init(&host->changed, NULL);
    host->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    require(host->done_fd >= 0, "no eventfd");
    the_host = host;
    return host;
}

struct mock_behaviour *mock_host_behaviour(struct mock_host *host) {
    return &host->behaviour;
}

void mock_host_own_time(struct mock_host *host) {
    host->time = api_now();
    host->owns_time = true;
}

static size_t parse_options(const char *const *options, struct vmibus_sensor_option **parsedp,
                            char ***stringsp) {
    size_t n = 0, i;
    char *equals;

    while (options && options[n])
        n++;
    *parsedp = allocate(n, sizeof(**parsedp));
    *stringsp = allocate(n, sizeof(**stringsp));
    for (i = 0; i < n; i++) {
        (*stringsp)[i] = duplicate(options[i], strlen(options[i]) + 1);
        equals = strchr((*stringsp)[i], '=');
        require(equals, "an option is key=value");
        *equals = '\0';
        (*parsedp)[i] = (struct vmibus_sensor_option){.key = (*stringsp)[i], .value = equals + 1};
    }
    return n;
}

int mock_host_start(struct mock_host *host, const char *const *options) {
    struct vmibus_sensor_option *parsed;
    char **strings;
    size_t n = parse_options(options, &parsed, &strings), i;
    int r;

    require(!host->running, "started twice");
    r = host->module->start(&host->handle, &mock_api, parsed, n, &host->instance);
    host->running = r == 0;
    for (i = 0; i < n; i++)
        free(strings[i]);
    free(strings);
    free(parsed);
    require(r <= 0, "start() returned a positive value");
    if (r < 0) {
        end_worker(host);
        sweep(host);
        require(!host->timers && !host->sources,
                "start() failed and left a timer or source behind");
    }
    return r;
}

void mock_host_stop(struct mock_host *host) {
    struct mock_verdict *verdict;
    size_t i;

    if (!host->running)
        return;
    end_worker(host);
    host->module->stop(host->instance);
    host->running = false;
    host->instance = NULL;
    sweep(host);
    require(!host->timers, "stop() left a timer behind");
    require(!host->sources, "stop() left a source behind");
    while ((verdict = host->verdicts)) {
        host->verdicts = verdict->next;
        free(verdict);
    }
    for (i = 0; i < host->n_endpoints; i++)
        host->endpoints[i]->gone = true;
}

void mock_host_give(struct mock_host *host, const struct vmibus_sensor_saved *saved) {
    host->saved = saved;
}

void mock_host_accept(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint, bool kept) {
    if (host->module->offered)
        host->module->offered(host->instance, endpoint->userdata, kept);
}

struct mock_host *mock_host_free(struct mock_host *host) {
    size_t i;

    if (!host)
        return NULL;
    mock_host_stop(host);
    mock_host_clear(host);
    for (i = 0; i < host->n_endpoints; i++) {
        free(host->endpoints[i]->name);
        free(host->endpoints[i]);
    }
    free(host->endpoints);
    free(host->commands);
    sweep(host);
    close(host->done_fd);
    pthread_cond_destroy(&host->changed);
    pthread_mutex_destroy(&host->mutex);
    the_host = NULL;
    free(host);
    return NULL;
}

bool mock_host_is_running(const struct mock_host *host) {
    return host->running;
}

void *mock_host_instance(struct mock_host *host) {
    return host->instance;
}

/* --- playing bus and authority ---------------------------------------------------------------- */

static void record_refused_command(struct mock_host *host, uint64_t id, int r) {
    struct vmibus_ack ack = {
        .error = VMIBUS_ERROR_IO, .reason = VMIBUS_REASON_SENSOR_FAILED, .value = (uint64_t)-r};

    require(!host->commands[id - 1].answered, "execute() failed and completed the command");
    api_complete(&host->handle, id, &ack);
}

uint64_t mock_host_execute(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                           const struct vmibus_frame *frame, const void *tail, size_t tail_length) {
    struct vmibus_frame *frame_copy = duplicate(frame, sizeof(*frame));
    void *tail_copy = tail_length > 0 ? duplicate(tail, tail_length) : NULL;
    struct vmibus_sensor_command command = {.frame = frame_copy, .tail = tail_copy};
    int r;

    require(!endpoint || !endpoint->gone, "the test executes a command on an endpoint that is gone");
    host->commands = grow(host->commands, host->n_commands, sizeof(*host->commands));
    host->commands[host->n_commands] = (struct mock_command){.endpoint = endpoint};
    command.id = ++host->n_commands;
    frame_copy->header.direction = VMIBUS_DIRECTION_DOWN;
    frame_copy->header.tail_length = (uint32_t)tail_length;
    if (frame_copy->header.timestamp == 0)
        frame_copy->header.timestamp = api_now();
    r = host->module->execute(host->instance, endpoint ? endpoint->userdata : NULL, &command);
    free(frame_copy);
    free(tail_copy);
    require(r <= 0, "execute() returned a positive value");
    if (r < 0)
        record_refused_command(host, command.id, r);
    return command.id;
}

void mock_host_cancel(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                      uint64_t id) {
    if (host->module->cancel)
        host->module->cancel(host->instance, endpoint->userdata, id);
}

void mock_host_demand(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                      uint64_t kinds) {
    if (host->module->demand)
        host->module->demand(host->instance, endpoint->userdata, kinds);
}

void mock_host_answer_layout(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                             uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason) {
    struct mock_verdict verdict = {.kind = VERDICT_LAYOUT,
                                   .endpoint = endpoint,
                                   .epoch = epoch,
                                   .error = error,
                                   .reason = reason};

    give_verdict(host, &verdict);
}

void mock_host_answer_root(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                           uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason) {
    struct mock_verdict verdict = {.kind = VERDICT_ROOT,
                                   .endpoint = endpoint,
                                   .epoch = epoch,
                                   .error = error,
                                   .reason = reason};

    give_verdict(host, &verdict);
}

void mock_host_answer_attach(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                             const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                             enum vmibus_reason reason) {
    if (host->module->attached)
        host->module->attached(host->instance, endpoint->userdata, ram, error, reason);
}

struct vmibus_sensor_endpoint *mock_host_appear(struct mock_host *host,
                                                const struct vmibus_sensor_offer *offer) {
    struct vmibus_sensor_endpoint *endpoint = endpoint_new(host, offer);

    endpoint->foreign = true;
    if (host->module->endpoint_appeared)
        host->module->endpoint_appeared(host->instance, endpoint, offer, &endpoint->userdata);
    return endpoint;
}

void mock_host_vanish(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint) {
    if (endpoint->userdata && host->module->endpoint_vanished)
        host->module->endpoint_vanished(host->instance, endpoint->userdata);
    endpoint->gone = true;
    drop_commands(host, endpoint);
}

void mock_host_change_memctx(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                             const struct vmibus_memctx *memctx) {
    if (endpoint->userdata && host->module->memctx_changed)
        host->module->memctx_changed(host->instance, endpoint->userdata, memctx);
}
