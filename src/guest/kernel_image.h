/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The short way to a note: from a vCPU's top page table to the data of the kernel that it maps, and
 * from there to the page that the kernel keeps its note in.
 *
 * Linux writes the text of the note into a page of its own and keeps that page's address, in the
 * direct map, in a variable (vmcoreinfo_data: kernel/crash_core.c, kernel/vmcore_info.c since 6.9).
 * The variable lies in the image, whose area is the same at every KASLR displacement; where the
 * direct map begins is random, and need not be known: the vCPU's own tables translate it.
 *
 * What is found is a claim, to be proven by whoever asked.  The cost does not grow with RAM: it is
 * that of the image's writable pages, and a guest that makes them many, or fills them with pointers,
 * uses up a budget and no more.
 */
#ifndef VMIBUS_GUEST_KERNEL_IMAGE_H
#define VMIBUS_GUEST_KERNEL_IMAGE_H

#include <vmibus/guest.h>

/* Where the image of a kernel is mapped: Linux Documentation/arch/x86/x86_64/mm.rst. */
#define KERNEL_IMAGE_BEGIN UINT64_C(0xffffffff80000000)
#define KERNEL_IMAGE_SIZE UINT64_C(0x40000000)

/* Octets that are read at most; of a Debian kernel it takes 8 MiB (measured, 6.1). */
#define KERNEL_IMAGE_OCTETS_MAX (UINT64_C(64) << 20)
/* Pointers that are followed at most; of a Debian kernel it takes 75 (measured, 6.1). */
#define KERNEL_IMAGE_POINTERS_MAX 16384u
/* Pages that begin as a note does, and are judged, at most. */
#define KERNEL_IMAGE_CLAIMS_MAX 64u
/* Images that are told apart, at most: a vCPU more looks at one again. */
#define KERNEL_IMAGE_SEEN_MAX 16u

/** What all vCPUs of a search may cost together, and what they have looked at. */
struct kernel_image_budget {
    uint64_t octets;
    uint32_t pointers;
    uint32_t claims;
    uint64_t seen[KERNEL_IMAGE_SEEN_MAX]; /* tables that map an image: one for all processes of a kernel */
    size_t n_seen;
};

#define KERNEL_IMAGE_BUDGET \
    {.octets = KERNEL_IMAGE_OCTETS_MAX, .pointers = KERNEL_IMAGE_POINTERS_MAX, .claims = KERNEL_IMAGE_CLAIMS_MAX}

/** Judges the page at @a gpa: 0 ends the search, VMIBUS_GUEST_UNPROVEN goes on, all else ends it. */
typedef int (*kernel_image_claim_fn)(void *context, uint64_t gpa);

/**
 * Follows what the data of an image point to.
 * @param root    a vCPU's top page table; of no use on the user half of page-table isolation, and
 *                cheap there
 * @param budget  what is left; diminished
 * @return what @a claim ended it with; VMIBUS_GUEST_UNPROVEN if nothing did; or a negative errno
 */
int kernel_image_search(struct vmibus_guest_ram *ram, struct vmibus_guest_root root,
                        struct kernel_image_budget *budget, kernel_image_claim_fn claim, void *context);

#endif
