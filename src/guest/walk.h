/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page walk as text: inlined once for readers that are called for each entry (pagewalk.c) and once for RAM that is
 * mapped (ram_walk.c), where a call for each entry would cost more than the entry.
 *
 * Both judge alike: each entry is read once and judged as read; at most five are, whatever loops they form.  Nothing is
 * remembered between calls.
 */
#ifndef VMIBUS_GUEST_WALK_H
#define VMIBUS_GUEST_WALK_H

#include <vmibus/guest.h>

#include <errno.h>
#include <stdbool.h>

#include "paging.h"

#define WALK_INLINE static inline __attribute__((always_inline))

/** Loads an entry, at a multiple of eight. As vmibus_guest_read_fn. */
typedef int (*walk_load_fn)(void *context, uint64_t gpa, uint64_t *entry);

/** Whether all bits above the sign bit of a depth's addresses (47 or 56) repeat it. */
WALK_INLINE bool walk_is_canonical(uint64_t gva, unsigned int levels) {
    unsigned int unused = 64 - paging_shift(levels + 1);

    return (uint64_t)((int64_t)(gva << unused) >> unused) == gva;
}

WALK_INLINE bool walk_is_leaf(uint64_t entry, unsigned int level) {
    return level == 1 || (entry & PAGING_LARGE);
}

/** Whether an entry that maps a page has bits set that it must not have. Of bits 52 to 62 none is reserved. */
WALK_INLINE bool walk_leaf_is_reserved(uint64_t entry, unsigned int level) {
    /* On level 1 the second tests nothing: no address bit lies below the page. */
    return level > PAGING_LARGE_LEVEL_MAX ||
           (entry & (paging_size(level) - 1) & PAGING_ADDRESS & ~PAGING_LARGE_PAT);
}

/** Where an entry that maps a page leads. */
WALK_INLINE uint64_t walk_leaf_address(uint64_t entry, unsigned int level) {
    return entry & PAGING_ADDRESS & ~(paging_size(level) - 1);
}

WALK_INLINE uint32_t walk_rights(uint64_t all_set, uint64_t any_set) {
    return (all_set & PAGING_WRITABLE ? VMIBUS_GUEST_WRITABLE : 0) |
           (all_set & PAGING_USER ? VMIBUS_GUEST_USER : 0) |
           (any_set & PAGING_NO_EXECUTE ? VMIBUS_GUEST_NO_EXECUTE : 0);
}

/** Ends a walk at the entry that maps the page. */
WALK_INLINE int walk_finish(uint64_t entry, unsigned int level, uint64_t gva,
                            struct vmibus_guest_translation *translation) {
    if (walk_leaf_is_reserved(entry, level))
        return VMIBUS_GUEST_RESERVED_BITS;
    translation->page_size = paging_size(level);
    translation->gpa = walk_leaf_address(entry, level) | (gva & (paging_size(level) - 1));
    return 0;
}

/** Zeroes the entries of a translation that no walk filled. */
WALK_INLINE void walk_clear(struct vmibus_guest_translation *translation, unsigned int filled) {
    for (; filled < sizeof(translation->entries) / sizeof(translation->entries[0]); filled++) {
        translation->entries[filled].gpa = 0;
        translation->entries[filled].value = 0;
    }
}

/* The walk with a number of levels that the compiler knows, so that it makes one straight line of it. */
WALK_INLINE int walk_levels(walk_load_fn load, void *context, unsigned int levels, uint64_t cr3,
                            uint64_t gva, struct vmibus_guest_translation *translation,
                            unsigned int *filled) {
    uint64_t table = cr3 & PAGING_ADDRESS;
    uint64_t all_set = ~UINT64_C(0), any_set = 0;

    if (!walk_is_canonical(gva, levels))
        return VMIBUS_GUEST_NON_CANONICAL;
#pragma GCC unroll 5
    for (unsigned int depth = 0; depth < levels; depth++) {
        unsigned int level = levels - depth;
        uint64_t entry_gpa = table | ((gva >> paging_shift(level) & 511) << 3);
        uint64_t entry = 0;
        int r = load(context, entry_gpa, &entry);

        translation->level = (uint8_t)level;
        translation->entries[depth].gpa = entry_gpa;
        translation->entries[depth].value = r == 0 ? entry : 0;
        *filled = depth + 1;
        if (__builtin_expect(r != 0, 0)) {
            translation->gpa = entry_gpa;
            return r;
        }
        translation->depth = (uint8_t)(depth + 1);
        if (!(entry & PAGING_PRESENT))
            return VMIBUS_GUEST_NOT_PRESENT;
        all_set &= entry;
        any_set |= entry;
        if (walk_is_leaf(entry, level)) {
            translation->rights = walk_rights(all_set, any_set);
            return walk_finish(entry, level, gva, translation);
        }
        table = entry & PAGING_ADDRESS;
    }
    __builtin_unreachable();
}

/**
 * vmibus_guest_translate() with a way to load entries, but for the entries that the walk did not reach.
 * @param filled receives how many entries were filled: depth, and one more if its load failed
 */
WALK_INLINE int walk(walk_load_fn load, void *context, const struct vmibus_guest_root *root,
                     uint64_t gva, struct vmibus_guest_translation *translation,
                     unsigned int *filled) {
    *filled = 0;
    translation->gpa = 0;
    translation->page_size = 0;
    translation->rights = 0;
    translation->depth = 0;
    translation->level = root->levels;
    if (root->levels == 4)
        return walk_levels(load, context, 4, root->cr3, gva, translation, filled);
    if (root->levels == 5)
        return walk_levels(load, context, 5, root->cr3, gva, translation, filled);
    return -EINVAL;
}

/** vmibus_guest_translate() with a way to load entries. */
WALK_INLINE int walk_translate(walk_load_fn load, void *context,
                               const struct vmibus_guest_root *root, uint64_t gva,
                               struct vmibus_guest_translation *translation) {
    unsigned int filled;
    int r = walk(load, context, root, gva, translation, &filled);

    walk_clear(translation, filled);
    return r;
}

/**
 * Reads the part of a range that lies in one page of the guest.  A large page may lie in RAM by
 * half: if reading it whole fails, it is read in steps, to know how far it can be read.
 */
WALK_INLINE int walk_read_page(vmibus_guest_read_fn read, void *context, uint64_t gpa,
                               uint8_t *buffer, size_t len, size_t *done) {
    int r = read(context, gpa, buffer, len);

    *done = r == 0 ? len : 0;
    if (__builtin_expect(r <= 0, 1))
        return r;
    while (*done < len) {
        uint64_t at = gpa + *done;
        size_t step = PAGING_PAGE_SIZE - (at & (PAGING_PAGE_SIZE - 1));

        if (step > len - *done)
            step = len - *done;
        if (step == len)
            return r;
        r = read(context, at, buffer + *done, step);
        if (r != 0)
            return r;
        *done += step;
    }
    return 0;
}

/** vmibus_guest_read() with a way to load entries and a way to read. */
WALK_INLINE int walk_read(walk_load_fn load, void *load_context, vmibus_guest_read_fn read,
                          void *read_context, const struct vmibus_guest_root *root, uint64_t gva,
                          void *buffer, size_t len, size_t *donep,
                          struct vmibus_guest_translation *fault) {
    struct vmibus_guest_translation translation;
    unsigned int filled = 0;
    size_t done = 0;
    int r = 0;

    while (r == 0 && done < len) {
        uint64_t at = gva + done, left_in_page;
        size_t step = len - done, got = 0;

        if (at < gva) {
            /* Past the top of the address space. A processor would go on at 0. */
            translation = (struct vmibus_guest_translation){.level = root->levels};
            filled = 0;
            r = VMIBUS_GUEST_NON_CANONICAL;
            break;
        }
        r = walk(load, load_context, root, at, &translation, &filled);
        if (r != 0)
            break;
        left_in_page = translation.page_size - (at & (translation.page_size - 1));
        if (step > left_in_page)
            step = (size_t)left_in_page;
        r = walk_read_page(read, read_context, translation.gpa, (uint8_t *)buffer + done, step, &got);
        done += got;
        if (r != 0) {
            translation.gpa += got;
            translation.level = 0;
        }
    }
    if (donep)
        *donep = done;
    if (__builtin_expect(r != 0, 0) && fault) {
        walk_clear(&translation, filled);
        *fault = translation;
    }
    return r;
}

#endif
