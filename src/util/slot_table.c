/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/slot_table.h"

#include <stddef.h>

int slot_table_init(struct slot_table *table, struct region *region, uint32_t n_slots) {
    size_t n_chunks = (n_slots + SLOT_TABLE_CHUNK - 1) / SLOT_TABLE_CHUNK;
    void *chunks;
    int r = region_take(region, n_chunks * sizeof(void **), &chunks);

    *table = (struct slot_table){};
    if (r)
        return r;
    table->chunks = chunks;
    table->n_slots = n_slots;
    return 0;
}

int slot_table_set(struct slot_table *table, struct region *region, uint32_t slot, void *pointer) {
    void ***chunk = &table->chunks[slot / SLOT_TABLE_CHUNK];

    if (!*chunk && pointer) {
        void *memory;
        int r = region_take(region, SLOT_TABLE_CHUNK * sizeof(void *), &memory);

        if (r)
            return r;
        *chunk = memory;
    }
    if (*chunk)
        (*chunk)[slot % SLOT_TABLE_CHUNK] = pointer;
    return 0;
}
