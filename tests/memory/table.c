/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/table.h"

#include <stdlib.h>
#include <string.h>

#include "harness.h"

void table_add(struct table *table, uint64_t gva, uint32_t len) {
    ck_assert_uint_lt(table->n, VMIBUS_EXTENTS_BOUND);
    table->extents[table->n++] = (struct vmibus_write_extent){.gva = gva, .len = len, .reserved = 0xdead};
    table->len += len;
}

static uint8_t *fill_source(const struct table *table, uint8_t *at) {
    if (table->flags & VMIBUS_MEMWRITE_EXPECT) {
        memset(at, table->expect, table->len);
        at += table->len;
    }
    for (uint32_t i = 0; i < table->n; i++) {
        memset(at, (uint8_t)(table->fill + i), table->extents[i].len);
        at += table->extents[i].len;
    }
    return at;
}

struct vmibus_frame table_frame(struct fixture *fixture, struct table *table) {
    struct vmibus_frame frame = frame_make(fixture, VMIBUS_KIND_CMD_MEMWRITE);
    const struct vmibus_memwrite_source source = {.extents = table->n, .reserved = 0xbeef};
    size_t records = table->n * sizeof(*table->extents);
    size_t octets = table->flags & VMIBUS_MEMWRITE_EXPECT ? 2 * (size_t)table->len : table->len;

    free(table->tail);
    /* As it comes from a socket: at no particular alignment. */
    table->tail = malloc(1 + records + octets);
    memcpy(table->tail + 1, table->extents, records);
    ck_assert_ptr_eq(fill_source(table, table->tail + 1 + records), table->tail + 1 + records + octets);
    frame.header.tail_length = (uint32_t)(records + octets);
    frame.cmd_memwrite.len = table->len;
    frame.cmd_memwrite.flags = table->flags | VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame.cmd_memwrite.token = fixture->token;
    frame.cmd_memwrite.epoch = fixture->epoch;
    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    return frame;
}

struct vmibus_ack *table_submit(struct fixture *fixture, struct table *table) {
    struct vmibus_frame frame = table_frame(fixture, table);

    return submit(&fixture->control, &frame, table->tail + 1, NULL);
}

void table_reset(struct table *table) {
    free(table->tail);
    *table = (struct table){.fill = 0x10};
}

const struct vmibus_extent_result *table_results(const struct fixture *fixture,
                                                 const struct table *table,
                                                 const struct vmibus_ack *ack) {
    const struct vmibus_frame *frame = (const void *)((const char *)ack - offsetof(struct vmibus_frame, ack));
    size_t index = (size_t)(frame - fixture->control.journal.frames);

    if (!frame->header.tail_length)
        return NULL;
    ck_assert_uint_eq(frame->header.tail_length, table->n * sizeof(struct vmibus_extent_result));
    return fixture->control.journal.tails[index];
}
