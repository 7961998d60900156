/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the bus tells about itself: counters, sensors, a caller's own grant. */
#ifndef BUS_QUERY_H
#define BUS_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

struct control;

struct query_answer {
    enum vmibus_error error;
    enum vmibus_reason reason;
    uint64_t value;
    uint64_t count;
    void *tail;         /**< malloc'ed, or NULL */
    size_t tail_length;
};

/** The capability that a QUERY needs (a VMIBUS_CAP_ bit); 0: none. */
uint32_t query_capability(const struct vmibus_frame *frame);

/** Answers a QUERY; fills @a answer, whose tail the caller frees. */
void query_execute(struct control *control, const struct vmibus_frame *frame, struct query_answer *answer);

#endif
