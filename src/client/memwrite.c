/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes into guest memory: which shape of CMD_MEMWRITE a write comes in, and what its results are. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/client.h>

#define SOURCE_FLAGS (VMIBUS_MEMWRITE_SRC_PAYLOAD | VMIBUS_MEMWRITE_SRC_BUFFER | VMIBUS_MEMWRITE_TABLE)

/* With EXPECT, the octets to compare with precede those to write. */
static uint64_t octets_of(const struct vmibus_write *write, uint64_t len) {
    return write->flags & VMIBUS_MEMWRITE_EXPECT ? 2 * len : len;
}

static void frame_init(struct vmibus_frame *frame, const struct vmibus_endpoint *endpoint, const struct vmibus_write *write,
                       uint32_t n_extents) {
    const struct vmibus_memwrite_source source = {
        .buffer = write->buffer ? write->buffer->number : 0,
        .extents = n_extents,
        .offset = write->buffer ? write->offset : 0,
    };

    vmibus_command_init(frame, VMIBUS_KIND_CMD_MEMWRITE, endpoint);
    frame->cmd_memwrite.cr3 = write->cr3;
    frame->cmd_memwrite.token = write->token;
    frame->cmd_memwrite.epoch = write->epoch;
    frame->cmd_memwrite.flags = write->flags & ~SOURCE_FLAGS;
    if (write->buffer)
        frame->cmd_memwrite.flags |= VMIBUS_MEMWRITE_SRC_BUFFER;
    if (write->buffer || n_extents)
        memcpy(frame->cmd_memwrite.data, &source, sizeof(source));
}

int vmibus_memwrite(struct vmibus *bus, const struct vmibus_endpoint *endpoint, const struct vmibus_write *write,
                    struct vmibus_message *reply) {
    size_t length = write->buffer ? 0 : (size_t)octets_of(write, write->len);
    bool is_inline = length <= VMIBUS_MEMWRITE_INLINE;
    struct vmibus_frame frame;

    frame_init(&frame, endpoint, write, 0);
    frame.cmd_memwrite.gva = write->gva;
    frame.cmd_memwrite.len = write->len;
    if (is_inline && length)
        memcpy(frame.cmd_memwrite.data, write->data, length);
    else if (!is_inline)
        frame.cmd_memwrite.flags |= VMIBUS_MEMWRITE_SRC_PAYLOAD;
    return vmibus_call(bus, &frame, is_inline ? NULL : write->data, is_inline ? 0 : length, reply);
}

/* --- tables ------------------------------------------------------------------------------------ */

/* The tail, in one piece: the table, and behind it the octets, if they are not in a buffer. */
static int make_tail(const struct vmibus_write *write, const struct vmibus_write_extent *extents, size_t n_extents, uint64_t len,
                     uint8_t **tailp, size_t *lengthp) {
    size_t table = n_extents * sizeof(*extents), octets = write->buffer ? 0 : (size_t)octets_of(write, len);
    uint8_t *tail = malloc(table + octets);

    if (!tail)
        return -ENOMEM;
    memcpy(tail, extents, table);
    if (octets)
        memcpy(tail + table, write->data, octets);
    *tailp = tail;
    *lengthp = table + octets;
    return 0;
}

/* A refusal that looked at no extent is the answer for each. */
static void fill_results(struct vmibus_extent_result *results, size_t n_extents, const struct vmibus_message *answer) {
    const struct vmibus_ack *ack = &answer->frame.ack;

    for (size_t i = 0; !answer->tail && i < n_extents; i++) {
        results[i].error = ack->error;
        results[i].reason = ack->reason;
        results[i].value = ack->value;
    }
    if (answer->tail)
        memcpy(results, answer->tail, n_extents * sizeof(*results));
}

static int call_table(struct vmibus *bus, struct vmibus_frame *frame, const void *tail, size_t length, size_t n_extents,
                      struct vmibus_extent_result *results, struct vmibus_message *answer) {
    int r = vmibus_call(bus, frame, tail, length, answer);

    if (r < 0)
        return r;
    if (answer->tail && answer->frame.header.tail_length != n_extents * sizeof(*results)) {
        vmibus_message_deinit(answer);
        return -EPROTO;
    }
    if (results)
        fill_results(results, n_extents, answer);
    return r;
}

int vmibus_memwrite_table(struct vmibus *bus, const struct vmibus_endpoint *endpoint, const struct vmibus_write *write,
                          const struct vmibus_write_extent *extents, size_t n_extents, struct vmibus_extent_result *results,
                          struct vmibus_message *reply) {
    struct vmibus_message answer = {};
    struct vmibus_frame frame;
    uint8_t *tail = NULL;
    size_t length = 0;
    uint64_t len = 0;
    int r;

    if (reply)
        *reply = answer;
    if (results)
        memset(results, 0, n_extents * sizeof(*results));
    if (n_extents == 0)
        return -EINVAL;
    for (size_t i = 0; i < n_extents && n_extents <= VMIBUS_EXTENTS_BOUND; i++)
        len += extents[i].len;
    if (n_extents > VMIBUS_EXTENTS_BOUND || len > UINT32_MAX ||
        (!write->buffer && octets_of(write, len) > vmibus_get_welcome(bus)->tail_bound))
        return -EMSGSIZE;
    r = make_tail(write, extents, n_extents, len, &tail, &length);
    if (r < 0)
        return r;
    frame_init(&frame, endpoint, write, (uint32_t)n_extents);
    frame.cmd_memwrite.len = (uint32_t)len;
    frame.cmd_memwrite.flags |= VMIBUS_MEMWRITE_TABLE | (write->buffer ? 0u : VMIBUS_MEMWRITE_SRC_PAYLOAD);
    r = call_table(bus, &frame, tail, length, n_extents, results, &answer);
    free(tail);
    if (reply)
        *reply = answer;
    else
        vmibus_message_deinit(&answer);
    return r;
}
