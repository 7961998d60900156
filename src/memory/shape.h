/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shapes of a CMD_MEMWRITE: one extent or a table of them, its octets in the frame, behind it, or in
 * a buffer, with octets to compare with before them or not.  Here a command becomes one shape: extents,
 * and where their octets are.
 *
 * Everything is checked against everything else that the command says, so that whoever takes a shape
 * need not: lengths are not 0 and their sum is what the frame says, addresses do not wrap, a tail holds
 * exactly what it must.  Decoded are the frame and the records write_extent and memwrite_source of
 * vmibus-protocol(7).
 */
#ifndef MEMORY_SHAPE_H
#define MEMORY_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

struct write_shape {
    struct vmibus_write_extent plain;   /**< the one extent of a command without a table */
    const uint8_t *table;               /**< NULL: none; n_extents records, not aligned */
    uint32_t n_extents;                 /**< at least 1 */
    uint32_t len;                       /**< octets of all extents, at least 1 */
    bool expects;                       /**< as many octets to compare with come before them */
    const uint8_t *octets;              /**< where they are; NULL: in a buffer */
    uint32_t buffer;                    /**< which buffer */
    uint64_t offset;                    /**< where in the buffer they begin */
};

/** Octets to compare with and to write, together. */
static inline uint64_t shape_octets(const struct write_shape *shape) {
    return (uint64_t)shape->len << shape->expects;
}

/**
 * Finds out the shape of a CMD_MEMWRITE.
 * @param tail  header.tail_length octets; borrowed, as is the frame: the shape points into them
 * @param shape filled, where the command is good
 * @return 0, or VALIDATION with its reason in @a ack: BAD_FLAGS, BAD_FIELD, BAD_FDS, BAD_LENGTH (value is
 *         the length or the number of extents that is wrong), BAD_ADDRESS (value is the address)
 */
uint16_t shape_parse(const struct vmibus_frame *frame, const void *tail, struct write_shape *shape,
                     struct vmibus_ack *ack);

/** One extent, below n_extents. */
struct vmibus_write_extent shape_get_extent(const struct write_shape *shape, uint32_t index);

/** Copies the extents out, n_extents of them. */
void shape_get_extents(const struct write_shape *shape, struct vmibus_write_extent *extents);

#endif
