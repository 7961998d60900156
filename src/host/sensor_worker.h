/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread for one sensor's blocking work, started with the first piece of it.  Work runs in order;
 * the end of each piece is told on the loop, through an eventfd.
 */
#ifndef HOST_SENSOR_WORKER_H
#define HOST_SENSOR_WORKER_H

#include <pthread.h>
#include <stdbool.h>

#include "util/list.h"
#include "util/loop.h"

struct sensor_worker {
    struct loop *loop;
    struct loop_source done_source;
    pthread_t thread;
    bool started;
    int event_fd;
    pthread_mutex_t lock;       /**< guards what follows */
    pthread_cond_t wakeup;
    struct list todo;
    struct list done;
    bool stopping;
};

/** Prepares a worker; no thread yet. */
void sensor_worker_init(struct sensor_worker *worker, struct loop *loop);

/** Waits for the piece that runs, drops the others, ends the thread. */
void sensor_worker_deinit(struct sensor_worker *worker);

/** Has @a work run on the thread, then @a done on the loop. 0 or a negative errno. */
int sensor_worker_run(struct sensor_worker *worker, void (*work)(void *data), void (*done)(void *data), void *data);

#endif
