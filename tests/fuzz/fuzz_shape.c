/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the shapes of CMD_MEMWRITE.  The input is a frame's body (64 octets), then its tail, whose
 * length is the header's.  What is accepted is all within the input, and is what it says.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "memory/shape.h"

static void require(int good) {
    if (!good)
        abort();
}

static void check_extents(const struct write_shape *shape) {
    struct vmibus_write_extent *extents = malloc(shape->n_extents * sizeof(*extents));
    uint64_t sum = 0;

    require(extents != NULL);
    shape_get_extents(shape, extents);
    for (uint32_t i = 0; i < shape->n_extents; i++) {
        struct vmibus_write_extent extent = shape_get_extent(shape, i);

        require(memcmp(&extent, &extents[i], sizeof(extent)) == 0);
        require(extent.len > 0 && extent.gva + (extent.len - 1) >= extent.gva);
        sum += extent.len;
    }
    require(sum == shape->len);
    free(extents);
}

static void check(const struct vmibus_frame *frame, const uint8_t *tail, const struct write_shape *shape) {
    const uint8_t *inline_octets = frame->cmd_memwrite.data, *octets = shape->octets;
    uint64_t n = shape_octets(shape);

    require(shape->n_extents > 0 && shape->n_extents <= VMIBUS_EXTENTS_BOUND && shape->len == frame->cmd_memwrite.len);
    check_extents(shape);
    if (!octets) {
        require(frame->cmd_memwrite.flags & VMIBUS_MEMWRITE_SRC_BUFFER);
        return;
    }
    if (octets == inline_octets)
        require(n <= sizeof(frame->cmd_memwrite.data) && frame->header.tail_length == 0);
    else
        require(octets >= tail && octets + n == tail + frame->header.tail_length);
}

FUZZ_TARGET(shape) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_MEMWRITE}};
    struct vmibus_ack ack = {};
    struct write_shape shape;
    const size_t body = sizeof(frame) - sizeof(frame.header);
    uint8_t *tail;

    if (size < body)
        return 0;
    memcpy((uint8_t *)&frame + sizeof(frame.header), data, body);
    frame.header.tail_length = (uint32_t)(size - body);
    /* Of its own, at no alignment, and no octet longer. */
    tail = malloc(size - body + 1);
    require(tail != NULL);
    memcpy(tail + 1, data + body, size - body);
    if (shape_parse(&frame, tail + 1, &shape, &ack) == 0)
        check(&frame, tail + 1, &shape);
    else
        require(ack.error == VMIBUS_ERROR_VALIDATION && ack.reason != 0);
    free(tail);
    return 0;
}
