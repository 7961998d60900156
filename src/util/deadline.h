/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When a command is too late: it is executed up to and including its deadline, and never past it.  Timestamp
 * and deadline are the sender's, so their sum saturates: a deadline beyond the end of time never passes.
 */
#ifndef UTIL_DEADLINE_H
#define UTIL_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/clock.h"

/** A deadline that never passes. */
#define DEADLINE_NONE UINT64_MAX

/** A command's deadline, CLOCK_MONOTONIC nanoseconds; DEADLINE_NONE if it has none. */
static inline uint64_t deadline_of(const struct vmibus_header *header) {
    uint64_t deadline;

    if (header->deadline_us == 0 ||
        __builtin_add_overflow(header->timestamp, header->deadline_us * NS_PER_US, &deadline))
        return DEADLINE_NONE;
    return deadline;
}

/** Whether a command is too late to be executed. @param now CLOCK_MONOTONIC nanoseconds */
static inline bool deadline_has_passed(const struct vmibus_header *header, uint64_t now) {
    return now > deadline_of(header);
}

#endif
