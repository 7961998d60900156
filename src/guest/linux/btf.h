/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A reader of BTF, the description that a Linux kernel carries of its own types (Documentation/bpf/btf.rst,
 * include/uapi/linux/btf.h).
 *
 * The octets are a guest's.  btf_new() refuses what is not framed soundly: afterwards each type lies wholly in the type section,
 * and each name that begins in the string section ends there.  What types refer to is checked where it is followed: chains,
 * nesting and the members looked at are bounded, so a structure that contains itself, or a typedef of itself, is refused and not
 * followed for ever.
 *
 * One copy of the octets is kept (4 to 10 MB), and an index beside it: four octets a type, eight for each named structure
 * (about 0.7 MB).  Only little-endian BTF is read, that of the guests there are.
 */
#ifndef GUEST_LINUX_BTF_H
#define GUEST_LINUX_BTF_H

#include <stddef.h>
#include <stdint.h>

#include "kernel.h"

/** BTF that is longer is refused: a distribution's kernel has 4 to 10 MB. */
#define BTF_LEN_MAX (UINT32_C(32) << 20)

/** The longest sentence that says why BTF was refused, its NUL included. */
#define BTF_WHY_BOUND 128

struct btf;

/**
 * Opens BTF.
 * @param btfp      receives it, NULL on failure
 * @param base      BTF of vmlinux, if this is a module's: its types and strings go on where the base's end; borrowed, must
 *                  outlive it. NULL: it stands alone
 * @param octets    from malloc(); taken over, also on failure
 * @param len       their number
 * @param why       on UNPROVEN, receives a sentence without an end
 * @return 0, VMIBUS_GUEST_UNPROVEN or -ENOMEM
 */
int btf_new(struct btf **btfp, const struct btf *base, void *octets, size_t len, char why[BTF_WHY_BOUND]);

/** Frees it. Takes and returns NULL. */
struct btf *btf_free(struct btf *btf);

/** How many types there are, with the base's and void: the id of the first type of BTF that goes on from here. */
uint32_t btf_n_types(const struct btf *btf);

/** Octets of strings, with the base's: where strings of BTF that goes on from here begin. */
uint32_t btf_strings_len(const struct btf *btf);

/** Octets of memory that it takes, without its base's. */
size_t btf_footprint(const struct btf *btf);

/**
 * Finds a structure by name: a struct or union, or a typedef of one that has no name. Several may share a name.
 * @param after  0 for the first; else the one found before
 * @return its id, in the order of ids, a module's own before those of vmlinux; 0: no other
 */
uint32_t btf_find_structure(const struct btf *btf, const char *name, uint32_t after);

/** The size of a structure in octets. 0 or UNPROVEN, if @a id is none. */
int btf_structure_size(const struct btf *btf, uint32_t id, uint32_t *size);

/**
 * Finds a member of a structure.
 * @param id     of the structure
 * @param path   members separated by dots, each may be followed by [N], an element of an array; nameless structures are looked
 *               through. Pointers are not followed
 * @param field  filled. The size of an array without a size (the last member, of any length) is that of one element
 * @param why    on UNPROVEN, receives a sentence without an end
 * @return 0; NOT_FOUND; UNPROVEN, where what is said of the member contradicts itself
 */
int btf_find_member(const struct btf *btf, uint32_t id, const char *path, struct linux_field *field, char why[BTF_WHY_BOUND]);

/** The value of an enumerator: of the first, in the order of ids, that has this name. 0 or NOT_FOUND. */
int btf_find_enumerator(const struct btf *btf, const char *name, int64_t *value);

#endif
