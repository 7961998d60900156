/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pointers by slot number, in a region: found in two steps, and no larger than the slots in use ask for, so
 * that a connection on a bus with room for many endpoints pays for those it has to do with.
 */
#ifndef UTIL_SLOT_TABLE_H
#define UTIL_SLOT_TABLE_H

#include <stdint.h>

#include "util/region.h"

#define SLOT_TABLE_CHUNK 64u

struct slot_table {
    void ***chunks;     /**< of SLOT_TABLE_CHUNK pointers; NULL where none was ever set */
    uint32_t n_slots;
};

/** Prepares a table for slots below @a n_slots, at most 65537. It ends with the region. As region_take(). */
int slot_table_init(struct slot_table *table, struct region *region, uint32_t n_slots);

/** Sets a slot's pointer; NULL clears it. As region_take(); clearing never fails. */
int slot_table_set(struct slot_table *table, struct region *region, uint32_t slot, void *pointer);

/** A slot's pointer, or NULL; also for a slot beyond the table, and in a table of zeros. */
static inline void *slot_table_get(const struct slot_table *table, uint32_t slot) {
    void **chunk = slot < table->n_slots ? table->chunks[slot / SLOT_TABLE_CHUNK] : NULL;

    return chunk ? chunk[slot % SLOT_TABLE_CHUNK] : NULL;
}

#endif
