/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How fast a user writes: a bucket for each uid that policy gives a rate, which holds the octets of one
 * second and is filled at that rate.  A bucket that is full again says nothing and is dropped, so that
 * there are no more of them than users who have written within a second.
 *
 * The loop's thread only.
 */
#ifndef MEMORY_METER_H
#define MEMORY_METER_H

#include <stdint.h>
#include <sys/types.h>

#include "util/list.h"

/** Expected outcome of meter_take(). */
#define METER_WAIT 1

struct meters {
    struct list used;
};

/** Prepares them. */
void meters_init(struct meters *meters);

/** Forgets everybody. */
void meters_deinit(struct meters *meters);

/**
 * Takes octets out of a user's bucket. A write of more than the bucket holds passes when it is full, and leaves it empty for
 * as long as it is worth.
 * @param rate    octets per second, at least 1
 * @param now     CLOCK_MONOTONIC nanoseconds
 * @param wait_us receives with METER_WAIT the microseconds until it would pass
 * @return 0, METER_WAIT or -ENOMEM
 */
int meter_take(struct meters *meters, uid_t uid, uint64_t rate, uint64_t octets, uint64_t now, uint64_t *wait_us);

/** Nanoseconds that octets take out of a bucket of that rate. */
uint64_t meter_worth(uint64_t octets, uint64_t rate);

/**
 * Gives back what was taken for octets that were not written.
 * @param worth meter_worth() of them, at the rate they were taken at: the user's next write may have had another
 */
void meter_give_back(struct meters *meters, uid_t uid, uint64_t worth);

#endif
