/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding and reading areas. What a tree says of an area's range, the area must say of itself: a tree that is being changed
 * says otherwise for a moment.
 */
#include "areas.h"

#include <inttypes.h>

enum {
    RB_HEIGHT_BOUND = 64, /* twice the logarithm of more areas than memory could hold */
};

#define WISH(structure, path, field) {structure, path, offsetof(struct area_fields, field), false}
#define OPTION(structure, path, field) {structure, path, offsetof(struct area_fields, field), true}

static const struct linux_wish wishes[] = {
    OPTION("mm_struct", "mm_mt.ma_root", mm_tree),
    OPTION("mm_struct", "mm_rb.rb_node", mm_rb),
    WISH("mm_struct", "mm_users.counter", mm_users),
    WISH("mm_struct", "map_count", mm_count),
    OPTION("rb_node", "rb_left", rb_left),
    OPTION("rb_node", "rb_right", rb_right),
    OPTION("vm_area_struct", "vm_rb", area_rb),
    WISH("vm_area_struct", "vm_start", start),
    WISH("vm_area_struct", "vm_end", end),
    WISH("vm_area_struct", "vm_flags", flags),
    WISH("vm_area_struct", "vm_pgoff", page_offset),
    WISH("vm_area_struct", "vm_file", file),
    WISH("vm_area_struct", "vm_ops", ops),
    WISH("vm_area_struct", "vm_private_data", private_data),
    WISH("vm_area_struct", "vm_mm", mm),
    OPTION("vm_area_struct", "anon_name", anon_name),
    OPTION("vm_area_struct", "shared", shared),
    {0},
};

int area_fields_resolve(struct vmibus_linux *kernel, struct area_fields *fields) {
    int r = linux_fields_resolve(kernel, wishes, fields);

    if (r == 0)
        r = linux_structure_size(kernel, "vm_area_struct", &fields->area_size);
    if (r != 0)
        return r;
    if (fields->area_size > AREA_COPY_MAX)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel's struct vm_area_struct would have %u octets",
                             fields->area_size);
    if (fields->mm_tree.size > 0)
        return maple_fields_resolve(kernel, &fields->maple);
    if (fields->mm_rb.size == 0 || fields->area_rb.size == 0 || fields->rb_left.size == 0 || fields->rb_right.size == 0)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN,
                             "the kernel keeps an address space neither in a maple tree nor in a red-black tree");
    return 0;
}

/*
 * The name lies where an area of a file has what links it to the file, in some kernels (5.17): there only what has no file
 * has a name.
 */
static bool may_have_name(const struct area_fields *fields, const struct area *area) {
    bool is_shared_room = fields->anon_name.offset - fields->shared.offset < fields->shared.size;

    return fields->anon_name.size > 0 && (area->file == 0 || !is_shared_room);
}

static int read_area(struct vmibus_linux *kernel, const struct area_fields *fields, uint64_t gva, struct area *area, uint64_t *mm) {
    uint8_t copy[AREA_COPY_MAX];
    size_t size = fields->area_size;
    int r = linux_read(kernel, gva, copy, size);

    *area = (struct area){.gva = gva};
    if (r != 0)
        return linux_because(kernel, r, "the area at %#" PRIx64 " cannot be read", gva);
    if (!linux_get_field(copy, size, &fields->start, &area->start) || !linux_get_field(copy, size, &fields->end, &area->end) ||
        !linux_get_field(copy, size, &fields->flags, &area->flags) ||
        !linux_get_field(copy, size, &fields->page_offset, &area->page_offset) ||
        !linux_get_field(copy, size, &fields->file, &area->file) || !linux_get_field(copy, size, &fields->ops, &area->ops) ||
        !linux_get_field(copy, size, &fields->private_data, &area->private_data) ||
        !linux_get_field(copy, size, &fields->mm, mm))
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the members of the kernel's struct vm_area_struct lie outside it");
    if (may_have_name(fields, area))
        linux_get_field(copy, size, &fields->anon_name, &area->anon_name);
    if (area->start >= area->end)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the area at %#" PRIx64 " ends before it begins", gva);
    return 0;
}

int area_read(struct vmibus_linux *kernel, const struct area_fields *fields, uint64_t gva, struct area *area) {
    uint64_t mm;

    return read_area(kernel, fields, gva, area, &mm);
}

static int next_in_maple(struct vmibus_linux *kernel, const struct area_fields *fields, uint64_t mm, uint64_t address,
                         struct area_walk *walk, struct area *area, uint64_t *after) {
    struct maple_entry entry;
    uint64_t owner;
    int r = maple_next(kernel, &fields->maple, mm + fields->mm_tree.offset, address, &walk->cursor, &entry);

    if (r != 0)
        return r;
    *after = entry.last + 1;
    r = read_area(kernel, fields, entry.value, area, &owner);
    if (r == 0 && (area->start != entry.first || area->end != entry.last + 1 || owner != mm))
        r = linux_because(kernel, VMIBUS_GUEST_CHANGED, "the area at %#" PRIx64 " is being changed", entry.value);
    if (r == VMIBUS_GUEST_CHANGED)
        walk->cursor.has_leaf = false;
    return r;
}

/* As the kernel's own find_vma() before 6.1: the lowest of the areas that end after the address. */
static int next_in_rb(struct vmibus_linux *kernel, const struct area_fields *fields, uint64_t mm, uint64_t address,
                      struct area *area) {
    uint64_t node, owner;
    bool is_found = false;
    int r = linux_read_field(kernel, mm, &fields->mm_rb, &node);

    for (int height = 0; r == 0 && node != 0; height++) {
        struct area here;

        if (height == RB_HEIGHT_BOUND)
            return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the tree of areas is more than %d nodes high", RB_HEIGHT_BOUND);
        r = read_area(kernel, fields, node - fields->area_rb.offset, &here, &owner);
        if (r != 0)
            return r;
        if (owner != mm)
            return linux_because(kernel, VMIBUS_GUEST_CHANGED, "the area at %#" PRIx64 " is of another address space", here.gva);
        if (here.end > address) {
            *area = here;
            is_found = true;
            if (here.start <= address)
                return 0;
        }
        r = linux_read_field(kernel, node, here.end > address ? &fields->rb_left : &fields->rb_right, &node);
    }
    if (r != 0)
        return linux_because(kernel, r, "the tree of areas cannot be read");
    return is_found ? 0 : VMIBUS_GUEST_NOT_FOUND;
}

int area_next(struct vmibus_linux *kernel, const struct area_fields *fields, uint64_t mm, uint64_t address, struct area_walk *walk,
              struct area *area, uint64_t *after) {
    *after = 0;
    return fields->mm_tree.size > 0 ? next_in_maple(kernel, fields, mm, address, walk, area, after)
                                    : next_in_rb(kernel, fields, mm, address, area);
}
