/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake_btf: BTF that a test writes type by type, sound or not. By the numbers of Documentation/bpf/btf.rst; nothing
 * here uses the code under test. What does not fit aborts.
 */
#ifndef TESTS_GUEST_LIB_FAKE_BTF_H
#define TESTS_GUEST_LIB_FAKE_BTF_H

#include <stddef.h>
#include <stdint.h>

#define FAKE_BTF_HEADER 24

enum fake_btf_kind {
    FAKE_INT = 1,
    FAKE_PTR = 2,
    FAKE_ARRAY = 3,
    FAKE_STRUCT = 4,
    FAKE_UNION = 5,
    FAKE_ENUM = 6,
    FAKE_FWD = 7,
    FAKE_TYPEDEF = 8,
    FAKE_VOLATILE = 9,
    FAKE_CONST = 10,
    FAKE_RESTRICT = 11,
    FAKE_FUNC = 12,
    FAKE_FUNC_PROTO = 13,
    FAKE_VAR = 14,
    FAKE_DATASEC = 15,
    FAKE_FLOAT = 16,
    FAKE_DECL_TAG = 17,
    FAKE_TYPE_TAG = 18,
    FAKE_ENUM64 = 19,
};

#define FAKE_FLAG (UINT32_C(1) << 31)

struct fake_btf {
    uint32_t words[1 << 14]; /**< the type section */
    size_t n_words;
    char strings[1 << 14];
    uint32_t strings_len;
    uint32_t first_id;       /**< 1, or where the base ends */
    uint32_t first_string;   /**< 0, or where the base's strings end */
    uint32_t n;              /**< types */
    size_t open;             /**< where the record began that parts are added to */
};

/** Begins; @a first_id and @a first_string are 1 and 0 unless it goes on from another. */
void fake_btf_begin(struct fake_btf *self, uint32_t first_id, uint32_t first_string);

/** Adds a name. NULL and "" are 0. Returns its offset. */
uint32_t fake_btf_name(struct fake_btf *self, const char *name);

/** Adds a record's three words. The flag is FAKE_FLAG or 0. Returns the id. */
uint32_t fake_btf_type(struct fake_btf *self, const char *name, unsigned int kind, uint32_t flag, uint32_t size_or_type);

/** Adds a word to the last record, as it is. */
void fake_btf_word(struct fake_btf *self, uint32_t word);

/** Adds a part of three words to the last record, and counts it there. */
void fake_btf_member(struct fake_btf *self, const char *name, uint32_t type, uint32_t offset);

/** Adds a part of two words to the last record, and counts it there. */
void fake_btf_value(struct fake_btf *self, const char *name, uint32_t value);

uint32_t fake_btf_int(struct fake_btf *self, const char *name, uint32_t size, uint32_t word);
uint32_t fake_btf_array(struct fake_btf *self, uint32_t type, uint32_t n);

/** All of it as octets from malloc(). */
void *fake_btf_octets(const struct fake_btf *self, size_t *len);

#endif
