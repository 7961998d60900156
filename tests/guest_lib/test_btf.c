/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The BTF reader on BTF that the tests write: what is sound gives the right places, what is not is refused, in bounded time and
 * without a read outside (the sanitizers' builds see that).
 */
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_btf.h"
#include "guest/linux/btf.h"

static char why[BTF_WHY_BOUND];

/* Opens what was written; NULL if it is refused, as it should be with UNPROVEN only. */
static struct btf *open_octets(const struct btf *base, const void *octets, size_t len) {
    void *copy = malloc(len > 0 ? len : 1);
    struct btf *btf;
    int r;

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, octets, len);
    why[0] = '\0';
    r = btf_new(&btf, base, copy, len, why);
    if (r == 0)
        return btf;
    ck_assert_int_eq(r, VMIBUS_GUEST_UNPROVEN);
    ck_assert_ptr_null(btf);
    ck_assert_uint_gt(strlen(why), 0);
    return NULL;
}

static struct btf *open_fake(const struct fake_btf *fake, const struct btf *base) {
    size_t len;
    void *octets = fake_btf_octets(fake, &len);
    struct btf *btf = open_octets(base, octets, len);

    free(octets);
    return btf;
}

/* Finds a member of the first structure of a name; checks where it lies. */
static void check_member(const struct btf *btf, const char *structure, const char *path, uint32_t offset, uint32_t size) {
    uint32_t id = btf_find_structure(btf, structure, 0);
    struct linux_field field;
    int r;

    ck_assert_uint_ne(id, 0);
    r = btf_find_member(btf, id, path, &field, why);
    ck_assert_msg(r == 0, "%s.%s: %d %s", structure, path, r, why);
    ck_assert_msg(field.offset == offset && field.size == size, "%s.%s: at %" PRIu32 ", %" PRIu32 " octets", structure, path,
                  field.offset, field.size);
}

static int find(const struct btf *btf, const char *structure, const char *path, struct linux_field *field) {
    uint32_t id = btf_find_structure(btf, structure, 0);

    ck_assert_msg(id != 0, "no %s", structure);
    why[0] = '\0';
    return btf_find_member(btf, id, path, field, why);
}

static void check_absent(const struct btf *btf, const char *structure, const char *path) {
    struct linux_field field;

    ck_assert_int_eq(find(btf, structure, path, &field), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_uint_eq(field.size, 0);
}

static void check_refused(const struct btf *btf, const char *structure, const char *path) {
    struct linux_field field;

    ck_assert_int_eq(find(btf, structure, path, &field), VMIBUS_GUEST_UNPROVEN);
    ck_assert_uint_gt(strlen(why), 0);
}

/* Types that most tests begin with; their ids are these. */
enum {
    U64 = 1,
    S32,
    CHAR,
    POINTER,
};

static void begin(struct fake_btf *fake) {
    fake_btf_begin(fake, 1, 0);
    fake_btf_int(fake, "u64", 8, 64);
    fake_btf_int(fake, "int", 4, 1u << 24 | 32);
    fake_btf_int(fake, "char", 1, 1u << 24 | 8);
    fake_btf_type(fake, NULL, FAKE_PTR, 0, 0);
}

/* --- what is sound --------------------------------------------------------------------------------------------------- */

TEST(test_members_lie_where_they_are_said_to) {
    struct fake_btf fake;
    struct btf *btf;
    uint32_t array, matrix, list, qualified, inner, deep;

    begin(&fake);
    array = fake_btf_array(&fake, CHAR, 16);
    matrix = fake_btf_array(&fake, array, 3);
    list = fake_btf_type(&fake, "list", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "next", POINTER, 0);
    fake_btf_member(&fake, "prev", POINTER, 64);
    qualified = fake_btf_type(&fake, NULL, FAKE_CONST, 0, list);
    qualified = fake_btf_type(&fake, NULL, FAKE_VOLATILE, 0, qualified);
    qualified = fake_btf_type(&fake, "list_t", FAKE_TYPEDEF, 0, qualified);
    qualified = fake_btf_type(&fake, "tag", FAKE_TYPE_TAG, 0, qualified);
    qualified = fake_btf_type(&fake, NULL, FAKE_RESTRICT, 0, qualified);
    inner = fake_btf_type(&fake, NULL, FAKE_UNION, 0, 16);
    fake_btf_member(&fake, "word", U64, 0);
    fake_btf_member(&fake, "both", qualified, 0);
    deep = fake_btf_type(&fake, NULL, FAKE_STRUCT, 0, 24);
    fake_btf_member(&fake, "number", S32, 0);
    fake_btf_member(&fake, NULL, inner, 64);
    fake_btf_type(&fake, "task", FAKE_STRUCT, 0, 120);
    fake_btf_member(&fake, "state", S32, 0);
    fake_btf_member(&fake, NULL, deep, 64);
    fake_btf_member(&fake, "names", matrix, 256);
    fake_btf_member(&fake, "lists", fake_btf_name(&fake, "x") ? list : 0, 640);
    fake_btf_member(&fake, "tail", U64, 768);
    btf = open_fake(&fake, NULL);
    ck_assert_msg(btf != NULL, "%s", why);

    check_member(btf, "task", "state", 0, 4);
    check_member(btf, "task", "number", 8, 4);
    check_member(btf, "task", "word", 16, 8);
    check_member(btf, "task", "both", 16, 16);
    check_member(btf, "task", "both.prev", 24, 8);
    check_member(btf, "task", "names", 32, 48);
    check_member(btf, "task", "names[2]", 64, 16);
    check_member(btf, "task", "lists.prev", 88, 8);
    check_member(btf, "task", "tail", 96, 8);
    check_absent(btf, "task", "names[3]");
    check_absent(btf, "task", "tail[0]");
    check_absent(btf, "task", "tail.next");
    check_absent(btf, "task", "sta");
    check_absent(btf, "task", "states");
    check_absent(btf, "task", "");
    check_absent(btf, "task", ".");
    check_absent(btf, "task", "names[");
    check_absent(btf, "task", "names[x]");
    check_absent(btf, "task", "names[1]x");
    check_absent(btf, "task", "names[4294967298]");
    btf_free(btf);
}

TEST(test_bit_fields_of_both_forms) {
    struct fake_btf fake;
    struct linux_field field;
    struct btf *btf;
    uint32_t three;

    begin(&fake);
    three = fake_btf_int(&fake, "three bits", 4, 5u << 16 | 3);
    fake_btf_type(&fake, "flagged", FAKE_STRUCT, FAKE_FLAG, 16);
    fake_btf_member(&fake, "plain", S32, 0);
    fake_btf_member(&fake, "one", S32, 1u << 24 | 37);
    fake_btf_member(&fake, "wide", U64, 60u << 24 | 64);
    fake_btf_member(&fake, "bent", U64, 62u << 24 | 63);
    fake_btf_type(&fake, "old", FAKE_STRUCT, 0, 8);
    fake_btf_member(&fake, "three", three, 16);
    btf = open_fake(&fake, NULL);
    ck_assert_ptr_nonnull(btf);

    ck_assert_int_eq(find(btf, "flagged", "one", &field), 0);
    ck_assert_uint_eq(field.offset, 4);
    ck_assert_uint_eq(field.bit, 5);
    ck_assert_uint_eq(field.bits, 1);
    ck_assert_uint_eq(field.size, 1);
    ck_assert(field.is_signed);
    ck_assert_int_eq(find(btf, "flagged", "wide", &field), 0);
    ck_assert_uint_eq(field.bits, 60);
    ck_assert_uint_eq(field.size, 8);
    ck_assert_int_eq(find(btf, "flagged", "plain", &field), 0);
    ck_assert_uint_eq(field.bits, 0);
    check_refused(btf, "flagged", "bent"); /* 9 octets */
    ck_assert_int_eq(find(btf, "old", "three", &field), 0);
    ck_assert_uint_eq(field.offset, 2);
    ck_assert_uint_eq(field.bit, 5);
    ck_assert_uint_eq(field.bits, 3);
    btf_free(btf);
}

TEST(test_an_array_without_a_size_has_that_of_an_element) {
    struct fake_btf fake;
    struct btf *btf;
    uint32_t open;

    begin(&fake);
    open = fake_btf_array(&fake, U64, 0);
    fake_btf_type(&fake, "pid", FAKE_STRUCT, 0, 8);
    fake_btf_member(&fake, "level", S32, 0);
    fake_btf_member(&fake, "numbers", open, 64);
    btf = open_fake(&fake, NULL);
    check_member(btf, "pid", "numbers", 8, 8);
    check_member(btf, "pid", "numbers[0]", 8, 8);
    check_absent(btf, "pid", "numbers[1]");
    btf_free(btf);
}

TEST(test_structures_are_found_by_name_in_the_order_of_ids) {
    struct fake_btf fake;
    struct btf *btf;
    uint32_t first, nameless, id;

    begin(&fake);
    first = fake_btf_type(&fake, "same", FAKE_STRUCT, 0, 8);
    fake_btf_type(&fake, "same", FAKE_ENUM, 0, 4);
    fake_btf_type(&fake, "same", FAKE_FWD, 0, 0);
    fake_btf_type(&fake, "same", FAKE_TYPEDEF, 0, first);
    fake_btf_type(&fake, "same", FAKE_UNION, 0, 24);
    nameless = fake_btf_type(&fake, NULL, FAKE_STRUCT, 0, 12);
    fake_btf_type(&fake, "named_so", FAKE_TYPEDEF, 0, nameless);
    btf = open_fake(&fake, NULL);

    id = btf_find_structure(btf, "same", 0);
    ck_assert_uint_eq(id, first);
    id = btf_find_structure(btf, "same", id);
    ck_assert_uint_eq(id, first + 4);
    ck_assert_uint_eq(btf_find_structure(btf, "same", id), 0);
    ck_assert_uint_eq(btf_find_structure(btf, "other", 0), 0);
    ck_assert_uint_eq(btf_find_structure(btf, "", 0), 0);
    ck_assert_int_eq(btf_structure_size(btf, btf_find_structure(btf, "named_so", 0), &id), 0);
    ck_assert_uint_eq(id, 12);
    ck_assert_int_eq(btf_structure_size(btf, U64, &id), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(btf_structure_size(btf, 9999, &id), VMIBUS_GUEST_UNPROVEN);
    btf_free(btf);
}

TEST(test_enumerators) {
    struct fake_btf fake;
    struct btf *btf;
    int64_t value;

    begin(&fake);
    fake_btf_type(&fake, "unsigned", FAKE_ENUM, 0, 4);
    fake_btf_value(&fake, "MANY", 0xffffffff);
    fake_btf_type(&fake, "signed", FAKE_ENUM, FAKE_FLAG, 4);
    fake_btf_value(&fake, "MINUS", 0xfffffffe);
    fake_btf_type(&fake, "long", FAKE_ENUM64, 0, 8);
    fake_btf_member(&fake, "LONG", 5, 7);
    btf = open_fake(&fake, NULL);
    ck_assert_int_eq(btf_find_enumerator(btf, "MANY", &value), 0);
    ck_assert_int_eq(value, INT64_C(0xffffffff));
    ck_assert_int_eq(btf_find_enumerator(btf, "MINUS", &value), 0);
    ck_assert_int_eq(value, -2);
    ck_assert_int_eq(btf_find_enumerator(btf, "LONG", &value), 0);
    ck_assert_int_eq(value, INT64_C(0x700000005));
    ck_assert_int_eq(btf_find_enumerator(btf, "NONE", &value), VMIBUS_GUEST_NOT_FOUND);
    btf_free(btf);
}

TEST(test_kinds_that_are_of_no_use_are_passed_over) {
    struct fake_btf fake;
    struct btf *btf;

    begin(&fake);
    fake_btf_type(&fake, NULL, FAKE_FUNC_PROTO, 0, 0);
    fake_btf_value(&fake, "argument", U64);
    fake_btf_type(&fake, "function", FAKE_FUNC, 0, 5);
    fake_btf_type(&fake, "variable", FAKE_VAR, 0, U64);
    fake_btf_word(&fake, 1);
    fake_btf_type(&fake, ".data", FAKE_DATASEC, 0, 64);
    fake_btf_member(&fake, NULL, 7, 0);
    fake_btf_type(&fake, "double", FAKE_FLOAT, 0, 8);
    fake_btf_type(&fake, "tag", FAKE_DECL_TAG, 0, 6);
    fake_btf_word(&fake, UINT32_MAX);
    fake_btf_type(&fake, "forward", FAKE_FWD, FAKE_FLAG, 0);
    fake_btf_type(&fake, "last", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "x", U64, 0);
    fake_btf_member(&fake, "y", 9, 64);
    fake_btf_member(&fake, "f", 6, 64);
    btf = open_fake(&fake, NULL);
    ck_assert_msg(btf != NULL, "%s", why);
    check_member(btf, "last", "x", 0, 8);
    check_member(btf, "last", "y", 8, 8);
    check_refused(btf, "last", "f");
    btf_free(btf);
}

TEST(test_a_module_goes_on_where_vmlinux_ends) {
    static struct fake_btf base_fake, fake;
    struct btf *base, *btf;
    uint32_t both;

    begin(&base_fake);
    both = fake_btf_type(&base_fake, "both", FAKE_STRUCT, 0, 8);
    fake_btf_member(&base_fake, "in_base", U64, 0);
    fake_btf_type(&base_fake, "BASE", FAKE_ENUM, 0, 4);
    fake_btf_value(&base_fake, "OF_BASE", 3);
    base = open_fake(&base_fake, NULL);
    fake_btf_begin(&fake, btf_n_types(base), btf_strings_len(base));
    fake_btf_type(&fake, "both", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "in_module", both, 0);
    fake_btf_member(&fake, NULL, both, 64);
    btf = open_fake(&fake, base);
    ck_assert_msg(btf != NULL, "%s", why);

    ck_assert_uint_eq(btf_find_structure(btf, "both", 0), btf_n_types(base));
    ck_assert_uint_eq(btf_find_structure(btf, "both", btf_n_types(base)), both);
    ck_assert_uint_eq(btf_find_structure(btf, "both", both), 0);
    check_member(btf, "both", "in_module", 0, 8);
    check_member(btf, "both", "in_module.in_base", 0, 8);
    check_member(btf, "both", "in_base", 8, 8);
    ck_assert_int_eq(btf_find_enumerator(btf, "OF_BASE", &(int64_t){0}), 0);
    btf_free(btf);
    btf_free(base);
}

/* --- what is not ------------------------------------------------------------------------------------------------------- */

TEST(test_p09_btf_that_is_cut_is_refused) {
    struct fake_btf fake;
    uint8_t *octets;
    struct btf *btf;
    size_t len;

    begin(&fake);
    fake_btf_type(&fake, "list", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "next", POINTER, 0);
    octets = fake_btf_octets(&fake, &len);
    for (size_t i = 0; i < len; i++)
        ck_assert_ptr_null(open_octets(NULL, octets, i));
    /* The sections, cut one word at a time: what is opened then is shorter, and sound. */
    for (uint32_t word = 0; word * 4 < len; word++) {
        uint32_t types_len = word * 4;

        memcpy(octets + 12, &types_len, 4);
        btf = open_octets(NULL, octets, len);
        if (btf)
            btf_find_structure(btf, "list", 0);
        btf_free(btf);
    }
    free(octets);
}

TEST(test_p09_headers_that_lie_are_refused) {
    static const struct {
        size_t at;
        uint32_t value;
    } lies[] = {
        {0, 0x0001ebaf}, {0, 0x0002eb9f}, {0, 0x9feb0100}, {4, 0}, {4, 20}, {4, 26}, {4, UINT32_MAX}, {4, UINT32_MAX - 3},
        {8, 2}, {8, UINT32_MAX - 3}, {12, UINT32_MAX}, {12, UINT32_MAX - 3}, {16, UINT32_MAX}, {20, UINT32_MAX}, {20, 0},
        {20, 1 << 20}, {20, 3},
    };
    struct fake_btf fake;

    begin(&fake);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        size_t len;
        uint8_t *octets = fake_btf_octets(&fake, &len);

        memcpy(octets + lies[i].at, &lies[i].value, 4);
        ck_assert_msg(open_octets(NULL, octets, len) == NULL, "lie %zu is believed", i);
        free(octets);
    }
}

TEST(test_p12_a_kind_that_is_not_known_is_refused_by_its_number) {
    struct fake_btf fake;

    for (unsigned int kind = 20; kind < 32; kind++) {
        char number[8];

        begin(&fake);
        fake_btf_type(&fake, "strange", kind, 0, 0);
        ck_assert_ptr_null(open_fake(&fake, NULL));
        snprintf(number, sizeof(number), "%u", kind);
        ck_assert_msg(strstr(why, number), "%s", why);
    }
    begin(&fake);
    fake_btf_type(&fake, "void", 0, 0, 0);
    ck_assert_ptr_null(open_fake(&fake, NULL));
    begin(&fake);
    fake_btf_type(&fake, "reserved", FAKE_STRUCT, 1u << 20, 0);
    ck_assert_ptr_null(open_fake(&fake, NULL));
}

TEST(test_p09_more_parts_than_there_are_octets_are_refused) {
    static const unsigned int kinds[] = {FAKE_STRUCT, FAKE_UNION, FAKE_ENUM, FAKE_FUNC_PROTO, FAKE_DATASEC, FAKE_ENUM64};
    struct fake_btf fake;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        begin(&fake);
        fake_btf_type(&fake, "many", kinds[i], 0xffff, 8);
        ck_assert_ptr_null(open_fake(&fake, NULL));
    }
}

TEST(test_p09_chains_and_loops_end) {
    struct fake_btf fake;
    struct btf *btf;
    uint32_t self, array;

    begin(&fake);
    self = fake_btf_type(&fake, "self", FAKE_TYPEDEF, 0, 5);
    fake_btf_type(&fake, NULL, FAKE_CONST, 0, 7);
    fake_btf_type(&fake, NULL, FAKE_VOLATILE, 0, 6);
    array = fake_btf_array(&fake, 8, 2);
    fake_btf_type(&fake, "loops", FAKE_STRUCT, 0, 64);
    fake_btf_member(&fake, "a", self, 0);
    fake_btf_member(&fake, "b", 6, 0);
    fake_btf_member(&fake, "c", array, 0);
    fake_btf_member(&fake, "d", 12345, 0);
    fake_btf_member(&fake, "e", 0, 0);
    fake_btf_member(&fake, "f", UINT32_MAX, 0);
    btf = open_fake(&fake, NULL);
    ck_assert_ptr_nonnull(btf);
    ck_assert_uint_eq(btf_find_structure(btf, "self", 0), 0);
    for (const char *name = "abcdef"; *name; name++)
        check_refused(btf, "loops", (char[]){*name, '\0'});
    btf_free(btf);
}

TEST(test_p09_a_structure_that_contains_itself_is_refused) {
    struct fake_btf fake;
    struct btf *btf;

    begin(&fake);
    fake_btf_type(&fake, "self", FAKE_STRUCT, 0, 8);
    fake_btf_member(&fake, NULL, 5, 0);
    fake_btf_member(&fake, "me", 5, 0);
    btf = open_fake(&fake, NULL);
    check_refused(btf, "self", "x");
    ck_assert_msg(strstr(why, "deep"), "%s", why);
    btf_free(btf);
}

/* Nameless structures that hold the next one a hundred times: 10^30 ways to the last. */
TEST(test_p09_nesting_does_not_multiply, .timeout = 60) {
    static struct fake_btf fake;
    struct btf *btf;

    begin(&fake);
    for (uint32_t i = 0; i < 15; i++) {
        fake_btf_type(&fake, i == 0 ? "outer" : NULL, FAKE_STRUCT, 0, 8);
        for (int j = 0; j < 100; j++)
            fake_btf_member(&fake, NULL, 5 + i + 1, 0);
    }
    fake_btf_type(&fake, NULL, FAKE_STRUCT, 0, 8);
    fake_btf_member(&fake, "x", U64, 0);
    btf = open_fake(&fake, NULL);
    check_member(btf, "outer", "x", 0, 8);
    check_refused(btf, "outer", "y");
    btf_free(btf);
}

TEST(test_p12_members_outside_their_structure_are_refused) {
    struct fake_btf fake;
    struct btf *btf;
    uint32_t huge, huger, inner;

    begin(&fake);
    huge = fake_btf_array(&fake, U64, UINT32_MAX);
    huger = fake_btf_array(&fake, huge, UINT32_MAX);
    inner = fake_btf_type(&fake, NULL, FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "of_inner", U64, 64);
    fake_btf_type(&fake, "small", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "after", U64, 128);
    fake_btf_member(&fake, "over", U64, 72);
    fake_btf_member(&fake, "far", U64, UINT32_MAX - 7);
    fake_btf_member(&fake, "within", U64, 3);
    fake_btf_member(&fake, "huge", huge, 0);
    fake_btf_member(&fake, "huger", huger, 0);
    fake_btf_member(&fake, NULL, inner, 64);
    fake_btf_type(&fake, "bits", FAKE_STRUCT, FAKE_FLAG, 4);
    fake_btf_member(&fake, "over", S32, 4u << 24 | 30);
    fake_btf_member(&fake, "many", S32, 255u << 24);
    btf = open_fake(&fake, NULL);
    check_refused(btf, "small", "after");
    check_refused(btf, "small", "over");
    check_refused(btf, "small", "far");
    check_refused(btf, "small", "within");
    check_refused(btf, "small", "huge");
    check_refused(btf, "small", "huger");
    check_refused(btf, "small", "of_inner");
    check_refused(btf, "bits", "over");
    check_refused(btf, "bits", "many");
    btf_free(btf);
}

TEST(test_p09_names_outside_the_strings_are_no_names) {
    struct fake_btf fake;
    struct btf *btf;

    begin(&fake);
    fake_btf_type(&fake, "good", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "x", U64, 0);
    fake_btf_member(&fake, "y", U64, 64);
    fake.words[fake.open + 3] = UINT32_MAX;
    fake_btf_type(&fake, NULL, FAKE_STRUCT, 0, 8);
    fake.words[fake.open] = fake.strings_len;
    btf = open_fake(&fake, NULL);
    check_absent(btf, "good", "x");
    check_member(btf, "good", "y", 8, 8);
    btf_free(btf);
}

/* BTF of typedefs of void that share one name, as long as the strings are. */
static void *write_typedefs(uint32_t n, uint32_t name_len, size_t *len) {
    const uint32_t header[] = {0x0001eb9f, 24, 0, n * 12, n * 12, name_len + 2};
    uint32_t *words;

    *len = sizeof(header) + (size_t)n * 12 + name_len + 2;
    words = calloc(1, *len);
    ck_assert_ptr_nonnull(words);
    memcpy(words, header, sizeof(header));
    for (uint32_t i = 0; i < n; i++) {
        words[6 + 3 * i] = 1;
        words[7 + 3 * i] = UINT32_C(8) << 24;
    }
    memset((char *)words + sizeof(header) + (size_t)n * 12 + 1, 'x', name_len);
    return words;
}

/* A name that a million types share is not gone through a million times: else this never ends. */
TEST(test_p09_a_long_name_that_all_types_share_costs_little, .timeout = 60) {
    size_t len;
    void *octets = write_typedefs(1u << 20, 16u << 20, &len);
    struct btf *btf = open_octets(NULL, octets, len);

    ck_assert_ptr_nonnull(btf);
    btf_free(btf);
    free(octets);
}

/* Nor are all of them looked at again each time that something is looked up. */
TEST(test_p09_a_name_that_all_types_share_is_looked_up_in_bounded_time, .timeout = 60) {
    size_t len;
    void *octets = write_typedefs(2u << 20, 1, &len);
    struct btf *btf = open_octets(NULL, octets, len);

    ck_assert_ptr_nonnull(btf);
    for (int i = 0; i < 20000; i++)
        ck_assert_uint_eq(btf_find_structure(btf, "x", 0), 0);
    btf_free(btf);
    free(octets);
}

TEST(test_p09_integers_with_more_bits_than_octets_are_refused) {
    struct fake_btf fake;
    struct btf *btf;
    uint32_t wide, shifted, large;

    begin(&fake);
    large = fake_btf_int(&fake, "__int128", 16, 128);
    wide = fake_btf_int(&fake, "wide", 4, 255);
    shifted = fake_btf_int(&fake, "shifted", 4, 200u << 16 | 8);
    fake_btf_type(&fake, "s", FAKE_STRUCT, 0, 16);
    fake_btf_member(&fake, "wide", wide, 0);
    fake_btf_member(&fake, "shifted", shifted, 0);
    fake_btf_member(&fake, "large", large, 0);
    btf = open_fake(&fake, NULL);
    check_refused(btf, "s", "wide");
    check_refused(btf, "s", "shifted");
    check_member(btf, "s", "large", 0, 16);
    btf_free(btf);
}

HARNESS_SUITE("BTF", HARNESS_QUICK)
