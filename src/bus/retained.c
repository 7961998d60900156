/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/retained.h"

int retained_kind_of(const struct vmibus_frame *frame) {
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

void retained_store(struct retained *retained, const struct vmibus_frame *frame, const void *tail) {
    struct tail *copy = frame->header.tail_length ? tail_new_retained(tail, frame->header.tail_length) : NULL;

    if (frame->header.tail_length && !copy)
        return;
    tail_unref(retained->tail);
    retained->tail = copy;
    retained->frame = *frame;
    retained->frame.header.flags |= VMIBUS_FRAME_RETAINED;
    retained->present = true;
}

void retained_clear(struct retained *retained) {
    tail_unref(retained->tail);
    *retained = (struct retained){};
}
