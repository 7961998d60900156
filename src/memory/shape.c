/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/shape.h"

#include <string.h>

#include "memory/answer.h"

#define KNOWN_FLAGS                                                                                \
    (VMIBUS_MEMWRITE_SRC_PAYLOAD | VMIBUS_MEMWRITE_SRC_BUFFER | VMIBUS_MEMWRITE_TABLE |            \
     VMIBUS_MEMWRITE_EXPECT | VMIBUS_MEMWRITE_QUIESCE | VMIBUS_MEMWRITE_DRY_RUN |                  \
     VMIBUS_MEMWRITE_READ_ONLY_PAGE | VMIBUS_MEMWRITE_PHYSICAL | VMIBUS_MEMWRITE_EXPECT_GPA)

static uint16_t refuse(struct vmibus_ack *ack, enum vmibus_reason reason, uint64_t value) {
    return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, reason, value);
}

/* A table's octets are behind it or in a buffer, never in both; without one they may be in the frame too. */
static bool are_flags_good(uint32_t flags) {
    bool follows = flags & VMIBUS_MEMWRITE_SRC_PAYLOAD, shared = flags & VMIBUS_MEMWRITE_SRC_BUFFER;

    if ((flags & ~KNOWN_FLAGS) || (follows && shared))
        return false;
    if (flags & VMIBUS_MEMWRITE_TABLE)
        return follows || shared;
    return !(flags & VMIBUS_MEMWRITE_EXPECT_GPA);
}

static uint16_t check_frame(const struct vmibus_frame *frame, struct vmibus_ack *ack) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;

    if (!are_flags_good(command->flags))
        return refuse(ack, VMIBUS_REASON_BAD_FLAGS, command->flags);
    if (frame->header.fd_count)
        return refuse(ack, VMIBUS_REASON_BAD_FDS, frame->header.fd_count);
    if ((command->flags & VMIBUS_MEMWRITE_PHYSICAL) && command->cr3)
        return refuse(ack, VMIBUS_REASON_BAD_FIELD, command->cr3);
    if ((command->flags & VMIBUS_MEMWRITE_TABLE) && command->gva)
        return refuse(ack, VMIBUS_REASON_BAD_FIELD, command->gva);
    if (command->len == 0)
        return refuse(ack, VMIBUS_REASON_BAD_LENGTH, 0);
    return 0;
}

/* Fields that the flags give no meaning are 0, so that one may be given to them. */
static uint16_t check_source(const struct vmibus_memwrite_source *source, uint32_t flags,
                             struct vmibus_ack *ack) {
    if (!(flags & VMIBUS_MEMWRITE_SRC_BUFFER) && (source->buffer || source->offset))
        return refuse(ack, VMIBUS_REASON_BAD_FIELD, source->buffer ? source->buffer : source->offset);
    if (!(flags & VMIBUS_MEMWRITE_TABLE) && source->extents)
        return refuse(ack, VMIBUS_REASON_BAD_FIELD, source->extents);
    if ((flags & VMIBUS_MEMWRITE_TABLE) &&
        (source->extents == 0 || source->extents > VMIBUS_EXTENTS_BOUND))
        return refuse(ack, VMIBUS_REASON_BAD_LENGTH, source->extents);
    return 0;
}

static struct vmibus_write_extent extent_at(const uint8_t *table, uint32_t index) {
    struct vmibus_write_extent extent;

    memcpy(&extent, table + index * sizeof(extent), sizeof(extent));
    return extent;
}

static uint16_t check_extent(const struct vmibus_write_extent *extent, struct vmibus_ack *ack) {
    uint64_t last;

    if (extent->len == 0)
        return refuse(ack, VMIBUS_REASON_BAD_LENGTH, 0);
    if (__builtin_add_overflow(extent->gva, extent->len - 1, &last))
        return refuse(ack, VMIBUS_REASON_BAD_ADDRESS, extent->gva);
    return 0;
}

/* EXTENTS_BOUND lengths of 32 bits: their sum fits 64. */
static uint16_t check_table(const struct write_shape *shape, struct vmibus_ack *ack) {
    uint64_t sum = 0;

    for (uint32_t i = 0; i < shape->n_extents; i++) {
        struct vmibus_write_extent extent = extent_at(shape->table, i);

        if (check_extent(&extent, ack))
            return ack->error;
        sum += extent.len;
    }
    return sum == shape->len ? 0 : refuse(ack, VMIBUS_REASON_BAD_LENGTH, sum);
}

uint16_t shape_parse(const struct vmibus_frame *frame, const void *tail, struct write_shape *shape,
                     struct vmibus_ack *ack) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    bool has_table = command->flags & VMIBUS_MEMWRITE_TABLE;
    bool shared = command->flags & VMIBUS_MEMWRITE_SRC_BUFFER;
    bool follows = command->flags & VMIBUS_MEMWRITE_SRC_PAYLOAD;
    struct vmibus_memwrite_source source = {};
    uint64_t before;

    _Static_assert(sizeof(source) <= sizeof(command->data), "the record lies in the frame");
    if (check_frame(frame, ack))
        return ack->error;
    if (has_table || shared) {
        memcpy(&source, command->data, sizeof(source));
        if (check_source(&source, command->flags, ack))
            return ack->error;
    }
    *shape = (struct write_shape){
        .plain = {.gva = command->gva, .len = command->len},
        .table = has_table ? tail : NULL,
        .n_extents = has_table ? source.extents : 1,
        .len = command->len,
        .expects = command->flags & VMIBUS_MEMWRITE_EXPECT,
        .buffer = source.buffer,
        .offset = source.offset,
    };
    before = source.extents * sizeof(struct vmibus_write_extent);
    if (frame->header.tail_length != before + (follows ? shape_octets(shape) : 0))
        return refuse(ack, VMIBUS_REASON_BAD_LENGTH, command->len);
    if (!shared && !follows && shape_octets(shape) > sizeof(command->data))
        return refuse(ack, VMIBUS_REASON_BAD_LENGTH, command->len);
    if (!shared)
        shape->octets = follows ? (const uint8_t *)tail + before : command->data;
    return has_table ? check_table(shape, ack) : check_extent(&shape->plain, ack);
}

struct vmibus_write_extent shape_get_extent(const struct write_shape *shape, uint32_t index) {
    return shape->table ? extent_at(shape->table, index) : shape->plain;
}

void shape_get_extents(const struct write_shape *shape, struct vmibus_write_extent *extents) {
    if (shape->table)
        memcpy(extents, shape->table, shape->n_extents * sizeof(*extents));
    else
        *extents = shape->plain;
}
