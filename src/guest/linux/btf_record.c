/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See btf_record.h. */
#include "btf_record.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    POINTER_SIZE = 8,
    CHAIN_BOUND = 32, /* typedefs, qualifiers and arrays on the way to a type */
};

int btf_refuse(char why[BTF_WHY_BOUND], const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why, BTF_WHY_BOUND, format, arguments);
    va_end(arguments);
    return VMIBUS_GUEST_UNPROVEN;
}

const struct btf_type *btf_type_at(const struct btf *btf, uint32_t id) {
    while (id < btf->first_id) {
        if (!btf->base)
            return NULL;
        btf = btf->base;
    }
    if (id - btf->first_id >= btf->n_own)
        return NULL;
    return btf_record_at(btf, btf->offsets[id - btf->first_id]);
}

const char *btf_name_at(const struct btf *btf, uint32_t offset) {
    while (offset < btf->first_string)
        btf = btf->base;
    offset -= btf->first_string;
    return offset < btf->strings_len ? btf->strings + offset : "";
}

const struct btf_type *btf_skip_modifiers(const struct btf *btf, uint32_t id, uint32_t *idp) {
    for (int i = 0; i < CHAIN_BOUND; i++) {
        const struct btf_type *type = btf_type_at(btf, id);

        if (!type)
            return NULL;
        switch (btf_kind_of(type)) {
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

bool btf_size_of(const struct btf *btf, uint32_t id, uint32_t *size) {
    uint32_t n = 1;

    for (int i = 0; i < CHAIN_BOUND; i++) {
        const struct btf_type *type = btf_skip_modifiers(btf, id, NULL);
        const struct btf_array *array;

        switch (type ? btf_kind_of(type) : KIND_VOID) {
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
            array = btf_array_of(type);
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

bool btf_is_without_size(const struct btf *btf, uint32_t id) {
    const struct btf_type *type = btf_skip_modifiers(btf, id, NULL);

    return type && btf_kind_of(type) == KIND_ARRAY && btf_array_of(type)->n == 0;
}

bool btf_is_signed(const struct btf_type *type) {
    switch (btf_kind_of(type)) {
    case KIND_INT:
        return btf_integer_word(type) >> 24 & 1;
    case KIND_ENUM:
    case KIND_ENUM64:
        return btf_flag_of(type);
    default:
        return false;
    }
}

const struct btf_type *btf_structure_of(const struct btf *btf, uint32_t id) {
    const struct btf_type *type = btf_type_at(btf, id), *structure = btf_skip_modifiers(btf, id, NULL);

    if (!structure || !btf_is_structure(structure))
        return NULL;
    return structure == type || btf_name_at(btf, structure->name)[0] == '\0' ? structure : NULL;
}
