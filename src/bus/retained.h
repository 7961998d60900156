/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Retained state: the last word on each thing that a late subscriber must be told.  It is kept by
 * value in the endpoint, so that keeping it can never fail for want of event blocks.
 */
#ifndef BUS_RETAINED_H
#define BUS_RETAINED_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/event.h"

enum retained_kind {
    RETAINED_ROSTER,
    RETAINED_LIFECYCLE,
    RETAINED_MEMCTX, /**< the MEMCTX, or the INVALIDATED that ended it */
    RETAINED_LEASE_INPUT,
    RETAINED_LEASE_POWER,
    RETAINED_LEASE_MEMWRITE,
    N_RETAINED,
};

struct retained {
    bool present;
    struct vmibus_frame frame;
    struct tail *tail;
};

/** What kind of retained state a frame is; -1: none. */
static inline int retained_kind_of(const struct vmibus_frame *frame) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_ROSTER:
        return RETAINED_ROSTER;
    case VMIBUS_KIND_LIFECYCLE:
        return RETAINED_LIFECYCLE;
    case VMIBUS_KIND_MEMCTX:
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        return RETAINED_MEMCTX;
    case VMIBUS_KIND_LEASE:
        return RETAINED_LEASE_INPUT + frame->lease.lease_class - VMIBUS_LEASE_CLASS_INPUT;
    default:
        return -1;
    }
}

/** Keeps a copy of the frame and its tail (header.tail_length octets); out of memory, the last one stays. */
void retained_store(struct retained *retained, const struct vmibus_frame *frame, const void *tail);

/** Forgets it. */
void retained_clear(struct retained *retained);

#endif
