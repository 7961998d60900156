/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The page walk in RAM that is mapped: an entry is one load, where its page is marked as one that holds data. */
#include <string.h>

#include "ram.h"
#include "walk.h"

WALK_INLINE int load_entry(void *context, uint64_t gpa, uint64_t *entry) {
    struct vmibus_guest_ram *ram = context;
    const uint8_t *at = mapping_at(&ram->mapping, gpa);

    if (__builtin_expect(!at, 0))
        return ram_read(ram, gpa, entry, sizeof(*entry));
    *entry = __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
    return 0;
}

/* Pays for the walk that led here, too. What has the size of an entry is read by one load, if it is aligned. */
WALK_INLINE int read_page(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct vmibus_guest_ram *ram = context;
    const uint8_t *at;

    mapping_charge(&ram->mapping, PAGING_LEVELS_MAX + 1);
    if (len > PAGING_PAGE_SIZE - gpa % PAGING_PAGE_SIZE || !(at = mapping_at(&ram->mapping, gpa)))
        return ram_read(ram, gpa, buffer, len);
    if (len == sizeof(uint64_t))
        memcpy(buffer, at, sizeof(uint64_t));
    else
        memcpy(buffer, at, len);
    return 0;
}

static int translate(void *context, const struct vmibus_guest_root *root, uint64_t gva,
                     struct vmibus_guest_translation *translation) {
    struct vmibus_guest_ram *ram = context;

    mapping_charge(&ram->mapping, PAGING_LEVELS_MAX);
    return walk_translate(load_entry, context, root, gva, translation);
}

/* Loads the entry that a table has for gva. False: the table is not marked. */
WALK_INLINE bool descend(const struct mapping *mapping, uint64_t gva, unsigned int level, uint64_t *entry) {
    uint64_t table = *entry & PAGING_ADDRESS;

    if (__builtin_expect(!mapping_is_marked(mapping, table), 0))
        return false;
    *entry = __atomic_load_n((const uint64_t *)(const void *)(mapping->space + table) +
                                 (gva >> paging_shift(level) & 511),
                             __ATOMIC_RELAXED);
    return true;
}

/* Whether PRESENT is set alone of some bits: taking it away clears it where it was set, and sets it where it was not. */
WALK_INLINE bool leads_on(uint64_t entry, uint64_t bits) {
    return __builtin_expect(((entry - PAGING_PRESENT) & bits) == 0, 1);
}

/* By an entry that is not one of a table. */
WALK_INLINE const uint8_t *find_large(const struct mapping *mapping, uint64_t entry, unsigned int level,
                                      uint64_t gva) {
    if (!(entry & PAGING_PRESENT) || !(entry & PAGING_LARGE) || walk_leaf_is_reserved(entry, level))
        return NULL;
    return mapping_at(mapping, walk_leaf_address(entry, level) | (gva & (paging_size(level) - 1)));
}

WALK_INLINE const uint8_t *find_below(const struct mapping *mapping, uint64_t entry, uint64_t gva) {
    if (!descend(mapping, gva, 4, &entry) || !leads_on(entry, mapping->table_bits) || !descend(mapping, gva, 3, &entry))
        return NULL;
    if (!leads_on(entry, mapping->table_bits))
        return find_large(mapping, entry, 3, gva);
    if (!descend(mapping, gva, 2, &entry))
        return NULL;
    if (!leads_on(entry, mapping->table_bits))
        return find_large(mapping, entry, 2, gva);
    if (!descend(mapping, gva, 1, &entry) || !leads_on(entry, mapping->page_bits) ||
        !mapping_is_marked(mapping, entry & PAGING_ADDRESS))
        return NULL;
    return mapping->space + (entry & PAGING_ADDRESS) + gva % PAGING_PAGE_SIZE;
}

/*
 * Where the octet at gva is, if that can be told by loads alone.  Keeps no record and knows no reasons: that makes it
 * short enough for a processor to have several under way at a time.
 */
WALK_INLINE const uint8_t *find(const struct mapping *mapping, const struct vmibus_guest_root *root,
                                uint64_t gva) {
    uint64_t entry = root->cr3;

    if (entry & mapping->outside)
        return NULL;
    if (root->levels == 4)
        return walk_is_canonical(gva, 4) ? find_below(mapping, entry, gva) : NULL;
    if (root->levels != 5 || !walk_is_canonical(gva, 5) || !descend(mapping, gva, 5, &entry) ||
        !leads_on(entry, mapping->table_bits))
        return NULL;
    return find_below(mapping, entry, gva);
}

/* By the walk that knows reasons. */
static __attribute__((noinline)) int
read_slowly(void *context, const struct vmibus_guest_root *root, uint64_t gva, void *buffer,
            size_t len, size_t *done, struct vmibus_guest_translation *fault) {
    struct vmibus_guest_ram *ram = context;
    int r = walk_read(load_entry, context, read_page, context, root, gva, buffer, len, done, fault);

    if (r != 0)
        mapping_charge(&ram->mapping, PAGING_LEVELS_MAX);
    return r;
}

static __attribute__((noinline)) int
read_octets(void *context, const struct vmibus_guest_root *root, uint64_t gva, void *buffer,
            size_t len, size_t *done, struct vmibus_guest_translation *fault) {
    const struct mapping *mapping = &((struct vmibus_guest_ram *)context)->mapping;
    const uint8_t *at;

    if (len - 1 >= PAGING_PAGE_SIZE - gva % PAGING_PAGE_SIZE || !(at = find(mapping, root, gva)))
        return read_slowly(context, root, gva, buffer, len, done, fault);
    memcpy(buffer, at, len);
    if (done)
        *done = len;
    return 0;
}

/* The files are looked at only where the slow way is taken; what has the size of an entry has a way of its own. */
static int read_virtual(void *context, const struct vmibus_guest_root *root, uint64_t gva,
                        void *buffer, size_t len, size_t *done,
                        struct vmibus_guest_translation *fault) {
    struct mapping *mapping = &((struct vmibus_guest_ram *)context)->mapping;
    const uint8_t *at;

    mapping->loads -= PAGING_LEVELS_MAX + 1;
    if (__builtin_expect(mapping->loads < 0, 0))
        return read_slowly(context, root, gva, buffer, len, done, fault);
    if (len != sizeof(uint64_t))
        return read_octets(context, root, gva, buffer, len, done, fault);
    if (gva % PAGING_PAGE_SIZE > PAGING_PAGE_SIZE - sizeof(uint64_t) || !(at = find(mapping, root, gva)))
        return read_slowly(context, root, gva, buffer, sizeof(uint64_t), done, fault);
    memcpy(buffer, at, sizeof(uint64_t));
    if (done)
        *done = sizeof(uint64_t);
    return 0;
}

/* No more at a time than may be loaded from between two looks at the files. */
static const uint8_t *look(void *context, uint64_t gpa, uint64_t *len) {
    struct vmibus_guest_ram *ram = context;
    uint64_t most = MAPPING_LOADS * PAGING_PAGE_SIZE - gpa % PAGING_PAGE_SIZE;
    uint64_t wanted = *len < most ? *len : most;

    mapping_charge(&ram->mapping, 1 + wanted / PAGING_PAGE_SIZE);
    *len = mapping_run(&ram->mapping, gpa, wanted);
    return *len ? mapping_at(&ram->mapping, gpa) : NULL;
}

const struct vmibus_guest_direct ram_direct = {
    .translate = translate,
    .read = read_virtual,
    .next_range = ram_next_range,
    .next_data = ram_next_data,
    .look = look,
};
