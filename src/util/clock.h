/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one clock of the product: CLOCK_MONOTONIC in nanoseconds (vDSO, no system call). */
#ifndef UTIL_CLOCK_H
#define UTIL_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/** CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t clock_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

#endif
