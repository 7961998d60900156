/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The areas of an address space (struct vm_area_struct), by rising address: from a maple tree, or from the red-black tree that
 * kernels before 6.1 have. Both are asked the same question, which is the first area that ends after an address, so
 * no walk through either can be led round in a circle.
 */
#ifndef GUEST_LINUX_AREAS_H
#define GUEST_LINUX_AREAS_H

#include "maple.h"

/** Octets of a vm_area_struct that are copied: 136 to 256, more with the kernel's self-checks. */
#define AREA_COPY_MAX 1024

/** Where members lie. */
struct area_fields {
    struct linux_field mm_tree;             /**< root pointer of the maple tree */
    struct linux_field mm_rb;               /**< root pointer of the red-black tree; one of both is there */
    struct linux_field mm_users, mm_count;
    struct linux_field rb_left, rb_right;
    struct linux_field area_rb;
    struct linux_field start, end, flags, page_offset, file, ops, private_data, mm, anon_name, shared;
    uint32_t area_size;
    struct maple_fields maple;
};

/** An area, as it was read. */
struct area {
    uint64_t gva;
    uint64_t start, end;
    uint64_t flags;
    uint64_t page_offset;   /**< of the file, in pages */
    uint64_t file;          /**< address of its struct file, 0 if none */
    uint64_t ops;           /**< address of its operations, 0 if none */
    uint64_t private_data;
    uint64_t anon_name;     /**< address of the name that the process gave it, 0 if none */
};

/** A walk; zeroed at first. */
struct area_walk {
    struct maple_cursor cursor;
};

/** Looks up where members lie. 0, UNPROVEN or a negative errno. */
int area_fields_resolve(struct vmibus_linux *kernel, struct area_fields *fields);

/** Reads an area of which only the address is known. 0, UNPROVEN, another result of reading. */
int area_read(struct vmibus_linux *kernel, const struct area_fields *fields, uint64_t gva, struct area *area);

/**
 * Finds the first area that ends after an address.
 * @param mm    address of the mm_struct
 * @param after on CHANGED and UNPROVEN, receives the address to go on from without what is wrong, 0 if that cannot be said
 * @return 0; NOT_FOUND: there is none; CHANGED: it changed meanwhile, ask again; UNPROVEN: what is there contradicts
 *         itself; another result of reading, or a negative errno
 */
int area_next(struct vmibus_linux *kernel, const struct area_fields *fields, uint64_t mm, uint64_t address, struct area_walk *walk,
              struct area *area, uint64_t *after);

#endif
