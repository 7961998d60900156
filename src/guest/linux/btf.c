/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* BTF as a whole: framing and index when it is opened, and what is found by name. */
#include "btf_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BTF_MAGIC = 0xeb9f,
    BTF_VERSION = 1,

    HASH_BOUND = 64,         /* octets of a name that its hash is of: any number of types may share one of megabytes */
    BUCKET_BOUND = 1 << 12,  /* entries of a bucket that are looked at: a guest can make them all fall into one */
};

#define NO_ENTRY UINT32_MAX

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

/* What a kind adds to the header: octets in any case, and for each of the vlen. */
static const struct {
    uint8_t once, each;
} extra[N_KINDS] = {
    [KIND_INT] = {.once = 4},       [KIND_ARRAY] = {.once = 12},     [KIND_STRUCT] = {.each = 12},
    [KIND_UNION] = {.each = 12},    [KIND_ENUM] = {.each = 8},       [KIND_FUNC_PROTO] = {.each = 8},
    [KIND_VAR] = {.once = 4},       [KIND_DATASEC] = {.each = 12},   [KIND_DECL_TAG] = {.once = 4},
    [KIND_ENUM64] = {.each = 12},
};

/* --- opening ---------------------------------------------------------------------------------------------------- */

static bool section_fits(uint64_t header_len, uint64_t offset, uint64_t len, uint64_t whole) {
    return header_len + offset + len <= whole;
}

static int read_header(struct btf *btf, char why[BTF_WHY_BOUND]) {
    struct btf_header header;

    if (btf->len < sizeof(header))
        return btf_refuse(why, "BTF of %zu octets has no header", btf->len);
    memcpy(&header, btf->octets, sizeof(header));
    if (header.magic != BTF_MAGIC || header.version != BTF_VERSION)
        return btf_refuse(why, "this is no BTF of version %d: it begins with %#x, %u", BTF_VERSION, header.magic, header.version);
    if (header.header_len < sizeof(header) || header.header_len % 4 != 0 || header.types_offset % 4 != 0)
        return btf_refuse(why, "BTF with a header of %u octets, and types at %u", header.header_len, header.types_offset);
    if (!section_fits(header.header_len, header.types_offset, header.types_len, btf->len) ||
        !section_fits(header.header_len, header.strings_offset, header.strings_len, btf->len))
        return btf_refuse(why, "the sections of BTF lie outside its %zu octets", btf->len);
    btf->types = (const uint8_t *)btf->octets + header.header_len + header.types_offset;
    btf->types_len = header.types_len;
    btf->strings = (const char *)btf->octets + header.header_len + header.strings_offset;
    btf->strings_len = header.strings_len;
    if (btf->strings_len == 0 ? !btf->base : btf->strings[btf->strings_len - 1] != '\0')
        return btf_refuse(why, "the strings of BTF have no end");
    return 0;
}

/* Octets of the record at an offset, 0 if it does not lie in the section or is none. */
static uint32_t record_len(const struct btf *btf, uint32_t offset, char why[BTF_WHY_BOUND]) {
    const struct btf_type *type = btf_record_at(btf, offset);
    uint32_t left = btf->types_len - offset, len;

    if (left < sizeof(*type)) {
        btf_refuse(why, "the types of BTF are cut off");
        return 0;
    }
    if (btf_kind_of(type) == KIND_VOID || btf_kind_of(type) >= N_KINDS) {
        btf_refuse(why, "BTF has a type of kind %u, which is not known", btf_kind_of(type));
        return 0;
    }
    if (type->info & ~(UINT32_C(1) << 31 | UINT32_C(0x1f) << 24 | UINT32_C(0xffff))) {
        btf_refuse(why, "a type of BTF has reserved bits set: %#x", type->info);
        return 0;
    }
    len = (uint32_t)sizeof(*type) + extra[btf_kind_of(type)].once + extra[btf_kind_of(type)].each * btf_vlen_of(type);
    if (len > left) {
        btf_refuse(why, "a type of BTF has %u parts, and is cut off", btf_vlen_of(type));
        return 0;
    }
    return len;
}

/* Whether structures are looked for by the name of this type. */
static bool is_entry(const struct btf *btf, const struct btf_type *type) {
    return (btf_is_structure(type) || btf_kind_of(type) == KIND_TYPEDEF) && btf_name_at(btf, type->name)[0] != '\0';
}

/* Goes through all records: how many types, and how many of them are found by name. */
static int count_types(struct btf *btf, char why[BTF_WHY_BOUND]) {
    for (uint32_t offset = 0; offset < btf->types_len;) {
        uint32_t len = record_len(btf, offset, why);

        if (len == 0)
            return VMIBUS_GUEST_UNPROVEN;
        btf->n_own++;
        btf->n_entries += is_entry(btf, btf_record_at(btf, offset));
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
        const struct btf_type *type = btf_record_at(btf, offset);

        btf->offsets[i] = offset;
        offset += (uint32_t)sizeof(*type) + extra[btf_kind_of(type)].once + extra[btf_kind_of(type)].each * btf_vlen_of(type);
        if (is_entry(btf, type))
            btf->entries[n++].id = btf->first_id + i;
    }
    memset(btf->buckets, 0xff, btf->n_buckets * sizeof(*btf->buckets));
    /* Backwards: each goes to the front of its bucket. */
    while (n-- > 0) {
        uint32_t *bucket = &btf->buckets[hash(btf_name_at(btf, btf_type_at(btf, btf->entries[n].id)->name)) & (btf->n_buckets - 1)];

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
        r = btf_refuse(why, "BTF of %zu octets is longer than %u", len, BTF_LEN_MAX);
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

/* --- structures by name ------------------------------------------------------------------------------------------ */

/* The first entry of this BTF, its base aside, with an id above `above`; what it stands for is looked up in `all`. */
static uint32_t find_own(const struct btf *all, const struct btf *btf, const char *name, uint32_t above) {
    uint32_t entry = btf->buckets[hash(name) & (btf->n_buckets - 1)];

    for (int i = 0; i < BUCKET_BOUND && entry != NO_ENTRY; i++, entry = btf->entries[entry].next) {
        uint32_t id = btf->entries[entry].id;

        if (id > above && strcmp(btf_name_at(btf, btf_type_at(btf, id)->name), name) == 0 && btf_structure_of(all, id))
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
    const struct btf_type *type = btf_structure_of(btf, id);

    if (!type)
        return VMIBUS_GUEST_UNPROVEN;
    *size = type->size_or_type;
    return 0;
}

/* --- enumerators --------------------------------------------------------------------------------------------------- */

static bool find_value(const struct btf *btf, const struct btf_type *type, const char *name, int64_t *value) {
    bool is_long = btf_kind_of(type) == KIND_ENUM64;
    const uint8_t *at = (const uint8_t *)(type + 1);

    for (uint32_t i = 0; i < btf_vlen_of(type); i++, at += extra[btf_kind_of(type)].each) {
        struct btf_value entry = {0};

        memcpy(&entry, at, extra[btf_kind_of(type)].each);
        if (strcmp(btf_name_at(btf, entry.name), name) != 0)
            continue;
        if (is_long)
            *value = (int64_t)((uint64_t)entry.high << 32 | entry.low);
        else
            *value = btf_flag_of(type) ? (int64_t)(int32_t)entry.low : (int64_t)entry.low;
        return true;
    }
    return false;
}

int btf_find_enumerator(const struct btf *btf, const char *name, int64_t *value) {
    for (; btf; btf = btf->base) {
        for (uint32_t i = 0; i < btf->n_own; i++) {
            const struct btf_type *type = btf_record_at(btf, btf->offsets[i]);

            if ((btf_kind_of(type) == KIND_ENUM || btf_kind_of(type) == KIND_ENUM64) && find_value(btf, type, name, value))
                return 0;
        }
    }
    return VMIBUS_GUEST_NOT_FOUND;
}
