/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an address space maps; see tables.h. */
#include "tables.h"

#include <errno.h>

#include "walk.h"

#define ENTRIES 512u
#define TABLE_SIZE (ENTRIES * sizeof(uint64_t))
#define TURN 64u /* work of going down once */
#define MERGED_MAX (UINT64_C(1) << 30)

void tables_forget(struct tables *tables) {
    for (unsigned int i = 0; i < sizeof(tables->levels) / sizeof(tables->levels[0]); i++)
        tables->levels[i].is_known = false;
}

static void take_off(uint64_t *work, uint64_t n) {
    *work -= *work < n ? *work : n;
}

/* The octets that all entries of a table stand for. */
static uint64_t span_of(unsigned int level) {
    return paging_size(level) * ENTRIES;
}

/* 0, or positive where there is no table to read: a table of which a part is not RAM is none. */
static int read_table(struct tables *tables, unsigned int level, uint64_t gpa, uint64_t address,
                      uint64_t *work) {
    struct table *table = &tables->levels[level - 1];
    uint64_t first = address & ~(span_of(level) - 1);
    int r;

    if (table->is_known && table->gpa == gpa && table->first == first)
        return 0;
    table->is_known = false;
    take_off(work, TABLE_SIZE);
    r = tables->reader.read(tables->reader.context, gpa, table->entries, TABLE_SIZE);
    if (r == -EIO)
        return VMIBUS_GUEST_TRUNCATED;
    if (r != 0)
        return r;
    table->is_known = true;
    table->gpa = gpa;
    table->first = first;
    return 0;
}

static bool leads_somewhere(uint64_t entry, unsigned int level) {
    return entry & PAGING_PRESENT && !(walk_is_leaf(entry, level) && walk_leaf_is_reserved(entry, level));
}

/* The first entry from that of the address on that leads somewhere; ENTRIES if none does. */
static unsigned int find_entry(const struct table *table, unsigned int level, uint64_t address) {
    unsigned int i = (unsigned int)(address >> paging_shift(level) & (ENTRIES - 1));

    while (i < ENTRIES && !leads_somewhere(table->entries[i], level))
        i++;
    return i;
}

/* Pages that follow each other in both respects are one place. */
static void find_length(const struct table *table, unsigned int level, unsigned int i, struct place *place) {
    uint64_t size = paging_size(level), next = place->gpa - place->address % size + size;

    place->len = size - place->address % size;
    while (++i < ENTRIES && place->len < MERGED_MAX) {
        uint64_t entry = table->entries[i];

        if (!leads_somewhere(entry, level) || !walk_is_leaf(entry, level) || walk_leaf_address(entry, level) != next)
            break;
        place->len += size;
        next += size;
    }
}

/* The first address of an entry. From the lower half, the top table leads to the upper one. */
static uint64_t place_of_entry(const struct tables *tables, unsigned int level, uint64_t address, unsigned int i) {
    unsigned int unused = 64 - paging_shift(tables->root.levels + 1);
    uint64_t first = (address & ~(span_of(level) - 1)) + i * paging_size(level);

    return (uint64_t)((int64_t)(first << unused) >> unused);
}

/*
 * Goes down once from the top. Returns 0 with a place; else the address moved on, behind what is not mapped; NOT_FOUND: it
 * would have wrapped; a negative errno.
 */
static int go_down(struct tables *tables, uint64_t *address, struct place *place, uint64_t *work) {
    uint64_t gpa = tables->root.cr3 & PAGING_ADDRESS;

    for (unsigned int level = tables->root.levels;; level--) {
        const struct table *table = &tables->levels[level - 1];
        int r = read_table(tables, level, gpa, *address, work);
        unsigned int i;

        if (r < 0)
            return r;
        i = r > 0 ? ENTRIES : find_entry(table, level, *address);
        if (i == ENTRIES) {
            *address = (*address | (span_of(level) - 1)) + 1;
            return *address ? VMIBUS_GUEST_UNFINISHED : VMIBUS_GUEST_NOT_FOUND;
        }
        if (i != (*address >> paging_shift(level) & (ENTRIES - 1)))
            *address = place_of_entry(tables, level, *address, i);
        if (walk_is_leaf(table->entries[i], level)) {
            place->address = *address;
            place->gpa = walk_leaf_address(table->entries[i], level) | (*address & (paging_size(level) - 1));
            find_length(table, level, i, place);
            return 0;
        }
        gpa = table->entries[i] & PAGING_ADDRESS;
    }
}

/* Addresses of the hole that is not canonical have their first entry half a space later. */
static uint64_t canonical_from(uint64_t address, unsigned int levels) {
    return walk_is_canonical(address, levels) ? address : -(span_of(levels) / 2);
}

int tables_next(struct tables *tables, uint64_t *address, uint64_t last, struct place *place,
                uint64_t *work) {
    int r;

    do {
        *address = canonical_from(*address, tables->root.levels);
        if (*address > last)
            return VMIBUS_GUEST_NOT_FOUND;
        take_off(work, TURN);
        r = go_down(tables, address, place, work);
        if (r != VMIBUS_GUEST_UNFINISHED)
            break;
    } while (*work > 0);
    if (r != 0)
        return r;
    if (place->address > last)
        return VMIBUS_GUEST_NOT_FOUND;
    if (place->len - 1 > last - place->address)
        place->len = last - place->address + 1;
    return 0;
}

/* The entries of a table that lie between two addresses. */
static void count_entries(const struct table *table, unsigned int level, uint64_t first, uint64_t last,
                          uint64_t address, double *before, double *all) {
    uint64_t mask = span_of(level) - 1;
    uint64_t low = first > table->first ? (first & mask) >> paging_shift(level) : 0;
    uint64_t high = last - table->first < mask ? (last & mask) >> paging_shift(level) : ENTRIES - 1;
    uint64_t here = (address & mask) >> paging_shift(level);

    *before = *all = 0;
    for (uint64_t i = low; i <= high; i++)
        if (leads_somewhere(table->entries[i], level)) {
            *all += 1;
            *before += i < here;
        }
}

double tables_progress(const struct tables *tables, uint64_t first, uint64_t last, uint64_t address) {
    double done = 0, share = 1;

    for (unsigned int level = tables->root.levels; level > 0; level--) {
        const struct table *table = &tables->levels[level - 1];
        double before, all;

        if (!table->is_known || address - table->first >= span_of(level))
            break;
        count_entries(table, level, first, last, address, &before, &all);
        if (all == 0)
            break;
        done += share * before / all;
        share /= all;
    }
    return done;
}
