/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The BTF reader: framing and index when it is opened, everything else where it is asked for.
 *
 * A type record is a header of three words, and what its kind adds.  The header's info word has the kind in bits 24 to 28, in
 * bits 0 to 15 how many members, values, parameters follow, and in bit 31 a flag whose meaning depends on the kind; all other
 * bits are reserved (include/uapi/linux/btf.h).
 */
#include "btf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BTF_MAGIC = 0xeb9f,
    BTF_VERSION = 1,
    POINTER_SIZE = 8,

    CHAIN_BOUND = 32,        /* typedefs, qualifiers and arrays on the way to a type */
    NESTING_BOUND = 16,      /* nameless structures in each other, and steps of a path */
    MEMBERS_BOUND = 1 << 12, /* members looked at for one step of a path; the kernel's largest structures have hundreds */
    HASH_BOUND = 64,         /* octets of a name that its hash is of: any number of types may share one of megabytes */
    BUCKET_BOUND = 1 << 12,  /* entries of a bucket that are looked at: a guest can make them all fall into one */
};

#define NO_ENTRY UINT32_MAX

/* Kinds, by their numbers on the wire. */
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

struct btf_header {
    uint16_t magic;
    uint8_t version;
    uint8_t flags;
    uint32_t header_len;
    uint32_t types_offset; /* this and the others: from the end of the header */
    uint32_t types_len;
    uint32_t strings_offset;
    uint32_t strings_len;
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

/* What a kind adds to the header: octets in any case, and for each of the vlen. */
static const struct {
    uint8_t once, each;
} extra[N_KINDS] = {
    [KIND_INT] = {.once = 4},       [KIND_ARRAY] = {.once = 12},     [KIND_STRUCT] = {.each = 12},
    [KIND_UNION] = {.each = 12},    [KIND_ENUM] = {.each = 8},       [KIND_FUNC_PROTO] = {.each = 8},
    [KIND_VAR] = {.once = 4},       [KIND_DATASEC] = {.each = 12},   [KIND_DECL_TAG] = {.once = 4},
    [KIND_ENUM64] = {.each = 12},
};

/* A named structure in the table; those of one bucket are linked in the order of their ids. */
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

static int __attribute__((format(printf, 2, 3))) refuse(char why[BTF_WHY_BOUND], const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why, BTF_WHY_BOUND, format, arguments);
    va_end(arguments);
    return VMIBUS_GUEST_UNPROVEN;
}

static unsigned int kind_of(const struct btf_type *type) {
    return type->info >> 24 & 0x1f;
}

static uint32_t vlen_of(const struct btf_type *type) {
    return type->info & 0xffff;
}

static bool flag_of(const struct btf_type *type) {
    return type->info >> 31;
}

static bool is_structure(const struct btf_type *type) {
    return kind_of(type) == KIND_STRUCT || kind_of(type) == KIND_UNION;
}

static const struct btf_type *record_at(const struct btf *btf, uint32_t offset) {
    return (const struct btf_type *)(const void *)(btf->types + offset);
}

/* The record of an id; NULL: void, or no type. */
static const struct btf_type *type_at(const struct btf *btf, uint32_t id) {
    while (id < btf->first_id) {
        if (!btf->base)
            return NULL;
        btf = btf->base;
    }
    if (id - btf->first_id >= btf->n_own)
        return NULL;
    return record_at(btf, btf->offsets[id - btf->first_id]);
}

/* The name at an offset: it ends with NUL within its section. What lies outside has no name. */
static const char *name_at(const struct btf *btf, uint32_t offset) {
    while (offset < btf->first_string)
        btf = btf->base;
    offset -= btf->first_string;
    return offset < btf->strings_len ? btf->strings + offset : "";
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static bool section_fits(uint64_t header_len, uint64_t offset, uint64_t len, uint64_t whole) {
    return header_len + offset + len <= whole;
}

static int read_header(struct btf *btf, char why[BTF_WHY_BOUND]) {
    struct btf_header header;

    if (btf->len < sizeof(header))
        return refuse(why, "BTF of %zu octets has no header", btf->len);
    memcpy(&header, btf->octets, sizeof(header));
    if (header.magic != BTF_MAGIC || header.version != BTF_VERSION)
        return refuse(why, "this is no BTF of version %d: it begins with %#x, %u", BTF_VERSION, header.magic, header.version);
    if (header.header_len < sizeof(header) || header.header_len % 4 != 0 || header.types_offset % 4 != 0)
        return refuse(why, "BTF with a header of %u octets, and types at %u", header.header_len, header.types_offset);
    if (!section_fits(header.header_len, header.types_offset, header.types_len, btf->len) ||
        !section_fits(header.header_len, header.strings_offset, header.strings_len, btf->len))
        return refuse(why, "the sections of BTF lie outside its %zu octets", btf->len);
    btf->types = (const uint8_t *)btf->octets + header.header_len + header.types_offset;
    btf->types_len = header.types_len;
    btf->strings = (const char *)btf->octets + header.header_len + header.strings_offset;
    btf->strings_len = header.strings_len;
    if (btf->strings_len == 0 ? !btf->base : btf->strings[btf->strings_len - 1] != '\0')
        return refuse(why, "the strings of BTF have no end");
    return 0;
}

/* Octets of the record at an offset, 0 if it does not lie in the section or is none. */
static uint32_t record_len(const struct btf *btf, uint32_t offset, char why[BTF_WHY_BOUND]) {
    const struct btf_type *type = record_at(btf, offset);
    uint32_t left = btf->types_len - offset, len;

    if (left < sizeof(*type)) {
        refuse(why, "the types of BTF are cut off");
        return 0;
    }
    if (kind_of(type) == KIND_VOID || kind_of(type) >= N_KINDS) {
        refuse(why, "BTF has a type of kind %u, which is not known", kind_of(type));
        return 0;
    }
    if (type->info & ~(UINT32_C(1) << 31 | UINT32_C(0x1f) << 24 | UINT32_C(0xffff))) {
        refuse(why, "a type of BTF has reserved bits set: %#x", type->info);
        return 0;
    }
    len = (uint32_t)sizeof(*type) + extra[kind_of(type)].once + extra[kind_of(type)].each * vlen_of(type);
    if (len > left) {
        refuse(why, "a type of BTF has %u parts, and is cut off", vlen_of(type));
        return 0;
    }
    return len;
}

/* Whether structures are looked for by the name of this type. */
static bool is_entry(const struct btf *btf, const struct btf_type *type) {
    return (is_structure(type) || kind_of(type) == KIND_TYPEDEF) && name_at(btf, type->name)[0] != '\0';
}

/* Goes through all records: how many types, and how many of them are found by name. */
static int count_types(struct btf *btf, char why[BTF_WHY_BOUND]) {
    for (uint32_t offset = 0; offset < btf->types_len;) {
        uint32_t len = record_len(btf, offset, why);

        if (len == 0)
            return VMIBUS_GUEST_UNPROVEN;
        btf->n_own++;
        btf->n_entries += is_entry(btf, record_at(btf, offset));
        offset += len;
    }
    return 0;
}

/* FNV-1a, of a name's beginning. */
static uint32_t hash(const char *name) {
    uint32_t sum = UINT32_C(2166136261);

    for (int i = 0; i < HASH_BOUND && name[i]; i++)
        sum = (sum ^ (uint8_t)name[i]) * UINT32_C(16777619);
    return sum;
}

static void index_types(struct btf *btf) {
    uint32_t n = 0;

    for (uint32_t i = 0, offset = 0; i < btf->n_own; i++) {
        const struct btf_type *type = record_at(btf, offset);

        btf->offsets[i] = offset;
        offset += (uint32_t)sizeof(*type) + extra[kind_of(type)].once + extra[kind_of(type)].each * vlen_of(type);
        if (is_entry(btf, type))
            btf->entries[n++].id = btf->first_id + i;
    }
    memset(btf->buckets, 0xff, btf->n_buckets * sizeof(*btf->buckets));
    /* Backwards: each goes to the front of its bucket. */
    while (n-- > 0) {
        uint32_t *bucket = &btf->buckets[hash(name_at(btf, type_at(btf, btf->entries[n].id)->name)) & (btf->n_buckets - 1)];

        btf->entries[n].next = *bucket;
        *bucket = n;
    }
}

static int make_index(struct btf *btf) {
    btf->n_buckets = 1;
    while (btf->n_buckets < btf->n_entries)
        btf->n_buckets *= 2;
    btf->offsets = calloc((size_t)btf->n_own + 1, sizeof(*btf->offsets));
    btf->entries = calloc((size_t)btf->n_entries + 1, sizeof(*btf->entries));
    btf->buckets = calloc(btf->n_buckets, sizeof(*btf->buckets));
    if (!btf->offsets || !btf->entries || !btf->buckets)
        return -ENOMEM;
    index_types(btf);
    return 0;
}

int btf_new(struct btf **btfp, const struct btf *base, void *octets, size_t len, char why[BTF_WHY_BOUND]) {
    struct btf *btf = calloc(1, sizeof(*btf));
    int r = 0;

    *btfp = NULL;
    if (!btf) {
        free(octets);
        return -ENOMEM;
    }
    *btf = (struct btf){
        .base = base,
        .octets = octets,
        .len = len,
        .first_id = base ? btf_n_types(base) : 1,
        .first_string = base ? btf_strings_len(base) : 0,
    };
    if (len > BTF_LEN_MAX)
        r = refuse(why, "BTF of %zu octets is longer than %u", len, BTF_LEN_MAX);
    if (r == 0)
        r = read_header(btf, why);
    if (r == 0)
        r = count_types(btf, why);
    if (r == 0)
        r = make_index(btf);
    if (r != 0) {
        btf_free(btf);
        return r;
    }
    *btfp = btf;
    return 0;
}

struct btf *btf_free(struct btf *btf) {
    if (!btf)
        return NULL;
    free(btf->buckets);
    free(btf->entries);
    free(btf->offsets);
    free(btf->octets);
    free(btf);
    return NULL;
}

uint32_t btf_n_types(const struct btf *btf) {
    return btf->first_id + btf->n_own;
}

uint32_t btf_strings_len(const struct btf *btf) {
    return btf->first_string + btf->strings_len;
}

size_t btf_footprint(const struct btf *btf) {
    return sizeof(*btf) + btf->len + btf->n_own * sizeof(*btf->offsets) + btf->n_entries * sizeof(*btf->entries) +
           btf->n_buckets * sizeof(*btf->buckets);
}

/* --- types ------------------------------------------------------------------------------------------------------- */

/* Follows typedefs and qualifiers. NULL: void, no type, or a chain that is too long. */
static const struct btf_type *skip_modifiers(const struct btf *btf, uint32_t id, uint32_t *idp) {
    for (int i = 0; i < CHAIN_BOUND; i++) {
        const struct btf_type *type = type_at(btf, id);

        if (!type)
            return NULL;
        switch (kind_of(type)) {
        case KIND_TYPEDEF:
        case KIND_VOLATILE:
        case KIND_CONST:
        case KIND_RESTRICT:
        case KIND_TYPE_TAG:
            id = type->size_or_type;
            break;
        default:
            if (idp)
                *idp = id;
            return type;
        }
    }
    return NULL;
}

static const struct btf_array *array_of(const struct btf_type *type) {
    return (const struct btf_array *)(const void *)(type + 1);
}

/*
 * The size of a type in octets; that of an array of no elements is one element's.
 * Returns whether it has one, below 4 GiB.
 */
static bool size_of(const struct btf *btf, uint32_t id, uint32_t *size) {
    uint32_t n = 1;

    for (int i = 0; i < CHAIN_BOUND; i++) {
        const struct btf_type *type = skip_modifiers(btf, id, NULL);
        const struct btf_array *array;

        switch (type ? kind_of(type) : KIND_VOID) {
        case KIND_PTR:
            return !__builtin_mul_overflow(n, (uint32_t)POINTER_SIZE, size);
        case KIND_INT:
        case KIND_STRUCT:
        case KIND_UNION:
        case KIND_ENUM:
        case KIND_ENUM64:
        case KIND_FLOAT:
            return !__builtin_mul_overflow(n, type->size_or_type, size);
        case KIND_ARRAY:
            array = array_of(type);
            if (__builtin_mul_overflow(n, array->n > 0 ? array->n : 1, &n))
                return false;
            id = array->type;
            break;
        default:
            return false;
        }
    }
    return false;
}

/* Whether a type is an array of no elements. */
static bool is_without_size(const struct btf *btf, uint32_t id) {
    const struct btf_type *type = skip_modifiers(btf, id, NULL);

    return type && kind_of(type) == KIND_ARRAY && array_of(type)->n == 0;
}

/* The word that an integer has: bits 0 to 7 how many bits, 16 to 23 where they begin, bit 24 signed. */
static uint32_t integer_word(const struct btf_type *type) {
    return *(const uint32_t *)(const void *)(type + 1);
}

static bool is_signed(const struct btf_type *type) {
    switch (kind_of(type)) {
    case KIND_INT:
        return integer_word(type) >> 24 & 1;
    case KIND_ENUM:
    case KIND_ENUM64:
        return flag_of(type);
    default:
        return false;
    }
}

/* --- structures by name ------------------------------------------------------------------------------------------ */

/* Whether a type, found by name, is a structure: a typedef counts if what it stands for has no name of its own. */
static const struct btf_type *structure_of(const struct btf *btf, uint32_t id) {
    const struct btf_type *type = type_at(btf, id), *structure = skip_modifiers(btf, id, NULL);

    if (!structure || !is_structure(structure))
        return NULL;
    return structure == type || name_at(btf, structure->name)[0] == '\0' ? structure : NULL;
}

/* The first entry of this BTF, its base aside, with an id above `above`; what it stands for is looked up in `all`. */
static uint32_t find_own(const struct btf *all, const struct btf *btf, const char *name, uint32_t above) {
    uint32_t entry = btf->buckets[hash(name) & (btf->n_buckets - 1)];

    for (int i = 0; i < BUCKET_BOUND && entry != NO_ENTRY; i++, entry = btf->entries[entry].next) {
        uint32_t id = btf->entries[entry].id;

        if (id > above && strcmp(name_at(btf, type_at(btf, id)->name), name) == 0 && structure_of(all, id))
            return id;
    }
    return 0;
}

uint32_t btf_find_structure(const struct btf *btf, const char *name, uint32_t after) {
    for (const struct btf *all = btf; btf; btf = btf->base) {
        uint32_t id;

        if (after >= btf_n_types(btf))
            return 0;
        if (after != 0 && after < btf->first_id)
            continue;
        id = find_own(all, btf, name, after);
        if (id != 0)
            return id;
        after = 0;
    }
    return 0;
}

int btf_structure_size(const struct btf *btf, uint32_t id, uint32_t *size) {
    const struct btf_type *type = structure_of(btf, id);

    if (!type)
        return VMIBUS_GUEST_UNPROVEN;
    *size = type->size_or_type;
    return 0;
}

/* --- members ------------------------------------------------------------------------------------------------------ */

/* A step of a path: a name, and maybe the index of an element. */
struct step {
    const char *name;
    size_t len;
    bool is_element;
    uint32_t index;
};

/* What was found: a type at a place. */
struct place {
    uint32_t type;
    uint64_t bit;      /* from the beginning of the outermost structure */
    uint32_t n_bits;   /* of a bit field with the structure's flag; else 0 */
};

/* A search of one step; what it may still look at. */
struct search {
    const struct btf *btf;
    const struct step *step;
    uint32_t left;
    char *why;
};

/* Takes the next step off a path. False: there is none, or what stands there is no path. */
static bool next_step(const char **path, struct step *step) {
    const char *at = *path;

    *step = (struct step){.name = at, .len = strcspn(at, ".[")};
    at += step->len;
    if (step->len == 0)
        return false;
    if (*at == '[') {
        char *end;
        unsigned long index = strtoul(at + 1, &end, 10);

        if (end == at + 1 || *end != ']' || index > UINT32_MAX)
            return false;
        step->is_element = true;
        step->index = (uint32_t)index;
        at = end + 1;
    }
    if (*at != '\0' && *at++ != '.')
        return false;
    *path = at;
    return true;
}

static bool is_named(const struct search *search, uint32_t name) {
    const char *text = name_at(search->btf, name);

    return strncmp(text, search->step->name, search->step->len) == 0 && text[search->step->len] == '\0';
}

/* Whether a member lies in its structure, as far as can be said. */
static bool member_fits(const struct btf *btf, const struct btf_type *structure, const struct place *place) {
    uint64_t bits = place->n_bits;
    uint32_t size;

    if (bits == 0) {
        if (!size_of(btf, place->type, &size))
            return false;
        bits = is_without_size(btf, place->type) ? 0 : (uint64_t)size * 8;
    }
    return place->bit + bits <= (uint64_t)structure->size_or_type * 8;
}

/* Looks for a member, also in nameless structures. The place is relative to the structure. */
static int search_members(struct search *search, const struct btf_type *structure, unsigned int depth, struct place *place) {
    const struct btf_member *members = (const struct btf_member *)(const void *)(structure + 1);

    if (depth >= NESTING_BOUND)
        return refuse(search->why, "nameless structures contain each other more than %d deep", NESTING_BOUND);
    for (uint32_t i = 0; i < vlen_of(structure); i++) {
        const struct btf_member *member = &members[i];
        struct place here = {.type = member->type, .bit = member->offset};
        bool is_nameless = name_at(search->btf, member->name)[0] == '\0';
        const struct btf_type *inner;
        int r;

        if (search->left-- == 0) {
            search->left = 0;
            return refuse(search->why, "a structure has more than %d members", MEMBERS_BOUND);
        }
        if (!is_nameless && !is_named(search, member->name))
            continue;
        if (flag_of(structure)) {
            here.bit = member->offset & 0xffffff;
            here.n_bits = member->offset >> 24;
        }
        inner = is_nameless ? skip_modifiers(search->btf, member->type, NULL) : NULL;
        if (is_nameless && (!inner || !is_structure(inner)))
            continue;
        r = inner ? search_members(search, inner, depth + 1, place) : 0;
        if (r == VMIBUS_GUEST_NOT_FOUND)
            continue;
        if (r != 0)
            return r;
        if (!member_fits(search->btf, structure, &here) || (inner && here.bit % 8 != 0))
            return refuse(search->why, "it lies outside its structure, or has no size");
        if (inner)
            place->bit += here.bit;
        else
            *place = here;
        return 0;
    }
    return VMIBUS_GUEST_NOT_FOUND;
}

/* Goes on to an element of an array. */
static int take_element(const struct search *search, struct place *place) {
    const struct btf_type *type = skip_modifiers(search->btf, place->type, NULL);
    const struct btf_array *array;
    uint32_t size;

    if (!type || kind_of(type) != KIND_ARRAY || place->n_bits != 0)
        return VMIBUS_GUEST_NOT_FOUND;
    array = array_of(type);
    if (search->step->index >= array->n && (array->n != 0 || search->step->index != 0))
        return VMIBUS_GUEST_NOT_FOUND;
    if (!size_of(search->btf, array->type, &size))
        return refuse(search->why, "it is an array of what has no size");
    place->type = array->type;
    place->bit += (uint64_t)size * search->step->index * 8;
    return 0;
}

static int take_step(const struct btf *btf, const struct step *step, struct place *place, char why[BTF_WHY_BOUND]) {
    struct search search = {.btf = btf, .step = step, .left = MEMBERS_BOUND, .why = why};
    const struct btf_type *structure = skip_modifiers(btf, place->type, NULL);
    uint64_t from = place->bit;
    int r;

    if (!structure || !is_structure(structure) || place->n_bits != 0)
        return VMIBUS_GUEST_NOT_FOUND;
    r = search_members(&search, structure, 0, place);
    if (r == 0 && step->is_element)
        r = take_element(&search, place);
    place->bit += from;
    return r;
}

/* Makes a field of a place. The bits of a field without the structure's flag stand at its integer. */
static int make_field(const struct btf *btf, struct place place, struct linux_field *field, char why[BTF_WHY_BOUND]) {
    const struct btf_type *type = skip_modifiers(btf, place.type, NULL);
    uint32_t size;

    if (!type || !size_of(btf, place.type, &size))
        return refuse(why, "it has no size");
    if (place.n_bits == 0 && kind_of(type) == KIND_INT) {
        uint32_t word = integer_word(type), n_bits = word & 0xff, from = word >> 16 & 0xff;

        if (from + n_bits > (uint64_t)size * 8)
            return refuse(why, "it is an integer of %u octets with %u bits", size, n_bits);
        if (n_bits > 0 && n_bits != size * 8) {
            place.n_bits = n_bits;
            place.bit += from;
        }
    }
    if (place.n_bits == 0 && place.bit % 8 != 0)
        return refuse(why, "it begins within an octet");
    *field = (struct linux_field){.offset = (uint32_t)(place.bit / 8), .size = size, .is_signed = is_signed(type)};
    if (place.n_bits > 0) {
        field->bit = (uint8_t)(place.bit % 8);
        field->bits = (uint8_t)place.n_bits;
        field->size = (field->bit + place.n_bits + 7) / 8;
    }
    if (place.bit / 8 > UINT32_MAX || (field->bits > 0 && field->size > 8) || field->size == 0)
        return refuse(why, "it has a size that no member has");
    return 0;
}

int btf_find_member(const struct btf *btf, uint32_t id, const char *path, struct linux_field *field, char why[BTF_WHY_BOUND]) {
    struct place place = {.type = id};

    *field = (struct linux_field){0};
    if (!structure_of(btf, id))
        return VMIBUS_GUEST_NOT_FOUND;
    for (int i = 0; i < NESTING_BOUND; i++) {
        struct step step;
        int r = next_step(&path, &step) ? take_step(btf, &step, &place, why) : VMIBUS_GUEST_NOT_FOUND;

        if (r != 0)
            return r;
        if (*path == '\0')
            return make_field(btf, place, field, why);
    }
    return VMIBUS_GUEST_NOT_FOUND;
}

/* --- enumerators --------------------------------------------------------------------------------------------------- */

static bool find_value(const struct btf *btf, const struct btf_type *type, const char *name, int64_t *value) {
    bool is_long = kind_of(type) == KIND_ENUM64;
    const uint8_t *at = (const uint8_t *)(type + 1);

    for (uint32_t i = 0; i < vlen_of(type); i++, at += extra[kind_of(type)].each) {
        struct btf_value entry = {0};

        memcpy(&entry, at, extra[kind_of(type)].each);
        if (strcmp(name_at(btf, entry.name), name) != 0)
            continue;
        if (is_long)
            *value = (int64_t)((uint64_t)entry.high << 32 | entry.low);
        else
            *value = flag_of(type) ? (int64_t)(int32_t)entry.low : (int64_t)entry.low;
        return true;
    }
    return false;
}

int btf_find_enumerator(const struct btf *btf, const char *name, int64_t *value) {
    for (; btf; btf = btf->base) {
        for (uint32_t i = 0; i < btf->n_own; i++) {
            const struct btf_type *type = record_at(btf, btf->offsets[i]);

            if ((kind_of(type) == KIND_ENUM || kind_of(type) == KIND_ENUM64) && find_value(btf, type, name, value))
                return 0;
        }
    }
    return VMIBUS_GUEST_NOT_FOUND;
}
