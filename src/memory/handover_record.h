/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of handover.c and what they share: each file saves and restores the objects of one subject, and has the numbers
 * of their records.  A function that takes a record notes in its handover what is wrong with it.
 */
#ifndef MEMORY_HANDOVER_RECORD_H
#define MEMORY_HANDOVER_RECORD_H

#include <stdint.h>

#include "memory/handover.h"

struct memory_endpoint;

#define PUT(writer, table, object) handover_put_members((writer), (table), HANDOVER_N(table), (object))
#define TAKE(record, table, object) handover_take_member((record), (table), HANDOVER_N(table), (object))

/** Writes a context, or its place if it was written before. */
void memctx_put(struct authority_handover *handover, struct handover_writer *writer, uint16_t tag, struct memctx *memctx);

/** Reads one, borrowed from the handover. NULL: something was wrong. */
struct memctx *memctx_take(struct authority_handover *handover, const struct handover_record *record);

/** An endpoint with its identity, fences and context. */
void memory_endpoint_put(struct authority_handover *handover, struct handover_writer *writer, uint16_t tag,
                           const struct memory_endpoint *endpoint);
void memory_endpoint_take(struct authority_handover *handover, const struct handover_record *record);

#endif
