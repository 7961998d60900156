/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an address space maps, from one address on: page tables are read whole, so that stretches where nothing is mapped
 * cost one entry of whatever level says so.
 *
 * The tables may say anything: all that is mapped may be one page, 2^48 octets of it.  So looking is work, which is
 * bounded, and the address is all that has to be kept to go on.  A table that was read is believed until
 * tables_forget(), which is called before each portion of work.
 */
#ifndef VMIBUS_GUEST_TABLES_H
#define VMIBUS_GUEST_TABLES_H

#include <vmibus/guest.h>

#include <stdbool.h>

/* Memory that adjoins in the address space and in RAM. */
struct place {
    uint64_t address;
    uint64_t gpa;
    uint64_t len;
};

struct tables {
    struct vmibus_guest_reader reader;
    struct vmibus_guest_root root;
    struct table {
        bool is_known;
        uint64_t gpa;
        uint64_t first; /* address that its first entry stands for */
        uint64_t entries[512];
    } levels[5]; /* 0: the page tables */
};

/** Forgets what was read. */
void tables_forget(struct tables *tables);

/**
 * What is mapped at or after an address.
 * @param address where to begin; receives how far was looked, if the work ended
 * @param last    the last address that counts
 * @param work    octets that may be read and looked at, roughly; at least one table of each level is
 * @return 0, VMIBUS_GUEST_NOT_FOUND, VMIBUS_GUEST_UNFINISHED, or a negative errno
 */
int tables_next(struct tables *tables, uint64_t *address, uint64_t last, struct place *place,
                uint64_t *work);

/** How far an address is on the way from first to last, by the entries that are present: 0 to 1. */
double tables_progress(const struct tables *tables, uint64_t first, uint64_t last, uint64_t address);

#endif
