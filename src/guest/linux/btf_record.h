/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BTF as it lies in memory: its records, and what one of them says by itself or by those that it refers to.  Internal to the
 * reader of BTF (btf.h); all of it was framed soundly when it was opened.
 *
 * A type record is a header of three words, and what its kind adds.  The header's info word has the kind in bits 24 to 28, in
 * bits 0 to 15 how many members, values, parameters follow, and in bit 31 a flag whose meaning depends on the kind; all other
 * bits are reserved (include/uapi/linux/btf.h).
 */
#ifndef GUEST_LINUX_BTF_RECORD_H
#define GUEST_LINUX_BTF_RECORD_H

#include "btf.h"

/** Kinds, by their numbers. */
enum btf_kind {
    KIND_VOID = 0,
    KIND_INT = 1,
    KIND_PTR = 2,
    KIND_ARRAY = 3,
    KIND_STRUCT = 4,
    KIND_UNION = 5,
    KIND_ENUM = 6,
    KIND_FWD = 7,
    KIND_TYPEDEF = 8,
    KIND_VOLATILE = 9,
    KIND_CONST = 10,
    KIND_RESTRICT = 11,
    KIND_FUNC = 12,
    KIND_FUNC_PROTO = 13,
    KIND_VAR = 14,
    KIND_DATASEC = 15,
    KIND_FLOAT = 16,
    KIND_DECL_TAG = 17,
    KIND_TYPE_TAG = 18,
    KIND_ENUM64 = 19,
    N_KINDS,
};

struct btf_type {
    uint32_t name;
    uint32_t info;
    uint32_t size_or_type;
};

struct btf_array {
    uint32_t type;
    uint32_t index_type;
    uint32_t n;
};

struct btf_member {
    uint32_t name;
    uint32_t type;
    uint32_t offset; /* in bits; with the structure's flag, its upper octet is the size of a bit field */
};

struct btf_value {
    uint32_t name;
    uint32_t low, high; /* high: KIND_ENUM64 only */
};

/** A named structure in the table; those of one bucket are linked in the order of their ids. */
struct entry {
    uint32_t id;
    uint32_t next;
};

struct btf {
    const struct btf *base;
    void *octets;
    const uint8_t *types;
    const char *strings;
    uint32_t types_len, strings_len;
    uint32_t first_id;      /* of this BTF's own types; 1 without a base */
    uint32_t first_string;
    uint32_t n_own;
    uint32_t *offsets;      /* by id - first_id: where it begins in types */
    struct entry *entries;
    uint32_t n_entries;
    uint32_t *buckets;      /* a power of two of them: the first entry, or NO_ENTRY */
    uint32_t n_buckets;
    size_t len;
};

/** Says why BTF was refused; returns UNPROVEN. */
int btf_refuse(char why[BTF_WHY_BOUND], const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline unsigned int btf_kind_of(const struct btf_type *type) {
    return type->info >> 24 & 0x1f;
}

static inline uint32_t btf_vlen_of(const struct btf_type *type) {
    return type->info & 0xffff;
}

static inline bool btf_flag_of(const struct btf_type *type) {
    return type->info >> 31;
}

static inline bool btf_is_structure(const struct btf_type *type) {
    return btf_kind_of(type) == KIND_STRUCT || btf_kind_of(type) == KIND_UNION;
}

static inline const struct btf_type *btf_record_at(const struct btf *btf, uint32_t offset) {
    return (const struct btf_type *)(const void *)(btf->types + offset);
}

static inline const struct btf_array *btf_array_of(const struct btf_type *type) {
    return (const struct btf_array *)(const void *)(type + 1);
}

/** The word that an integer has: bits 0 to 7 how many bits, 16 to 23 where they begin, bit 24 signed. */
static inline uint32_t btf_integer_word(const struct btf_type *type) {
    return *(const uint32_t *)(const void *)(type + 1);
}

/** The record of an id; NULL: void, or no type. */
const struct btf_type *btf_type_at(const struct btf *btf, uint32_t id);

/** The name at an offset: it ends with NUL within its section. What lies outside has no name. */
const char *btf_name_at(const struct btf *btf, uint32_t offset);

/** Follows typedefs and qualifiers; @a idp (may be NULL) receives the id it ends at. NULL: void, no type, or too long a chain. */
const struct btf_type *btf_skip_modifiers(const struct btf *btf, uint32_t id, uint32_t *idp);

/**
 * The size of a type in octets; that of an array of no elements is one element's.
 * @return whether it has one, below 4 GiB
 */
bool btf_size_of(const struct btf *btf, uint32_t id, uint32_t *size);

/** Whether a type is an array of no elements. */
bool btf_is_without_size(const struct btf *btf, uint32_t id);

/** Whether a type is an integer or an enumeration with a sign. */
bool btf_is_signed(const struct btf_type *type);

/** The structure that a type found by name is; a typedef is one if what it stands for has no name of its own. NULL: none. */
const struct btf_type *btf_structure_of(const struct btf *btf, uint32_t id);

#endif
