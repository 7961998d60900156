/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest RAM in a sealed memfd, with page tables and pages at random places, as a guest that runs for a while has them. */
#ifndef BENCH_FAKE_TABLES_H
#define BENCH_FAKE_TABLES_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest.h>

#define FAKE_PAGE UINT64_C(4096)

struct fake_tables {
    int fd;
    uint8_t *memory;    /**< the memfd, mapped for writing */
    uint64_t size;      /**< octets, a multiple of the page */
    uint64_t *free;     /**< gpas that are not used, shuffled */
    size_t n_free;
    uint64_t seed;
};

/** Makes RAM, with data in all of it. 0 or a negative errno; fake_tables_deinit() either way. */
int fake_tables_init(struct fake_tables *tables, uint64_t size);

void fake_tables_deinit(struct fake_tables *tables);

/** A number that looks random, the same in each run. */
uint64_t fake_tables_random(struct fake_tables *tables);

/** Takes a page that is not used and zeroes it. */
uint64_t fake_tables_page(struct fake_tables *tables);

/** Maps a page of 4 KiB. */
void fake_tables_map(struct fake_tables *tables, const struct vmibus_guest_root *root, uint64_t gva, uint64_t gpa);

/** Eight octets of RAM. */
static inline uint64_t *fake_tables_at(const struct fake_tables *tables, uint64_t gpa) {
    return (uint64_t *)(void *)(tables->memory + gpa);
}

#endif
