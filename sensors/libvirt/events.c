/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "events.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "caller.h"

/* Its callbacks only hand notices over, so it ends at once. */
#define END_SECONDS 5

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int prepared;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended;
static unsigned int users;
static bool running;

/* Without this libvirt prints what goes wrong. */
static void say_nothing(void *userdata, virErrorPtr error) {
    (void)userdata;
    (void)error;
}

static void prepare(void) {
    caller_condition_init(&ended);
    virSetErrorFunc(NULL, say_nothing);
    prepared = virInitialize() < 0 || virEventRegisterDefaultImpl() < 0 ? -ENOMEM : 0;
}

static bool is_wanted(void) {
    bool wanted;

    pthread_mutex_lock(&lock);
    wanted = users > 0;
    if (!wanted) {
        running = false;
        pthread_cond_broadcast(&ended);
    }
    pthread_mutex_unlock(&lock);

    return wanted;
}

static void *thread(void *data) {
    while (is_wanted() && virEventRunDefaultImpl() >= 0)
        ;
    pthread_mutex_lock(&lock);
    running = false;
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&lock);

    return data;
}

static int start(void) {
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t started;
    int r;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&started, &attributes, thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);

    return -r;
}

int events_begin(void) {
    int r = 0;

    pthread_once(&once, prepare);
    if (prepared < 0)
        return prepared;
    pthread_mutex_lock(&lock);
    if (!running)
        r = start();
    if (r == 0) {
        running = true;
        users++;
    }
    pthread_mutex_unlock(&lock);

    return r;
}

static void nudge(int timer, void *userdata) {
    (void)userdata;
    virEventRemoveTimeout(timer);
}

void events_end(void) {
    struct timespec until;
    bool last;
    int r = 0;

    pthread_mutex_lock(&lock);
    last = --users == 0;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    virEventAddTimeout(0, nudge, NULL, NULL);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += END_SECONDS;
    pthread_mutex_lock(&lock);
    while (running && users == 0 && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&ended, &lock, &until);
    pthread_mutex_unlock(&lock);
}
