/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Threads of ours inside somebody's process: signals are not for them. */
#ifndef UTIL_THREAD_H
#define UTIL_THREAD_H

#include <pthread.h>

/**
 * Starts a thread in which every signal is blocked: they are for the threads of whoever owns the process, and ours takes
 * them by signalfd.
 * @return 0 or a negative errno
 */
int thread_start(pthread_t *thread, void *(*function)(void *argument), void *argument);

#endif
