/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/retained.h"

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
