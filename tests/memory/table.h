/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tables of extents: a CMD_MEMWRITE with one, made and sent piece by piece. */
#ifndef TESTS_MEMORY_TABLE_H
#define TESTS_MEMORY_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "memory/fixture.h"

/** A write being put together. The octets of extent i are all `fill + i`, and those to expect `expect`. */
struct table {
    struct vmibus_write_extent extents[VMIBUS_EXTENTS_BOUND];
    uint32_t n;
    uint32_t len;           /**< of all extents */
    uint8_t fill;
    uint8_t expect;
    uint32_t flags;         /**< besides TABLE and SRC_PAYLOAD */
    uint8_t *tail;          /**< of the last frame made */
};

/** Adds an extent. */
void table_add(struct table *table, uint64_t gva, uint32_t len);

/** The frame, with its tail in table->tail. */
struct vmibus_frame table_frame(struct fixture *fixture, struct table *table);

/** Sends it and waits for the ACK. */
struct vmibus_ack *table_submit(struct fixture *fixture, struct table *table);

/** Frees the tail and forgets everything. */
void table_reset(struct table *table);

/** The results that came with an ACK, which must be as many as extents; NULL if there are none. */
const struct vmibus_extent_result *table_results(const struct fixture *fixture,
                                                 const struct table *table,
                                                 const struct vmibus_ack *ack);

#endif
