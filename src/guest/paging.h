/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * x86-64 paging entries as the page walk decodes them: Intel SDM volume 3, 4.5 (tables 4-14 to
 * 4-20); AMD APM volume 2, 5.3.
 *
 * Physical addresses are taken to have 52 bits, the architecture's limit: what a guest's processor
 * supports less of, no guest RAM lies at.  NX is taken to be enabled, as every Linux does.
 */
#ifndef VMIBUS_GUEST_PAGING_H
#define VMIBUS_GUEST_PAGING_H

#include <stdint.h>

#define PAGING_PAGE_SIZE UINT64_C(4096)

#define PAGING_PRESENT (UINT64_C(1) << 0)
#define PAGING_WRITABLE (UINT64_C(1) << 1)
#define PAGING_USER (UINT64_C(1) << 2)
#define PAGING_LARGE (UINT64_C(1) << 7)      /* PS; on level 1 this bit is PAT */
#define PAGING_LARGE_PAT (UINT64_C(1) << 12) /* PAT of a large page: no part of its address */
#define PAGING_NO_EXECUTE (UINT64_C(1) << 63)

/* Where an entry, or CR3, points to. */
#define PAGING_ADDRESS UINT64_C(0x000ffffffffff000)

#define PAGING_LEVELS_MIN 4
#define PAGING_LEVELS_MAX 5
#define PAGING_LARGE_LEVEL_MAX 3 /* 1 GiB pages; above, PS is reserved */

/* The lowest bit of an address that selects an entry on a level; 1 is the page table. */
static inline unsigned int paging_shift(unsigned int level) {
    return 3 + 9 * level;
}

/* How many octets an entry on a level stands for. */
static inline uint64_t paging_size(unsigned int level) {
    return UINT64_C(1) << paging_shift(level);
}

#endif
