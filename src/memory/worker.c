/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/worker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "memory/answer.h"
#include "memory/copier.h"
#include "memory/state.h"
#include "util/clock.h"
#include "util/fds.h"
#include "util/thread.h"

VMIBUS_SYSCALLS("eventfd2")

/* What the authority does by itself is nobody's. */
#define AUTHORITY_UID ((uid_t)-1)

struct worker {
    struct completions *completions;
    struct list link;           /* among those that leave; the loop's */
    size_t n_jobs;              /* that the loop has not seen finished; the loop's */
    pthread_t thread;
    pthread_mutex_t mutex;      /* of all that follows but the copier; taken before that of the completions */
    pthread_cond_t changed;     /* on CLOCK_MONOTONIC */
    struct list queue;          /* ascending by turn */
    uint64_t turn;              /* of the job taken last */
    struct job *executing;
    bool stopping;              /* it ends when the queue is empty */
    bool abandoned;             /* it ends, and touches nothing but this */
    bool ended;
    struct copier *copier;      /* the thread's; NULL until it is needed */
};

static void worker_end(struct worker *worker);
static bool worker_end_by(struct worker *worker, uint64_t deadline);

/* --- completions ------------------------------------------------------------------------------- */

static void completions_take(struct completions *completions, struct list *jobs) {
    list_init(jobs);
    pthread_mutex_lock(&completions->mutex);
    if (!list_is_empty(&completions->finished)) {
        list_insert_between(jobs, completions->finished.previous, completions->finished.next);
        list_init(&completions->finished);
    }
    pthread_mutex_unlock(&completions->mutex);
}

static void collect(struct completions *completions) {
    struct list jobs;

    completions_take(completions, &jobs);
    while (!list_is_empty(&jobs)) {
        struct job *job = list_first(&jobs, struct job, link);

        list_unlink(&job->link);
        assert(job->worker->n_jobs > 0);
        job->worker->n_jobs--;
        job->done(job);
    }
}

static void free_those_that_left(struct completions *completions) {
    struct worker *worker, *following;

    list_for_each_safe(worker, following, &completions->leaving, link)
        if (worker->n_jobs == 0)
            worker_end(worker);
}

static void completions_ready(struct loop_source *source, uint32_t events) {
    struct completions *completions = container_of(source, struct completions, source);
    uint64_t value;

    (void)events;
    if (read(source->fd, &value, sizeof(value)) < 0)
        return;
    collect(completions);
    free_those_that_left(completions);
}

int completions_init(struct completions *completions, struct loop *loop) {
    int fd, r;

    *completions = (struct completions){};
    list_init(&completions->finished);
    list_init(&completions->leaving);
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    r = loop_source_init(&completions->source, loop, fd, EPOLLIN, completions_ready);
    if (r < 0) {
        fd_close(fd);
        return r;
    }
    pthread_mutex_init(&completions->mutex, NULL);
    return 0;
}

bool completions_deinit(struct completions *completions, uint64_t deadline) {
    struct worker *worker;
    bool all = true;

    while ((worker = list_first(&completions->leaving, struct worker, link)))
        all = worker_end_by(worker, deadline) && all;
    loop_source_deinit(&completions->source);
    fd_close(completions->source.fd);
    pthread_mutex_destroy(&completions->mutex);
    return all;
}

static void completions_add(struct completions *completions, struct job *job) {
    const uint64_t one = 1;
    bool is_first;

    pthread_mutex_lock(&completions->mutex);
    is_first = list_is_empty(&completions->finished);
    list_append(&completions->finished, &job->link);
    pthread_mutex_unlock(&completions->mutex);
    /* The loop has been woken for those before it, and takes all. Full means readable, which is all that is wanted. */
    if (is_first && write(completions->source.fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);
}

/* --- the thread -------------------------------------------------------------------------------- */

/* The next job, or NULL when there is none and none will come. */
static struct job *take_job(struct worker *worker) {
    struct job *job;

    pthread_mutex_lock(&worker->mutex);
    while (list_is_empty(&worker->queue) && !worker->stopping && !worker->abandoned)
        pthread_cond_wait(&worker->changed, &worker->mutex);
    job = worker->abandoned ? NULL : list_first(&worker->queue, struct job, link);
    if (job) {
        list_unlink(&job->link);
        worker->turn = job->turn;
    }
    worker->executing = job;
    pthread_mutex_unlock(&worker->mutex);
    return job;
}

/* Under mutex, so that nothing of the loop's is touched once the worker is abandoned. */
static void finish_job(struct worker *worker, struct job *job) {
    pthread_mutex_lock(&worker->mutex);
    if (!worker->abandoned) {
        worker->executing = NULL;
        completions_add(worker->completions, job);
    }
    pthread_mutex_unlock(&worker->mutex);
}

static void *work(void *data) {
    struct worker *worker = data;
    struct job *job;

    while ((job = take_job(worker))) {
        job->answer.ack.started = clock_now();
        job->execute(job);
        job->answer.ack.finished = clock_now();
        finish_job(worker, job);
    }
    pthread_mutex_lock(&worker->mutex);
    worker->ended = true;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
    return NULL;
}

static void worker_init(struct worker *worker, struct completions *completions) {
    pthread_condattr_t attributes;

    worker->completions = completions;
    list_init(&worker->link);
    list_init(&worker->queue);
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void worker_release(struct worker *worker) {
    assert(list_is_empty(&worker->queue));
    list_unlink(&worker->link);
    copier_free(worker->copier);
    pthread_cond_destroy(&worker->changed);
    pthread_mutex_destroy(&worker->mutex);
    free(worker);
}

int worker_new(struct worker **workerp, struct completions *completions) {
    struct worker *worker = calloc(1, sizeof(*worker));
    int r;

    if (!worker)
        return -ENOMEM;
    worker_init(worker, completions);
    r = thread_start(&worker->thread, work, worker);
    if (r < 0) {
        worker_release(worker);
        return r;
    }
    *workerp = worker;
    return 0;
}

/* --- its end ----------------------------------------------------------------------------------- */

static void ask_to_end(struct worker *worker) {
    pthread_mutex_lock(&worker->mutex);
    worker->stopping = true;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
}

/* For one whose thread executes nothing, and will not. */
static void worker_end(struct worker *worker) {
    ask_to_end(worker);
    pthread_join(worker->thread, NULL);
    worker_release(worker);
}

struct worker *worker_leave(struct worker *worker) {
    if (!worker)
        return NULL;
    if (worker->n_jobs > 0)
        list_append(&worker->completions->leaving, &worker->link);
    else
        worker_end(worker);
    return NULL;
}

/* Waits; if the thread has not ended by then, it gets no other job, and what it has not begun is in `left`. */
static struct job *wait_for_end(struct worker *worker, uint64_t deadline, struct list *left) {
    const struct timespec until = {.tv_sec = (time_t)(deadline / NS_PER_S), .tv_nsec = (long)(deadline % NS_PER_S)};
    struct job *executing;
    int r = 0;

    list_init(left);
    pthread_mutex_lock(&worker->mutex);
    while (!worker->ended && r == 0)
        r = pthread_cond_timedwait(&worker->changed, &worker->mutex, &until);
    worker->abandoned = true;
    executing = worker->executing;
    if (!list_is_empty(&worker->queue)) {
        list_insert_between(left, worker->queue.previous, worker->queue.next);
        list_init(&worker->queue);
    }
    pthread_mutex_unlock(&worker->mutex);
    return executing;
}

static void refuse(struct worker *worker, struct list *jobs) {
    while (!list_is_empty(jobs)) {
        struct job *job = list_first(jobs, struct job, link);

        list_unlink(&job->link);
        worker->n_jobs--;
        answer_refuse(&job->answer.ack, VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN, 0);
        job->answer.ack.finished = clock_now();
        job->done(job);
    }
}

/* Whether the thread has ended. */
static bool worker_end_by(struct worker *worker, uint64_t deadline) {
    struct job *executing;
    struct list left;

    ask_to_end(worker);
    executing = wait_for_end(worker, deadline, &left);
    if (!executing)
        pthread_join(worker->thread, NULL);
    collect(worker->completions);
    refuse(worker, &left);
    if (!executing) {
        assert(worker->n_jobs == 0);
        worker_release(worker);
        return true;
    }
    list_unlink(&worker->link);
    pthread_detach(worker->thread);
    executing->abandon(executing);
    return false;
}

int worker_get_copier(struct worker *worker, struct copier **copierp) {
    int r = worker->copier ? 0 : copier_new(&worker->copier);

    *copierp = worker->copier;
    return r;
}

size_t worker_jobs(const struct worker *worker) {
    return worker->n_jobs;
}

/* A user's job has the turn after that of its job before, or the current one, and comes last of those that have it. */
static void put_in_line(struct worker *worker, struct job *job) {
    struct list *before = worker->queue.previous;
    const struct job *other;

    job->turn = worker->turn;
    list_for_each(other, &worker->queue, link)
        if (other->uid == job->uid)
            job->turn = other->turn + 1;
    while (before != &worker->queue && container_of(before, struct job, link)->turn > job->turn)
        before = before->previous;
    list_insert_between(&job->link, before, before->next);
}

void worker_queue(struct worker *worker, struct job *job) {
    job->worker = worker;
    job->uid = job->client ? job->client->principal.uid : AUTHORITY_UID;
    worker->n_jobs++;
    pthread_mutex_lock(&worker->mutex);
    put_in_line(worker, job);
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
}
