/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From names to places: tables of wishes looked up in BTF, what was found kept, and members read by it.
 *
 * Several structures may share a name (two drivers' "struct context"). For each name, the first that has all that is wished of it
 * is taken, in the order of BTF's ids; if none has, the first of those that have most. So the same kernel always gives the same.
 */
#include "fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btf.h"

enum {
    CANDIDATES_BOUND = 16, /* structures of one name that are looked at */
};

/* --- BTF in the guest -------------------------------------------------------------------------------------------- */

int linux_layouts_read(struct vmibus_linux *kernel, const struct btf *base, uint64_t gva, uint64_t len, const char *of,
                       struct btf **btfp) {
    char why[BTF_WHY_BOUND] = "";
    void *octets;
    int r;

    *btfp = NULL;
    if (len == 0 || len > BTF_LEN_MAX)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the BTF of %.60s would have %#llx octets", of,
                             (unsigned long long)len);
    octets = malloc((size_t)len);
    if (!octets)
        return -ENOMEM;
    r = linux_read(kernel, gva, octets, (size_t)len);
    if (r != 0) {
        free(octets);
        return linux_because(kernel, r, "the BTF of %.60s at %#llx cannot be read", of, (unsigned long long)gva);
    }
    r = btf_new(btfp, base, octets, (size_t)len, why);
    return r > 0 ? linux_because(kernel, r, "the BTF of %.60s is not believed: %s", of, why) : r;
}

int linux_layouts(struct vmibus_linux *kernel, const struct btf **btfp) {
    uint64_t start, stop;
    int r = 0;

    if (!kernel->btf) {
        r = linux_symbol(kernel, "__start_BTF", &start);
        if (r == 0)
            r = linux_symbol(kernel, "__stop_BTF", &stop);
        if (r == VMIBUS_GUEST_NOT_FOUND)
            r = linux_because(kernel, VMIBUS_GUEST_UNPROVEN,
                              "the kernel does not describe its structures: it has no BTF (CONFIG_DEBUG_INFO_BTF)");
        if (r == 0)
            r = linux_layouts_read(kernel, NULL, start, stop - start, "vmlinux", &kernel->btf);
    }
    *btfp = kernel->btf;
    return r;
}

void linux_layouts_drop(struct vmibus_linux *kernel) {
    kernel->btf = btf_free(kernel->btf);
}

/* --- wishes ------------------------------------------------------------------------------------------------------- */

/* How many wishes stand for the same thing, from this one on. */
static size_t group_len(const struct linux_wish *wish) {
    size_t n = 1;

    while (wish[n].structure && wish[n].target == wish->target)
        n++;
    return n;
}

/* How well a structure does what is wished of its name. */
struct match {
    size_t n_fulfilled;
    bool is_complete;
};

/*
 * Looks at a group of alternatives as far as they are of one structure. It is no fault of the structure that it
 * has none of them, if one is optional or of another structure.
 */
static void match_group(const struct btf *btf, uint32_t id, const char *structure, const struct linux_wish *group, size_t n,
                        struct match *match) {
    bool is_wished = false, is_excused = false, is_there = false;

    for (size_t i = 0; i < n; i++) {
        char why[BTF_WHY_BOUND];
        struct linux_field field;
        bool is_own = strcmp(group[i].structure, structure) == 0;

        is_wished |= is_own;
        is_excused |= group[i].optional || !is_own;
        is_there |= is_own && btf_find_member(btf, id, group[i].path, &field, why) == 0;
    }
    match->n_fulfilled += is_there;
    match->is_complete &= !is_wished || is_there || is_excused;
}

static struct match match_structure(const struct btf *btf, uint32_t id, const char *structure, const struct linux_wish *wishes) {
    struct match match = {.is_complete = true};

    for (size_t n; wishes->structure; wishes += n) {
        n = group_len(wishes);
        match_group(btf, id, structure, wishes, n, &match);
    }
    return match;
}

/* The structure that a name stands for in a table of wishes; 0: there is none. */
static uint32_t choose_structure(const struct btf *btf, const char *structure, const struct linux_wish *wishes) {
    uint32_t best = btf_find_structure(btf, structure, 0);
    uint32_t id = best != 0 ? btf_find_structure(btf, structure, best) : 0;
    struct match best_match;

    if (id == 0)
        return best;
    best_match = match_structure(btf, best, structure, wishes);
    for (int i = 1; id != 0 && !best_match.is_complete && i < CANDIDATES_BOUND; i++) {
        struct match match = match_structure(btf, id, structure, wishes);

        if (match.is_complete || match.n_fulfilled > best_match.n_fulfilled) {
            best = id;
            best_match = match;
        }
        id = btf_find_structure(btf, structure, id);
    }
    return best;
}

/* The structure of a wish: as it was chosen for the wish before it, if that has the same name. */
struct choice {
    const char *structure;
    uint32_t id;
};

static int fulfil(struct vmibus_linux *kernel, const struct btf *btf, const struct linux_wish *all, const struct linux_wish *wish,
                  struct choice *choice, void *fields) {
    struct linux_field *field = (struct linux_field *)(void *)((char *)fields + wish->target);
    char why[BTF_WHY_BOUND] = "";
    int r = VMIBUS_GUEST_NOT_FOUND;

    if (!choice->structure || strcmp(choice->structure, wish->structure) != 0)
        *choice = (struct choice){.structure = wish->structure, .id = choose_structure(btf, wish->structure, all)};
    if (choice->id != 0)
        r = btf_find_member(btf, choice->id, wish->path, field, why);
    if (r == 0)
        return 0;
    *field = (struct linux_field){0};
    if (r == VMIBUS_GUEST_NOT_FOUND)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel's struct %s has no %s", wish->structure, wish->path);
    return linux_because(kernel, r, "the kernel's BTF is not believed where struct %s has %s: %s", wish->structure, wish->path,
                         why);
}

int linux_fields_resolve_in(struct vmibus_linux *kernel, const struct btf *btf, const struct linux_wish *wishes, void *fields) {
    struct choice choice = {0};
    size_t n;

    for (const struct linux_wish *group = wishes; group->structure; group += n) {
        bool is_optional = false;
        int r = VMIBUS_GUEST_UNPROVEN;

        n = group_len(group);
        for (size_t i = 0; i < n; i++)
            is_optional |= group[i].optional;
        for (size_t i = 0; r != 0 && i < n; i++)
            r = fulfil(kernel, btf, wishes, &group[i], &choice, fields);
        if (r != 0 && !is_optional)
            return r;
    }
    return 0;
}

int linux_fields_resolve(struct vmibus_linux *kernel, const struct linux_wish *wishes, void *fields) {
    const struct btf *btf;
    int r = linux_layouts(kernel, &btf);

    return r == 0 ? linux_fields_resolve_in(kernel, btf, wishes, fields) : r;
}

int linux_structure_size(struct vmibus_linux *kernel, const char *name, uint32_t *size) {
    const struct btf *btf;
    uint32_t id;
    int r = linux_layouts(kernel, &btf);

    if (r != 0)
        return r;
    id = btf_find_structure(btf, name, 0);
    if (id == 0)
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "the kernel has no struct %s", name);
    return btf_structure_size(btf, id, size);
}

int linux_enumerator(struct vmibus_linux *kernel, const char *name, int64_t *value) {
    const struct btf *btf;
    int r = linux_layouts(kernel, &btf);

    if (r == 0)
        r = btf_find_enumerator(btf, name, value);
    return r == VMIBUS_GUEST_NOT_FOUND ? linux_because(kernel, r, "the kernel has no enumerator %s", name) : r;
}

int linux_layout_get(struct vmibus_linux *kernel, void **kept, size_t size,
                       int (*look_up)(struct vmibus_linux *kernel, void *layout)) {
    void *layout;
    int r;

    if (*kept)
        return 0;
    layout = calloc(1, size);
    if (!layout)
        return -ENOMEM;
    r = look_up(kernel, layout);
    if (r == 0)
        *kept = layout;
    else
        free(layout);
    return r;
}

/* --- reading members ----------------------------------------------------------------------------------------------- */

/* Whether a field can be had as one number. */
static bool is_number(const struct linux_field *field) {
    switch (field->size) {
    case 1:
    case 2:
    case 4:
    case 8:
        return true;
    default:
        return field->bits > 0 && field->size > 0 && field->size < 8;
    }
}

/* The number that a field's octets are, lowest first. */
static uint64_t number_of(const uint8_t *octets, const struct linux_field *field) {
    unsigned int bits = field->bits > 0 ? field->bits : field->size * 8;
    uint64_t value = 0;

    for (uint32_t i = field->size; i-- > 0;)
        value = value << 8 | octets[i];
    value >>= field->bits > 0 ? field->bit : 0;
    if (bits >= 64)
        return value;
    value &= (UINT64_C(1) << bits) - 1;
    if (field->is_signed && (value >> (bits - 1) & 1))
        value |= ~UINT64_C(0) << bits;
    return value;
}

int linux_read_field(const struct vmibus_linux *kernel, uint64_t gva, const struct linux_field *field, uint64_t *value) {
    uint8_t octets[8];
    int r;

    *value = 0;
    if (!is_number(field))
        return -EINVAL;
    r = linux_read(kernel, gva + field->offset, octets, field->size);
    if (r == 0)
        *value = number_of(octets, field);
    return r;
}

bool linux_get_field(const void *copy, size_t size, const struct linux_field *field, uint64_t *value) {
    *value = 0;
    if (!is_number(field) || field->offset > size || field->size > size - field->offset)
        return false;
    *value = number_of((const uint8_t *)copy + field->offset, field);
    return true;
}

/* --- several at once ------------------------------------------------------------------------------------------------ */

/* Where the wanted members begin and end. */
static bool find_span(const struct linux_field *fields, size_t n, uint64_t *first, size_t *size) {
    uint64_t end = 0;

    *first = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        if (fields[i].size == 0)
            continue;
        *first = fields[i].offset < *first ? fields[i].offset : *first;
        end = (uint64_t)fields[i].offset + fields[i].size > end ? (uint64_t)fields[i].offset + fields[i].size : end;
    }
    *size = end > *first ? (size_t)(end - *first) : 0;
    return *size <= LINUX_FIELDS_SPAN_MAX;
}

int linux_read_fields(const struct vmibus_linux *kernel, uint64_t gva, const struct linux_field *fields, size_t n,
                      uint64_t *values) {
    uint8_t copy[LINUX_FIELDS_SPAN_MAX];
    uint64_t first;
    size_t size;
    int r;

    memset(values, 0, n * sizeof(*values));
    if (!find_span(fields, n, &first, &size))
        return VMIBUS_GUEST_UNPROVEN;
    if (size == 0)
        return 0;
    r = linux_read(kernel, gva + first, copy, size);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct linux_field field = fields[i];

        if (field.size == 0)
            continue;
        field.offset -= (uint32_t)first;
        if (!linux_get_field(copy, size, &field, &values[i]))
            r = VMIBUS_GUEST_UNPROVEN;
    }
    return r;
}
