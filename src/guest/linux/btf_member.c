/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Members of a structure, by a path through nested ones. */
#include "btf_record.h"

#include <stdlib.h>
#include <string.h>

enum {
    NESTING_BOUND = 16,      /* nameless structures in each other, and steps of a path */
    MEMBERS_BOUND = 1 << 12, /* members looked at for one step of a path; the kernel's largest structures have hundreds */
};

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
    const char *text = btf_name_at(search->btf, name);

    return strncmp(text, search->step->name, search->step->len) == 0 && text[search->step->len] == '\0';
}

/* Whether a member lies in its structure, as far as can be said. */
static bool member_fits(const struct btf *btf, const struct btf_type *structure, const struct place *place) {
    uint64_t bits = place->n_bits;
    uint32_t size;

    if (bits == 0) {
        if (!btf_size_of(btf, place->type, &size))
            return false;
        bits = btf_is_without_size(btf, place->type) ? 0 : (uint64_t)size * 8;
    }
    return place->bit + bits <= (uint64_t)structure->size_or_type * 8;
}

/* Looks for a member, also in nameless structures. The place is relative to the structure. */
static int search_members(struct search *search, const struct btf_type *structure, unsigned int depth, struct place *place) {
    const struct btf_member *members = (const struct btf_member *)(const void *)(structure + 1);

    if (depth >= NESTING_BOUND)
        return btf_refuse(search->why, "nameless structures contain each other more than %d deep", NESTING_BOUND);
    for (uint32_t i = 0; i < btf_vlen_of(structure); i++) {
        const struct btf_member *member = &members[i];
        struct place here = {.type = member->type, .bit = member->offset};
        bool is_nameless = btf_name_at(search->btf, member->name)[0] == '\0';
        const struct btf_type *inner;
        int r;

        if (search->left-- == 0) {
            search->left = 0;
            return btf_refuse(search->why, "a structure has more than %d members", MEMBERS_BOUND);
        }
        if (!is_nameless && !is_named(search, member->name))
            continue;
        if (btf_flag_of(structure)) {
            here.bit = member->offset & 0xffffff;
            here.n_bits = member->offset >> 24;
        }
        inner = is_nameless ? btf_skip_modifiers(search->btf, member->type, NULL) : NULL;
        if (is_nameless && (!inner || !btf_is_structure(inner)))
            continue;
        r = inner ? search_members(search, inner, depth + 1, place) : 0;
        if (r == VMIBUS_GUEST_NOT_FOUND)
            continue;
        if (r != 0)
            return r;
        if (!member_fits(search->btf, structure, &here) || (inner && here.bit % 8 != 0))
            return btf_refuse(search->why, "it lies outside its structure, or has no size");
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
    const struct btf_type *type = btf_skip_modifiers(search->btf, place->type, NULL);
    const struct btf_array *array;
    uint32_t size;

    if (!type || btf_kind_of(type) != KIND_ARRAY || place->n_bits != 0)
        return VMIBUS_GUEST_NOT_FOUND;
    array = btf_array_of(type);
    if (search->step->index >= array->n && (array->n != 0 || search->step->index != 0))
        return VMIBUS_GUEST_NOT_FOUND;
    if (!btf_size_of(search->btf, array->type, &size))
        return btf_refuse(search->why, "it is an array of what has no size");
    place->type = array->type;
    place->bit += (uint64_t)size * search->step->index * 8;
    return 0;
}

static int take_step(const struct btf *btf, const struct step *step, struct place *place, char why[BTF_WHY_BOUND]) {
    struct search search = {.btf = btf, .step = step, .left = MEMBERS_BOUND, .why = why};
    const struct btf_type *structure = btf_skip_modifiers(btf, place->type, NULL);
    uint64_t from = place->bit;
    int r;

    if (!structure || !btf_is_structure(structure) || place->n_bits != 0)
        return VMIBUS_GUEST_NOT_FOUND;
    r = search_members(&search, structure, 0, place);
    if (r == 0 && step->is_element)
        r = take_element(&search, place);
    place->bit += from;
    return r;
}

/* Makes a field of a place. The bits of a field without the structure's flag stand at its integer. */
static int make_field(const struct btf *btf, struct place place, struct linux_field *field, char why[BTF_WHY_BOUND]) {
    const struct btf_type *type = btf_skip_modifiers(btf, place.type, NULL);
    uint32_t size;

    if (!type || !btf_size_of(btf, place.type, &size))
        return btf_refuse(why, "it has no size");
    if (place.n_bits == 0 && btf_kind_of(type) == KIND_INT) {
        uint32_t word = btf_integer_word(type), n_bits = word & 0xff, from = word >> 16 & 0xff;

        if (from + n_bits > (uint64_t)size * 8)
            return btf_refuse(why, "it is an integer of %u octets with %u bits", size, n_bits);
        if (n_bits > 0 && n_bits != size * 8) {
            place.n_bits = n_bits;
            place.bit += from;
        }
    }
    if (place.n_bits == 0 && place.bit % 8 != 0)
        return btf_refuse(why, "it begins within an octet");
    *field = (struct linux_field){.offset = (uint32_t)(place.bit / 8), .size = size, .is_signed = btf_is_signed(type)};
    if (place.n_bits > 0) {
        field->bit = (uint8_t)(place.bit % 8);
        field->bits = (uint8_t)place.n_bits;
        field->size = (field->bit + place.n_bits + 7) / 8;
    }
    if (place.bit / 8 > UINT32_MAX || (field->bits > 0 && field->size > 8) || field->size == 0)
        return btf_refuse(why, "it has a size that no member has");
    return 0;
}

int btf_find_member(const struct btf *btf, uint32_t id, const char *path, struct linux_field *field, char why[BTF_WHY_BOUND]) {
    struct place place = {.type = id};

    *field = (struct linux_field){0};
    if (!btf_structure_of(btf, id))
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
