/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of `info mtree -f`: the flat view of guest-physical memory that QEMU renders for its
 * address space "memory".
 *
 * A pure function over text that nobody vouches for: lines are checked word by word, ranges must
 * rise and must not overlap or wrap, and their number is bounded.  What is not understood is
 * refused, never skipped, inside the one view that counts; other views are not looked at.
 */
#ifndef SENSORS_MACHINE_MTREE_H
#define SENSORS_MACHINE_MTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Ranges of one flat view, of any kind. */
#define MTREE_RANGES_BOUND 4096
/** Longest name of a memory region that is kept; the name of a longer one reads as empty. */
#define MTREE_NAME_BOUND 255

/** What a text can turn out to be. */
enum mtree_outcome {
    MTREE_NO_VIEW = 1,   /**< no flat view of "memory", or more than one */
    MTREE_MALFORMED = 2, /**< a line of it is not understood, or contradicts another */
    MTREE_TOO_MANY = 3,  /**< more than MTREE_RANGES_BOUND */
};

/** One range that is backed by host memory. */
struct mtree_range {
    uint64_t gpa;                    /**< guest-physical address */
    uint64_t len;                    /**< octets, never 0 */
    uint64_t offset;                 /**< offset in the memory region */
    int32_t priority;                /**< of the memory region: that of a PCI BAR is not 0 */
    bool read_only;                  /**< the guest cannot write it ("rom") */
    bool persistent;                 /**< storage, not RAM ("nv-ram", "nv-rom") */
    char name[MTREE_NAME_BOUND + 1]; /**< of the memory region */
};

/** A flat view: its "ram", "rom" and nonvolatile ranges, in rising order. */
struct mtree {
    struct mtree_range *ranges;
    size_t n_ranges;
};

/**
 * Parses a text.
 * @param tree  filled on success, to be ended with mtree_deinit(); empty on failure
 * @return 0, enum mtree_outcome, or -ENOMEM
 */
int mtree_parse(const char *text, size_t len, struct mtree *tree);

/** Frees what a tree holds. */
void mtree_deinit(struct mtree *tree);

/** Whether two ranges are the same in all they say. */
bool mtree_range_equal(const struct mtree_range *a, const struct mtree_range *b);

/** Whether two views show the same. */
bool mtree_equal(const struct mtree *a, const struct mtree *b);

#endif
