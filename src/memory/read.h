/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Executing one read: translate and copy page by page, straight from the guest's memory into a buffer.
 *
 * It is a read of the epoch that it names or none at all: epoch and canary are looked at before and
 * after.  An address that does not translate ends it; what was read before that is good.
 *
 * Any thread. What it reads of the memory context does not change; see memctx.h.
 */
#ifndef MEMORY_READ_H
#define MEMORY_READ_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/guest.h>
#include <vmibus/protocol.h>

#include "memory/memctx.h"

/**
 * Reads of up to so many octets are executed where they are received: 16 KiB take a few microseconds more than none, a
 * worker as long as the whole round trip.
 */
#define READ_SMALL 16384u

struct read {
    struct memctx *memctx;
    struct vmibus_guest_root root;  /**< the address space; levels 0: gva is a physical address */
    uint64_t gva;
    uint64_t deadline;              /**< the last nanosecond that it may begin in; util/deadline.h */
    uint32_t len;
    bool loads;                     /**< on the loop's thread */
    uint8_t *target;                /**< len octets of a buffer: for system calls only, see buffer.h */
    uint16_t end_epoch;             /**< out: reason to end the epoch for, VMIBUS_REASON_NONE if there is none */
};

/** Executes it: fills error, reason, level, value and count of the ack. Any thread, one at a time. */
void read_execute(struct read *read, struct vmibus_ack *ack);

#endif
