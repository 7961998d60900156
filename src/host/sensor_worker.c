/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/sensor_worker.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"
#include "util/thread.h"

VMIBUS_SYSCALLS("eventfd2")

struct job {
    struct list link;
    void (*work)(void *data);
    void (*done)(void *data);
    void *data;
};

static void jobs_free(struct list *jobs) {
    while (!list_is_empty(jobs)) {
        struct job *job = list_first(jobs, struct job, link);

        list_unlink(&job->link);
        free(job);
    }
}

static void *worker_main(void *argument) {
    struct sensor_worker *worker = argument;
    const uint64_t one = 1;

    pthread_mutex_lock(&worker->lock);
    for (;;) {
        struct job *job;

        while (!worker->stopping && list_is_empty(&worker->todo))
            pthread_cond_wait(&worker->wakeup, &worker->lock);
        if (worker->stopping)
            break;
        job = list_first(&worker->todo, struct job, link);
        list_unlink(&job->link);
        pthread_mutex_unlock(&worker->lock);
        job->work(job->data);
        pthread_mutex_lock(&worker->lock);
        list_append(&worker->done, &job->link);
        (void)!write(worker->event_fd, &one, sizeof(one));
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

static void hand_on(struct loop_source *source, uint32_t events) {
    struct sensor_worker *worker = container_of(source, struct sensor_worker, done_source);
    struct list batch;
    uint64_t value;

    (void)events;
    if (read(source->fd, &value, sizeof(value)) < 0)
        return;
    list_init(&batch);
    pthread_mutex_lock(&worker->lock);
    if (!list_is_empty(&worker->done)) {
        list_insert_between(&batch, worker->done.previous, worker->done.next);
        list_init(&worker->done);
    }
    pthread_mutex_unlock(&worker->lock);
    while (!list_is_empty(&batch)) {
        struct job *job = list_first(&batch, struct job, link);

        list_unlink(&job->link);
        job->done(job->data);
        free(job);
    }
}

void sensor_worker_init(struct sensor_worker *worker, struct loop *loop) {
    *worker = (struct sensor_worker){.loop = loop, .event_fd = -1};
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->wakeup, NULL);
    list_init(&worker->todo);
    list_init(&worker->done);
}

void sensor_worker_deinit(struct sensor_worker *worker) {
    if (worker->started) {
        pthread_mutex_lock(&worker->lock);
        worker->stopping = true;
        pthread_cond_signal(&worker->wakeup);
        pthread_mutex_unlock(&worker->lock);
        pthread_join(worker->thread, NULL);
    }
    jobs_free(&worker->todo);
    jobs_free(&worker->done);
    loop_source_deinit(&worker->done_source);
    worker->event_fd = fd_close(worker->event_fd);
    pthread_cond_destroy(&worker->wakeup);
    pthread_mutex_destroy(&worker->lock);
}

static int start(struct sensor_worker *worker) {
    int r;

    worker->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->event_fd < 0)
        return -errno;
    r = loop_source_init(&worker->done_source, worker->loop, worker->event_fd, EPOLLIN, hand_on);
    if (r == 0)
        r = thread_start(&worker->thread, worker_main, worker);
    if (r < 0) {
        loop_source_deinit(&worker->done_source);
        worker->event_fd = fd_close(worker->event_fd);
        return r;
    }
    worker->started = true;
    return 0;
}

int sensor_worker_run(struct sensor_worker *worker, void (*work)(void *data), void (*done)(void *data), void *data) {
    struct job *job;
    int r;

    if (!worker->started) {
        r = start(worker);
        if (r < 0)
            return r;
    }
    job = malloc(sizeof(*job));
    if (!job)
        return -ENOMEM;
    *job = (struct job){.work = work, .done = done, .data = data};
    pthread_mutex_lock(&worker->lock);
    list_append(&worker->todo, &job->link);
    pthread_cond_signal(&worker->wakeup);
    pthread_mutex_unlock(&worker->lock);
    return 0;
}
