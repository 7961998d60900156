/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/worker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "memory/copier.h"
#include "util/clock.h"
#include "util/fds.h"
#include "util/thread.h"

struct worker {
    struct completions *completions;
    size_t n_jobs;              /* that the loop has not seen finished; the loop's */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wanted;
    struct list queue;          /* under mutex */
    bool stopping;              /* under mutex */
    struct copier *copier;      /* the thread's; NULL until it is needed */
};

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

void completions_collect(struct completions *completions) {
    struct list jobs;

    completions_take(completions, &jobs);
    while (!list_is_empty(&jobs)) {
        struct job *job = list_first(&jobs, struct job, link);

        list_unlink(&job->link);
        worker_retire(job->worker);
        job->done(job);
    }
}

static void completions_ready(struct loop_source *source, uint32_t events) {
    struct completions *completions = container_of(source, struct completions, source);
    uint64_t value;

    (void)events;
    if (read(source->fd, &value, sizeof(value)) < 0)
        return;
    completions_collect(completions);
}

int completions_init(struct completions *completions, struct loop *loop) {
    int fd, r;

    *completions = (struct completions){};
    list_init(&completions->finished);
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

void completions_deinit(struct completions *completions) {
    completions_collect(completions);
    loop_source_deinit(&completions->source);
    fd_close(completions->source.fd);
    pthread_mutex_destroy(&completions->mutex);
}

static void completions_add(struct completions *completions, struct job *job) {
    const uint64_t one = 1;

    pthread_mutex_lock(&completions->mutex);
    list_append(&completions->finished, &job->link);
    pthread_mutex_unlock(&completions->mutex);
    /* Full means readable, which is all that is wanted. */
    if (write(completions->source.fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);
}

/* --- the thread -------------------------------------------------------------------------------- */

/* The next job, or NULL when there is none and none will come. */
static struct job *take_job(struct worker *worker) {
    struct job *job;

    pthread_mutex_lock(&worker->mutex);
    while (list_is_empty(&worker->queue) && !worker->stopping)
        pthread_cond_wait(&worker->wanted, &worker->mutex);
    job = list_first(&worker->queue, struct job, link);
    if (job)
        list_unlink(&job->link);
    pthread_mutex_unlock(&worker->mutex);
    return job;
}

static void *work(void *data) {
    struct worker *worker = data;
    struct job *job;

    while ((job = take_job(worker))) {
        job->answer.ack.started = clock_now();
        job->execute(job);
        job->answer.ack.finished = clock_now();
        completions_add(worker->completions, job);
    }
    return NULL;
}

int worker_new(struct worker **workerp, struct completions *completions) {
    struct worker *worker = calloc(1, sizeof(*worker));
    int r;

    if (!worker)
        return -ENOMEM;
    worker->completions = completions;
    list_init(&worker->queue);
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_cond_init(&worker->wanted, NULL);
    r = thread_start(&worker->thread, work, worker);
    if (r < 0) {
        pthread_cond_destroy(&worker->wanted);
        pthread_mutex_destroy(&worker->mutex);
        free(worker);
        return r;
    }
    *workerp = worker;
    return 0;
}

static void worker_end(struct worker *worker) {
    pthread_mutex_lock(&worker->mutex);
    worker->stopping = true;
    pthread_cond_signal(&worker->wanted);
    pthread_mutex_unlock(&worker->mutex);
    pthread_join(worker->thread, NULL);
}

static void worker_release(struct worker *worker) {
    assert(list_is_empty(&worker->queue));
    copier_free(worker->copier);
    pthread_cond_destroy(&worker->wanted);
    pthread_mutex_destroy(&worker->mutex);
    free(worker);
}

struct worker *worker_free(struct worker *worker) {
    if (!worker)
        return NULL;
    worker_end(worker);
    completions_collect(worker->completions);
    assert(worker->n_jobs == 0);
    worker_release(worker);
    return NULL;
}

struct worker *worker_free_if_idle(struct worker *worker) {
    if (!worker || worker->n_jobs > 0)
        return worker;
    worker_end(worker);
    worker_release(worker);
    return NULL;
}

int worker_get_copier(struct worker *worker, struct copier **copierp) {
    int r = worker->copier ? 0 : copier_new(&worker->copier);

    *copierp = worker->copier;
    return r;
}

size_t worker_jobs(const struct worker *worker) {
    return worker->n_jobs;
}

void worker_queue(struct worker *worker, struct job *job) {
    job->worker = worker;
    worker->n_jobs++;
    pthread_mutex_lock(&worker->mutex);
    list_append(&worker->queue, &job->link);
    pthread_cond_signal(&worker->wanted);
    pthread_mutex_unlock(&worker->mutex);
}

void worker_retire(struct worker *worker) {
    assert(worker->n_jobs > 0);
    worker->n_jobs--;
}
