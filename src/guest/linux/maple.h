/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The maple tree, which kernels from 6.1 on keep an address space's areas in (Linux include/linux/maple_tree.h,
 * lib/maple_tree.c).
 *
 * A tree maps ranges of 64-bit indices to pointers. Readers do not lock it: nodes are replaced, and one that was replaced
 * says so by being its own parent. So nothing is remembered of the way to a leaf: whoever goes on to the next leaf begins at the
 * root, with the first index that was not seen. That also bounds the walk: a descent has no more steps than a tree has
 * levels, and each ends in a leaf that holds the index that was asked for.
 */
#ifndef GUEST_LINUX_MAPLE_H
#define GUEST_LINUX_MAPLE_H

#include "kernel.h"

/** Octets of a node, and what its address is a multiple of (MAPLE_NODE_MASK). */
#define MAPLE_NODE_SIZE 256

/** Where members lie. */
struct maple_fields {
    struct linux_field node_parent;
    struct linux_field range_pivots, range_slots;   /**< of nodes with ranges, and of leaves */
    struct linux_field arange_pivots, arange_slots; /**< of nodes that know the gaps beneath */
};

/** The leaf that was read last; zeroed at first. */
struct maple_cursor {
    uint64_t min, max; /**< indices that it is for; max < min: there is none */
    bool has_leaf;
    uint8_t leaf[MAPLE_NODE_SIZE];
};

/** An entry of a tree. */
struct maple_entry {
    uint64_t first, last; /**< its range, inclusive */
    uint64_t value;
};

/** Looks up where members lie. 0, UNPROVEN or a negative errno. */
int maple_fields_resolve(struct vmibus_linux *kernel, struct maple_fields *fields);

/**
 * Finds the first entry whose range ends at or after an index.
 * @param root_gva  address of the tree's root pointer (struct maple_tree, ma_root)
 * @param cursor    the caller's; between calls the guest may have changed the tree: a leaf is used as long as it has
 *                  entries
 * @return 0; NOT_FOUND: there is none; CHANGED: a node was replaced meanwhile, ask again; UNPROVEN: it contradicts
 *         itself; another result of reading, or a negative errno
 */
int maple_next(struct vmibus_linux *kernel, const struct maple_fields *fields, uint64_t root_gva, uint64_t index,
               struct maple_cursor *cursor, struct maple_entry *entry);

#endif
