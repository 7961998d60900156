/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/thread.h"

#include <signal.h>

int thread_start(pthread_t *thread, void *(*function)(void *argument), void *argument) {
    sigset_t all, before;
    int r;

    sigfillset(&all);
    /* It comes to the thread that caused it, and one that cannot be taken ends the process without a word. */
    sigdelset(&all, SIGSYS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(thread, NULL, function, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}
