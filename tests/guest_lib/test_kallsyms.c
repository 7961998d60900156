/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kallsyms: decoding tables, sound ones and others, looking symbols up, and finding the tables in an image by the note and
 * by their structure.
 */
#include "harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_image.h"
#include "fake_kallsyms.h"

#define BASE FAKE_IMAGE_GVA

static const struct fake_symbol few[] = {
    {"A__per_cpu_start", 0},
    {"Acpu_number", 0x1000},
    {"T_stext", BASE},
    {"Tstartup_64", BASE},
    {"tlocal", BASE + 0x10},
    {"Tx_a_rather_long_token_y", BASE + 0x100},
    {"tlocal", BASE + 0x200},
    {"Dinit_task", BASE + 0x1000},
    {"Binit_top_pgt", BASE + 0x2000},
    {"B_end", BASE + 0x3000},
};

#define N_FEW (sizeof(few) / sizeof(few[0]))

static const struct kallsyms_anchor anchors[] = {{"_stext", BASE}, {"init_top_pgt", BASE + 0x2000}, {}};

static struct fake_kallsyms fake;

/* Decodes what fake has; NULL if it is refused, with the reason. */
static struct kallsyms *decode(struct kallsyms_tables tables, const char **why) {
    struct kallsyms *symbols;
    int r = kallsyms_decode(&symbols, &tables, anchors, why);

    ck_assert_int_eq(r, symbols ? 0 : VMIBUS_GUEST_UNPROVEN);
    return symbols;
}

static void check_few(const struct kallsyms *symbols) {
    ck_assert_uint_eq(kallsyms_count(symbols), N_FEW);
    for (size_t i = 0; i < N_FEW; i++) {
        char type;

        ck_assert_str_eq(kallsyms_name(symbols, i, &type), few[i].name + 1);
        ck_assert_int_eq(type, few[i].name[0]);
        ck_assert_uint_eq(kallsyms_address(symbols, i), few[i].gva);
    }
}

TEST(test_offsets_with_absolute_percpu_symbols) {
    struct kallsyms *symbols;
    const char *why;

    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    symbols = decode(fake_kallsyms_tables(&fake), &why);
    ck_assert_msg(symbols, "%s", why);
    check_few(symbols);
    kallsyms_free(symbols);
}

TEST(test_offsets_that_all_count_up) {
    struct kallsyms *symbols;
    const char *why;

    /* Per-CPU symbols have addresses of the image then. */
    fake_kallsyms_make(&fake, few + 2, N_FEW - 2, BASE, FAKE_OFFSETS_UP);
    symbols = decode(fake_kallsyms_tables(&fake), &why);
    ck_assert_msg(symbols, "%s", why);
    ck_assert_uint_eq(kallsyms_address(symbols, 0), BASE);
    ck_assert_uint_eq(kallsyms_address(symbols, N_FEW - 3), BASE + 0x3000);
    kallsyms_free(symbols);
}

/* They lie behind the text and before the data, so there are negative ones and others. */
TEST(test_offsets_from_their_own_place) {
    struct kallsyms *symbols;
    const char *why;

    fake_kallsyms_make(&fake, few + 2, N_FEW - 2, BASE + 0x1800, FAKE_OFFSETS_FROM_PLACE);
    symbols = decode(fake_kallsyms_tables(&fake), &why);
    ck_assert_msg(symbols, "%s", why);
    for (size_t i = 0; i < N_FEW - 2; i++)
        ck_assert_uint_eq(kallsyms_address(symbols, i), few[i + 2].gva);
    kallsyms_free(symbols);
}

TEST(test_whole_addresses) {
    uint64_t addresses[N_FEW];
    struct kallsyms_tables tables;
    struct kallsyms *symbols;
    const char *why;

    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_UP);
    for (size_t i = 0; i < N_FEW; i++)
        addresses[i] = few[i].gva;
    tables = fake_kallsyms_tables(&fake);
    tables.offsets = NULL;
    tables.addresses = addresses;
    symbols = decode(tables, &why);
    ck_assert_msg(symbols, "%s", why);
    check_few(symbols);
    kallsyms_free(symbols);
}

TEST(test_lookups) {
    struct kallsyms *symbols;
    const char *why;
    size_t index;

    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    symbols = decode(fake_kallsyms_tables(&fake), &why);
    ck_assert_msg(symbols, "%s", why);
    for (size_t i = 0; i < N_FEW; i++)
        ck_assert_uint_eq(kallsyms_find(symbols, few[i].name + 1), i == 6 ? 4 : i);
    /* Both of one name, in order; and nothing that is not there, the type with its name neither. */
    index = kallsyms_find(symbols, "local");
    index = kallsyms_find_next(symbols, index);
    ck_assert_uint_eq(index, 6);
    ck_assert_uint_eq(kallsyms_find_next(symbols, index), N_FEW);
    ck_assert_uint_eq(kallsyms_find(symbols, "tlocal"), N_FEW);
    ck_assert_uint_eq(kallsyms_find(symbols, ""), N_FEW);
    /* Of two at one address the first; up to the next; behind the last one too. */
    ck_assert_uint_eq(kallsyms_at(symbols, BASE), 2);
    ck_assert_uint_eq(kallsyms_at(symbols, BASE + 0xf), 2);
    ck_assert_uint_eq(kallsyms_at(symbols, BASE + 0x10), 4);
    ck_assert_uint_eq(kallsyms_at(symbols, UINT64_MAX), N_FEW - 1);
    ck_assert_uint_eq(kallsyms_at(symbols, 0xfff), 0);
    ck_assert_uint_eq(kallsyms_size(symbols, 2), 0x10);
    ck_assert_uint_eq(kallsyms_size(symbols, 3), 0x10);
    ck_assert_uint_eq(kallsyms_size(symbols, N_FEW - 1), 0);
    kallsyms_free(symbols);
}

/* A name of 300 tokens has a length of two octets. */
TEST(test_long_names) {
    static char name[302];
    struct fake_symbol symbols[] = {{"T_stext", BASE}, {name, BASE + 1}};
    struct kallsyms *decoded;
    const char *why;

    memset(name, 'x', 301);
    fake_kallsyms_make(&fake, symbols, 2, BASE, FAKE_OFFSETS_UP);
    decoded = decode(fake_kallsyms_tables(&fake), &why);
    ck_assert_msg(decoded, "%s", why);
    ck_assert_uint_eq(strlen(kallsyms_name(decoded, 1, NULL)), 300);
    ck_assert_uint_eq(kallsyms_find(decoded, name + 1), 1);
    kallsyms_free(decoded);
}

/* --- tables that are not sound --------------------------------------------------------------------------------------- */

static void check_refused(struct kallsyms_tables tables, const char *reason) {
    struct kallsyms *symbols;
    const char *why = "";

    symbols = decode(tables, &why);
    ck_assert_msg(!symbols, "taken, not refused: %s", reason);
    ck_assert_msg(strstr(why, reason), "%s, not: %s", why, reason);
}

TEST(test_p12_counts_that_cannot_be) {
    struct kallsyms_tables tables;

    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    tables = fake_kallsyms_tables(&fake);
    tables.n_symbols = 0;
    check_refused(tables, "number of symbols");
    tables.n_symbols = KALLSYMS_SYMBOLS_MAX + 1;
    check_refused(tables, "number of symbols");
    tables.n_symbols = UINT32_MAX;
    check_refused(tables, "number of symbols");
    tables.n_symbols = N_FEW + 1;
    check_refused(tables, "names end before");
}

/* Wherever the names are cut, it is noticed, and nothing behind is read (the sanitizer sees). */
TEST(test_p09_cut_names) {
    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    for (size_t len = 0; len < fake.names_len; len++) {
        struct kallsyms_tables tables = fake_kallsyms_tables(&fake);
        uint8_t *names = malloc(len ? len : 1);

        ck_assert_ptr_nonnull(names);
        memcpy(names, fake.names, len);
        tables.names = names;
        tables.names_len = len;
        check_refused(tables, "names end before");
        free(names);
    }
}

TEST(test_p09_tokens_without_an_end) {
    struct kallsyms_tables tables;

    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    tables = fake_kallsyms_tables(&fake);
    for (tables.tokens_len = 0; tables.tokens_len < fake.tokens_len; tables.tokens_len++) {
        char *tokens = malloc(tables.tokens_len + 1);

        ck_assert_ptr_nonnull(tokens);
        memcpy(tokens, fake.tokens, tables.tokens_len);
        tables.tokens = tokens;
        check_refused(tables, "token");
        free(tokens);
    }
    tables.tokens = fake.tokens;
    memset(fake.tokens, 'x', sizeof(fake.tokens));
    tables.tokens_len = sizeof(fake.tokens);
    check_refused(tables, "token");
}

TEST(test_p12_index_of_tokens_that_contradicts_them) {
    for (size_t i = 0; i < KALLSYMS_TOKENS; i++) {
        fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
        fake.token_index[i] ^= 1;
        check_refused(fake_kallsyms_tables(&fake), "index of its tokens");
    }
}

TEST(test_p12_tokens_that_are_no_text) {
    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    fake.tokens[fake.token_index['a']] = '\x1b';
    check_refused(fake_kallsyms_tables(&fake), "no text");
}

TEST(test_p12_empty_and_endless_names) {
    struct fake_symbol symbols[] = {{"T_stext", BASE}, {"T", BASE + 1}};
    static char name[520];

    fake_kallsyms_make(&fake, symbols, 2, BASE, FAKE_OFFSETS_UP);
    check_refused(fake_kallsyms_tables(&fake), "empty or too long");
    memset(name, 'x', sizeof(name) - 1);
    symbols[1].name = name;
    fake_kallsyms_make(&fake, symbols, 2, BASE, FAKE_OFFSETS_UP);
    check_refused(fake_kallsyms_tables(&fake), "empty or too long");
}

TEST(test_p12_addresses_that_contradict_the_note) {
    fake_kallsyms_make(&fake, few, N_FEW, BASE + 0x200000, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    fake.relative_base -= 0x1000;
    check_refused(fake_kallsyms_tables(&fake), "contradict the note");
    /* Without any symbol that the note names, nothing is proven. */
    fake_kallsyms_make(&fake, few + 3, 5, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    check_refused(fake_kallsyms_tables(&fake), "contradict the note");
}

TEST(test_p12_addresses_that_do_not_ascend) {
    fake_kallsyms_make(&fake, few, N_FEW, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
    fake.offsets[5] = fake.offsets[4] + 1;
    check_refused(fake_kallsyms_tables(&fake), "do not ascend");
}

/* Names that a guest makes all alike cost no more than others to take in. */
TEST(test_p09_a_thousand_symbols_of_one_name) {
    static struct fake_symbol symbols[FAKE_SYMBOLS_MAX];
    struct kallsyms *decoded;
    const char *why;
    size_t n = 0;

    for (size_t i = 0; i < FAKE_SYMBOLS_MAX; i++)
        symbols[i] = (struct fake_symbol){i ? "tsame" : "T_stext", BASE + i};
    fake_kallsyms_make(&fake, symbols, FAKE_SYMBOLS_MAX, BASE, FAKE_OFFSETS_UP);
    decoded = decode(fake_kallsyms_tables(&fake), &why);
    ck_assert_msg(decoded, "%s", why);
    for (size_t at = kallsyms_find(decoded, "same"); at < FAKE_SYMBOLS_MAX; at = kallsyms_find_next(decoded, at))
        ck_assert_uint_eq(at, ++n);
    ck_assert_uint_eq(n, FAKE_SYMBOLS_MAX - 1);
    kallsyms_free(decoded);
}

/* --- finding the tables ---------------------------------------------------------------------------------------------- */

/* Puts the tables into an image in the order of kernels up to 6.4; returns where they begin. */
static void put_tables(struct fake_image *image, struct kallsyms_places *places, size_t marker_size, bool with_sequence) {
    uint64_t at = FAKE_IMAGE_GVA + 0x300000;
    size_t n_markers = (fake.n + 255) / 256;

#define PUT(place, from, len) (place = at, memcpy(fake_image_at(image, at), from, len), at = (at + (len) + 7) & ~UINT64_C(7))
    uint64_t ignored, number = fake.n;

    memset(places, 0, sizeof(*places));
    PUT(places->offsets, fake.offsets, fake.n * 4);
    PUT(ignored, &fake.relative_base, 8);
    PUT(ignored, &number, 8);
    PUT(places->names, fake.names, fake.names_len);
    for (size_t i = 0; i < n_markers; i++)
        memcpy(fake_image_at(image, at + i * marker_size), &fake.markers[i], 4);
    at = (at + n_markers * marker_size + 7) & ~UINT64_C(7);
    if (with_sequence)
        at = (at + 3 * fake.n + 7) & ~UINT64_C(7);
    PUT(places->token_table, fake.tokens, fake.tokens_len);
    PUT(places->token_index, fake.token_index, sizeof(fake.token_index));
#undef PUT
    (void)ignored;
}

static void make_many(void) {
    static struct fake_symbol symbols[FAKE_SYMBOLS_MAX];
    static char names[FAKE_SYMBOLS_MAX][24];

    for (size_t i = 0; i < FAKE_SYMBOLS_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "tsymbol_%zu", i);
        symbols[i] = (struct fake_symbol){i ? names[i] : "T_stext", BASE + 16 * i};
    }
    fake_kallsyms_make(&fake, symbols, FAKE_SYMBOLS_MAX, BASE, FAKE_OFFSETS_ABSOLUTE_PERCPU);
}

static void check_structure(size_t marker_size, bool with_sequence) {
    struct kallsyms_places places;
    struct fake_image image;
    uint64_t gva;

    make_many();
    fake_image_begin(&image);
    put_tables(&image, &places, marker_size, with_sequence);
    fake_image_note(&image, "SYMBOL(_stext)=%" PRIx64, BASE);
    fake_image_open(&image);
    ck_assert_msg(linux_symbol(image.kernel, "symbol_1000", &gva) == 0, "%s", vmibus_linux_why(image.kernel));
    ck_assert_uint_eq(gva, BASE + 16000);
    ck_assert_int_eq(linux_symbol(image.kernel, "symbol", &gva), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_str_eq(vmibus_linux_why(image.kernel), "the kernel has no symbol symbol");
    fake_image_end(&image);
}

TEST(test_structure) {
    check_structure(4, false);
}

TEST(test_structure_with_markers_of_8_octets) {
    check_structure(8, false);
}

TEST(test_structure_with_the_order_of_names) {
    check_structure(4, true);
}

TEST(test_p12_nothing_in_the_image) {
    struct fake_image image;
    uint64_t gva;

    fake_image_begin(&image);
    fake_image_note(&image, "SYMBOL(_stext)=%" PRIx64, BASE);
    fake_image_open(&image);
    ck_assert_int_eq(linux_symbol(image.kernel, "_stext", &gva), VMIBUS_GUEST_UNPROVEN);
    ck_assert_msg(strstr(vmibus_linux_why(image.kernel), "does not say where its symbols are"), "%s",
                  vmibus_linux_why(image.kernel));
    fake_image_end(&image);
}

/* An image of nothing but what tables of tokens have: each place costs a closer look, and there are too many. */
TEST(test_p09_an_image_full_of_digits_is_given_up, .timeout = 60) {
    static const char digits[] = "0\0" "1\0" "2\0" "3\0" "4\0" "5\0" "6\0" "7\0" "8\0" "9";
    struct fake_image image;
    uint64_t gva;

    fake_image_begin(&image);
    for (uint64_t at = 0x10000; at + 2 * sizeof(digits) < FAKE_IMAGE_LEN; at += sizeof(digits))
        memcpy(fake_image_at(&image, FAKE_IMAGE_GVA + at), digits, sizeof(digits));
    fake_image_note(&image, "SYMBOL(_stext)=%" PRIx64, BASE);
    fake_image_open(&image);
    ck_assert_int_eq(linux_symbol(image.kernel, "_stext", &gva), VMIBUS_GUEST_UNPROVEN);
    ck_assert_uint_lt(image.guest.reads, 1000000);
    fake_image_end(&image);
}

/* A budget ends whatever is under way; with a larger one it goes well. */
TEST(test_p09_reads_that_are_budgeted) {
    struct kallsyms_places places;
    struct fake_image image;
    uint64_t gva, word;

    make_many();
    fake_image_begin(&image);
    put_tables(&image, &places, 4, false);
    fake_image_note(&image, "SYMBOL(_stext)=%" PRIx64, BASE);
    fake_image_open(&image);
    vmibus_linux_set_budget(image.kernel, 2);
    ck_assert_int_eq(linux_symbol(image.kernel, "symbol_1000", &gva), VMIBUS_GUEST_UNPROVEN);
    ck_assert_msg(strstr(vmibus_linux_why(image.kernel), "more reads"), "%s", vmibus_linux_why(image.kernel));
    image.guest.reads = 0;
    ck_assert_int_eq(linux_read_u64(image.kernel, BASE, &word), VMIBUS_GUEST_UNFINISHED);
    ck_assert_uint_eq(image.guest.reads, 0);
    vmibus_linux_set_budget(image.kernel, 10000);
    ck_assert_int_eq(linux_symbol(image.kernel, "symbol_1000", &gva), 0);
    fake_image_end(&image);
}

/* Any single octet of what surrounds the names that is wrong: refused, or the very same symbols. */
TEST(test_p12_structure_that_is_nearly_right) {
    struct kallsyms_places places;
    struct fake_image image;

    make_many();
    fake_image_begin(&image);
    put_tables(&image, &places, 4, false);
    fake_image_note(&image, "SYMBOL(_stext)=%" PRIx64, BASE);
    fake_image_open(&image);
    for (int i = 0; i < 16; i++) {
        uint8_t *octet = fake_image_at(&image, places.names - 16 + (uint64_t)i);
        struct kallsyms_places found;

        *octet ^= 0x55;
        ck_assert_int_eq(kallsyms_find_by_structure(image.kernel, &found), VMIBUS_GUEST_NOT_FOUND);
        *octet ^= 0x55;
    }
    fake_image_end(&image);
}

static void note_tables(struct fake_image *image, const struct kallsyms_places *places) {
    fake_image_note(image, "SYMBOL(_stext)=%" PRIx64, BASE);
    fake_image_note(image, "SYMBOL(kallsyms_names)=%" PRIx64, places->names);
    fake_image_note(image, "SYMBOL(kallsyms_num_syms)=%" PRIx64, places->names - 8);
    fake_image_note(image, "SYMBOL(kallsyms_token_table)=%" PRIx64, places->token_table);
    fake_image_note(image, "SYMBOL(kallsyms_token_index)=%" PRIx64, places->token_index);
    fake_image_note(image, "SYMBOL(kallsyms_offsets)=%" PRIx64, places->offsets);
    fake_image_note(image, "SYMBOL(kallsyms_relative_base)=%" PRIx64, places->names - 16);
}

static bool count_symbol(void *context, const struct vmibus_linux_symbol *symbol) {
    ck_assert_ptr_null(symbol->module);
    return --*(size_t *)context > 0;
}

TEST(test_note) {
    struct vmibus_linux_symbol symbol;
    struct kallsyms_places places;
    struct fake_image image;
    size_t left = 100;

    make_many();
    fake_image_begin(&image);
    put_tables(&image, &places, 4, false);
    note_tables(&image, &places);
    fake_image_open(&image);
    ck_assert_int_eq(vmibus_linux_symbol_at(image.kernel, BASE + 0x13, &symbol), 0);
    ck_assert_str_eq(symbol.name, "symbol_1");
    ck_assert_uint_eq(symbol.gva, BASE + 0x10);
    ck_assert_uint_eq(symbol.size, 16);
    ck_assert_int_eq(vmibus_linux_visit_symbols(image.kernel, NULL, count_symbol, &left, NULL), 0);
    ck_assert_uint_eq(left, 0);
    /* Below the image and behind its end there is none, and this kernel has no modules that it could be of. */
    ck_assert_int_gt(vmibus_linux_symbol_at(image.kernel, 0x1000, &symbol), 0);
    ck_assert_int_gt(vmibus_linux_symbol_at(image.kernel, BASE + 0x700000, &symbol), 0);
    fake_image_end(&image);
}

/* A number of symbols that the guest sets to what it likes: refused without reading so much. */
TEST(test_p09_note_with_hostile_counts) {
    static const uint32_t counts[] = {0, KALLSYMS_SYMBOLS_MAX, KALLSYMS_SYMBOLS_MAX + 1, UINT32_MAX, FAKE_SYMBOLS_MAX + 1};

    make_many();
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct kallsyms_places places;
        struct fake_image image;
        uint64_t gva;

        fake_image_begin(&image);
        put_tables(&image, &places, 4, false);
        note_tables(&image, &places);
        memcpy(fake_image_at(&image, places.names - 8), &counts[i], 4);
        fake_image_open(&image);
        ck_assert_int_eq(linux_symbol(image.kernel, "_stext", &gva), VMIBUS_GUEST_UNPROVEN);
        ck_assert_uint_lt(image.guest.reads, 20000);
        fake_image_end(&image);
    }
}

/* Tables that the note puts where nothing is, or the one before the other. */
TEST(test_p12_note_with_wrong_places) {
    make_many();
    for (int which = 0; which < 6; which++) {
        struct kallsyms_places places, wrong;
        struct fake_image image;
        uint64_t gva;

        fake_image_begin(&image);
        put_tables(&image, &places, 4, false);
        wrong = places;
        *(uint64_t *[]){&wrong.names, &wrong.token_table, &wrong.token_index, &wrong.offsets, &wrong.names,
                        &wrong.token_index}[which] =
            which < 4 ? UINT64_C(0xffffffffa0000000) : which == 4 ? places.token_table + 8 : places.token_table - 8;
        note_tables(&image, &wrong);
        fake_image_open(&image);
        ck_assert_int_eq(linux_symbol(image.kernel, "_stext", &gva), VMIBUS_GUEST_UNPROVEN);
        ck_assert_str_ne(vmibus_linux_why(image.kernel), "nothing has failed");
        fake_image_end(&image);
    }
}

HARNESS_SUITE("kallsyms", HARNESS_QUICK)
