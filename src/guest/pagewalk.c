/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page walk, and reading guest-virtual memory with it.
 *
 * The tables are a running guest's: they may say anything and change while they are walked.  Each
 * entry is read once and judged as read; at most five are, whatever loops they form.  Nothing is
 * remembered between calls.  Depends on no other file of the library, so that the memory authority
 * can have it alone.
 */
#include <vmibus/guest.h>

#include <errno.h>

#include "paging.h"

/* Whether all bits above the sign bit of a depth's addresses (47 or 56) repeat it. */
static inline bool is_canonical(uint64_t gva, unsigned int levels) {
    unsigned int unused = 64 - paging_shift(levels + 1);

    return (uint64_t)((int64_t)(gva << unused) >> unused) == gva;
}

static inline bool is_leaf(uint64_t entry, unsigned int level) {
    return level == 1 || (entry & PAGING_LARGE);
}

/* Ends a walk at the entry that maps the page. */
static inline int finish_leaf(uint64_t entry, unsigned int level, uint64_t gva,
                              struct vmibus_guest_translation *translation) {
    uint64_t page_size = UINT64_C(1) << paging_shift(level);
    uint64_t offset_bits = page_size - 1;

    /* On level 1 this tests nothing: no address bit lies below the page. */
    if (level > PAGING_LARGE_LEVEL_MAX ||
        (entry & offset_bits & PAGING_ADDRESS & ~PAGING_LARGE_PAT))
        return VMIBUS_GUEST_RESERVED_BITS;
    translation->gpa = (entry & PAGING_ADDRESS & ~offset_bits) | (gva & offset_bits);
    translation->page_size = page_size;
    return 0;
}

static inline uint32_t rights_of(uint64_t all_set, uint64_t any_set) {
    return (all_set & PAGING_WRITABLE ? VMIBUS_GUEST_WRITABLE : 0) |
           (all_set & PAGING_USER ? VMIBUS_GUEST_USER : 0) |
           (any_set & PAGING_NO_EXECUTE ? VMIBUS_GUEST_NO_EXECUTE : 0);
}

int vmibus_guest_translate(const struct vmibus_guest_reader *reader,
                           const struct vmibus_guest_root *root, uint64_t gva,
                           struct vmibus_guest_translation *translation) {
    uint64_t table = root->cr3 & PAGING_ADDRESS;
    uint64_t all_set = ~UINT64_C(0), any_set = 0;
    unsigned int depth = 0;

    *translation = (struct vmibus_guest_translation){.level = root->levels};
    if (root->levels < PAGING_LEVELS_MIN || root->levels > PAGING_LEVELS_MAX)
        return -EINVAL;
    if (!is_canonical(gva, root->levels))
        return VMIBUS_GUEST_NON_CANONICAL;

    for (unsigned int level = root->levels;; level--) {
        uint64_t entry_gpa = table | ((gva >> paging_shift(level) & 511) << 3);
        uint64_t entry;
        int r;

        translation->level = (uint8_t)level;
        translation->entries[depth].gpa = entry_gpa;
        r = reader->read(reader->context, entry_gpa, &entry, sizeof(entry));
        if (r != 0) {
            translation->gpa = entry_gpa;
            return r;
        }
        translation->entries[depth].value = entry;
        translation->depth = (uint8_t)++depth;

        if (!(entry & PAGING_PRESENT))
            return VMIBUS_GUEST_NOT_PRESENT;
        all_set &= entry;
        any_set |= entry;
        if (is_leaf(entry, level)) {
            translation->rights = rights_of(all_set, any_set);
            return finish_leaf(entry, level, gva, translation);
        }
        table = entry & PAGING_ADDRESS;
    }
}

/*
 * Reads the part of a range that lies in one page of the guest.  A large page may lie in RAM by
 * half: if reading it whole fails, it is read in steps, to know how far it can be read.
 */
static int read_page(const struct vmibus_guest_reader *reader, uint64_t gpa, uint8_t *buffer,
                     size_t len, size_t *done) {
    int r = reader->read(reader->context, gpa, buffer, len);

    *done = r == 0 ? len : 0;
    if (r <= 0)
        return r;
    while (*done < len) {
        uint64_t at = gpa + *done;
        size_t step = PAGING_PAGE_SIZE - (at & (PAGING_PAGE_SIZE - 1));

        if (step > len - *done)
            step = len - *done;
        if (step == len)
            return r;
        r = reader->read(reader->context, at, buffer + *done, step);
        if (r != 0)
            return r;
        *done += step;
    }
    return 0;
}

int vmibus_guest_read(const struct vmibus_guest_reader *reader,
                      const struct vmibus_guest_root *root, uint64_t gva, void *buffer, size_t len,
                      size_t *donep, struct vmibus_guest_translation *fault) {
    struct vmibus_guest_translation translation = {0};
    size_t done = 0;
    int r = 0;

    while (r == 0 && done < len) {
        uint64_t at = gva + done, left_in_page;
        size_t step = len - done, read = 0;

        if (at < gva) {
            /* Past the top of the address space. A processor would go on at 0. */
            translation = (struct vmibus_guest_translation){.level = root->levels};
            r = VMIBUS_GUEST_NON_CANONICAL;
            break;
        }
        r = vmibus_guest_translate(reader, root, at, &translation);
        if (r != 0)
            break;
        left_in_page = translation.page_size - (at & (translation.page_size - 1));
        if (step > left_in_page)
            step = (size_t)left_in_page;
        r = read_page(reader, translation.gpa, (uint8_t *)buffer + done, step, &read);
        done += read;
        if (r != 0) {
            translation.gpa += read;
            translation.level = 0;
        }
    }
    if (donep)
        *donep = done;
    if (r != 0 && fault)
        *fault = translation;
    return r;
}
