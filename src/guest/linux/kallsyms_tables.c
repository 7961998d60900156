/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the tables of kallsyms lie in a kernel, and a copy of them.
 *
 * Since 6.0 the note has their addresses (kernel/crash_core.c).  Before, the image is searched for what the table of tokens has
 * in every kernel, the digits, each as a token of its own, and everything around it must then be as scripts/kallsyms.c
 * wrote it until 6.4: offsets, relative base, number of symbols, names, markers, (order of names,) tokens, index of tokens,
 * each aligned to 8.
 */
#include "kallsyms.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#define PAGE UINT64_C(4096)

/* The image ends within so many octets of its text's beginning: KERNEL_IMAGE_SIZE is 1 GiB, and read-only data is not last. */
#define IMAGE_SEARCHED (UINT64_C(256) << 20)

/* Names are at most so long in what is searched for: kernels that have more tell where they are. */
#define NAMES_SEARCHED (UINT64_C(16) << 20)

/*
 * Octets that are read to look closer at what looks like the tables. A kernel has one such place or two; an image may be full of
 * them, each page of it the same.
 */
#define CLOSER_MAX (UINT64_C(256) << 20)
#define CLOSER_TOKENS (UINT64_C(256) << 10)    /* what looking at tokens costs, in such octets */

/* Octets read at a time. */
#define PART ((size_t)1 << 16)

#define MARKER_SYMBOLS 256

static uint64_t align_up(uint64_t value) {
    return (value + 7) & ~UINT64_C(7);
}

/* --- by the note ----------------------------------------------------------------------------------------------- */

int kallsyms_find_by_note(struct vmibus_linux *kernel, struct kallsyms_places *places) {
    uint64_t relative_base = 0, n_symbols = 0;
    uint32_t number;
    int r;

    *places = (struct kallsyms_places){0};
    if (!linux_note_symbol(kernel, "kallsyms_names", &places->names) ||
        !linux_note_symbol(kernel, "kallsyms_num_syms", &n_symbols) ||
        !linux_note_symbol(kernel, "kallsyms_token_table", &places->token_table) ||
        !linux_note_symbol(kernel, "kallsyms_token_index", &places->token_index))
        return VMIBUS_GUEST_NOT_FOUND;
    if (linux_note_symbol(kernel, "kallsyms_offsets", &places->offsets)) {
        r = linux_note_symbol(kernel, "kallsyms_relative_base", &relative_base)
                ? linux_read_u64(kernel, relative_base, &places->relative_base)
                : 0;    /* kernels after 6.18 have none */
        if (r)
            return r;
    } else if (!linux_note_symbol(kernel, "kallsyms_addresses", &places->addresses)) {
        return VMIBUS_GUEST_NOT_FOUND;
    }
    r = linux_read_u32(kernel, n_symbols, &number);
    places->n_symbols = number;
    /* In every kernel the tokens come behind the names. */
    places->names_len = places->token_table > places->names && places->token_table - places->names <= KALLSYMS_NAMES_MAX
                            ? (size_t)(places->token_table - places->names)
                            : 0;
    return r;
}

/* --- by structure ---------------------------------------------------------------------------------------------- */

/* Takes the cost of a closer look off what is left. False: it is too much. */
static bool look_closer(uint64_t *left, uint64_t cost) {
    if (cost > *left) {
        *left = 0;
        return false;
    }
    *left -= cost;
    return true;
}

/* Reads a copy of guest memory; NULL where it cannot be had. */
static void *copy_of(const struct vmibus_linux *kernel, uint64_t gva, size_t len) {
    void *copy = malloc(len ? len : 1);

    if (copy && linux_read(kernel, gva, copy, len) != 0) {
        free(copy);
        copy = NULL;
    }
    return copy;
}

/* The index of tokens that fits a table of tokens which begins at `at` of text; false: none does. */
static bool index_tokens(const char *text, size_t len, size_t at, uint16_t *index, size_t *end) {
    size_t begin = at;

    for (size_t i = 0; i < KALLSYMS_TOKENS; i++) {
        const char *nul = at < len ? memchr(text + at, '\0', len - at) : NULL;

        if (!nul || at - begin >= KALLSYMS_TOKEN_TABLE_MAX)
            return false;
        index[i] = (uint16_t)(at - begin);
        at = (size_t)(nul - text) + 1;
    }
    *end = at;
    return true;
}

/* The digits' tokens lie at `digits`; the table of tokens, which begins 48 tokens before, must agree with an index behind it. */
static bool check_tokens(const struct vmibus_linux *kernel, uint64_t digits, struct kallsyms_places *places, uint64_t *left) {
    enum { BEFORE = 16384, SIZE = BEFORE + KALLSYMS_TOKEN_TABLE_MAX / 2 };
    char *text = look_closer(left, CLOSER_TOKENS) ? copy_of(kernel, digits - BEFORE, SIZE) : NULL;
    uint16_t *index = calloc(2 * KALLSYMS_TOKENS, sizeof(*index));
    size_t at = BEFORE - 1, end;
    bool fits = false;

    /* The texts of the 48 tokens before it, and the padding before the first one. */
    for (size_t i = 0; text && i < '0' && at > 0; i++)
        while (at > 0 && text[--at])
            ;
    at = (size_t)(align_up(digits - BEFORE + at + 1) - (digits - BEFORE));
    /* Tokens before the digits may be empty: then the beginning is a multiple of 8 somewhat further up. */
    for (unsigned int tries = 0; text && index && !fits && tries < 64 && at >= 8; tries++, at -= 8) {
        uint64_t table = digits - BEFORE + at;

        if (!index_tokens(text, SIZE, at, index, &end) || index['0'] != BEFORE - at)
            continue;
        places->token_table = table;
        places->token_index = align_up(digits - BEFORE + end);
        fits = linux_read(kernel, places->token_index, index + KALLSYMS_TOKENS, KALLSYMS_TOKENS * sizeof(*index)) == 0 &&
               memcmp(index, index + KALLSYMS_TOKENS, KALLSYMS_TOKENS * sizeof(*index)) == 0;
    }
    free(text);
    free(index);
    return fits;
}

/* Where n names end, as an offset in the copy; 0: they do not. */
static size_t pass_names(const uint8_t *names, size_t len, size_t n) {
    size_t at = 0;

    for (; n > 0; n--) {
        size_t tokens;

        if (at + 2 > len)
            return 0;
        tokens = names[at++];
        if (tokens & 0x80)
            tokens = (tokens & 0x7f) | (size_t)names[at++] << 7;
        if (tokens == 0 || tokens > len - at)
            return 0;
        at += tokens;
    }
    return at;
}

/* What may lie between names and tokens: a marker of 4 octets (8 until 4.20) for each 256 symbols; some have 3 octets a name. */
static bool is_gap(uint64_t gap, uint64_t n_symbols) {
    uint64_t n_markers = (n_symbols + MARKER_SYMBOLS - 1) / MARKER_SYMBOLS, sequence = align_up(3 * n_symbols);

    return gap == align_up(4 * n_markers) || gap == 8 * n_markers || gap == align_up(4 * n_markers) + sequence;
}

/* The number of symbols, the names behind it, and what follows them up to the tokens. */
static bool check_names(const struct vmibus_linux *kernel, uint64_t number, struct kallsyms_places *places, uint64_t *left) {
    uint64_t n_symbols, end = 0;
    uint8_t *copy;

    places->names = number + 8;
    places->names_len = (size_t)(places->token_table - places->names);
    if (linux_read_u64(kernel, number, &n_symbols) || n_symbols == 0 || n_symbols > KALLSYMS_SYMBOLS_MAX ||
        n_symbols > places->names_len)
        return false;
    copy = look_closer(left, places->names_len) ? copy_of(kernel, places->names, places->names_len) : NULL;
    if (copy)
        end = pass_names(copy, places->names_len, n_symbols);
    free(copy);
    places->n_symbols = n_symbols;
    places->offsets = number - 8 - align_up(n_symbols * 4);
    return end && is_gap(places->names_len - align_up(end), n_symbols);
}

/* The base, which is where the image's text begins, stands right before the number of symbols. */
static bool check_before_tokens(const struct vmibus_linux *kernel, struct kallsyms_places *places, uint64_t *left) {
    uint64_t *words = malloc(PART);
    bool found = false;

    for (uint64_t back = PART; words && !found && back <= NAMES_SEARCHED; back += PART) {
        uint64_t begin = (places->token_table & ~UINT64_C(7)) - back;

        if (!look_closer(left, PART) || linux_read(kernel, begin, words, PART))
            break;
        for (size_t i = PART / sizeof(*words); !found && *left > 0 && i-- > 0;)
            found = words[i] == places->relative_base && check_names(kernel, begin + (i + 1) * sizeof(*words), places, left);
    }
    free(words);
    return found;
}

/* One page and the beginning of the next. */
static bool search_page(const struct vmibus_linux *kernel, uint64_t page, const char *octets, size_t len,
                        struct kallsyms_places *places, uint64_t *left) {
    static const char digits[] = "0\0" "1\0" "2\0" "3\0" "4\0" "5\0" "6\0" "7\0" "8\0" "9";
    const char *at = octets, *found;

    while (*left > 0 && (found = memmem(at, len - (size_t)(at - octets), digits, sizeof(digits)))) {
        if (check_tokens(kernel, page + (uint64_t)(found - octets), places, left) && check_before_tokens(kernel, places, left))
            return true;
        at = found + 1;
    }
    return false;
}

int kallsyms_find_by_structure(struct vmibus_linux *kernel, struct kallsyms_places *places) {
    enum { OVERLAP = 32 };
    uint64_t begin, left = CLOSER_MAX;
    char *part;
    int r = VMIBUS_GUEST_NOT_FOUND;

    *places = (struct kallsyms_places){0};
    if (!linux_note_symbol(kernel, "_stext", &begin))
        return VMIBUS_GUEST_NOT_FOUND;
    part = malloc(PART + OVERLAP);
    if (!part)
        return -ENOMEM;
    places->relative_base = begin;
    begin &= ~(PAGE - 1);
    for (uint64_t at = 0; at < IMAGE_SEARCHED && left > 0 && r == VMIBUS_GUEST_NOT_FOUND; at += PART) {
        size_t done = 0;
        int ended = vmibus_guest_read(&kernel->reader, &kernel->root, begin + at, part, PART + OVERLAP, &done, NULL);

        if (ended < 0)
            r = ended;
        else if (search_page(kernel, begin + at, part, done, places, &left))
            r = 0;
        else if (ended && done < PART)  /* on behind the page that is not there */
            at += ((done + PAGE) & ~(PAGE - 1)) - PART;
    }
    free(part);
    return r;
}

/* --- the copy -------------------------------------------------------------------------------------------------- */

struct copies {
    uint8_t *names;
    char *tokens;
    uint16_t *token_index;
    void *addresses;
};

static void free_copies(struct copies *copies) {
    free(copies->names);
    free(copies->tokens);
    free(copies->token_index);
    free(copies->addresses);
}

/* What is there of the names; the decoder finds out whether that is enough. */
static int read_tables(struct vmibus_linux *kernel, const struct kallsyms_places *places, struct copies *copies,
                       struct kallsyms_tables *tables) {
    size_t width = places->offsets ? 4 : 8, tokens_len;
    uint64_t tokens_room = places->token_index - places->token_table;

    if (places->n_symbols == 0 || places->n_symbols > KALLSYMS_SYMBOLS_MAX || places->names_len == 0 ||
        tokens_room > KALLSYMS_TOKEN_TABLE_MAX)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the tables of kallsyms do not lie as they do in a kernel");
    tokens_len = (size_t)tokens_room;
    copies->names = copy_of(kernel, places->names, places->names_len);
    copies->tokens = copy_of(kernel, places->token_table, tokens_len);
    copies->token_index = copy_of(kernel, places->token_index, KALLSYMS_TOKENS * sizeof(uint16_t));
    copies->addresses = copy_of(kernel, places->offsets ? places->offsets : places->addresses, places->n_symbols * width);
    if (!copies->names || !copies->tokens || !copies->token_index || !copies->addresses)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the tables of kallsyms cannot be read");
    *tables = (struct kallsyms_tables){
        .names = copies->names,
        .names_len = places->names_len,
        .tokens = copies->tokens,
        .tokens_len = tokens_len,
        .token_index = copies->token_index,
        .offsets = places->offsets ? copies->addresses : NULL,
        .addresses = places->offsets ? NULL : copies->addresses,
        .n_symbols = places->n_symbols,
        .relative_base = places->relative_base,
        .offsets_gva = places->offsets,
    };
    return 0;
}

static int load(struct vmibus_linux *kernel, const struct kallsyms_places *places) {
    struct kallsyms_anchor anchors[] = {{"init_top_pgt", kernel->note.swapper_pg_dir}, {}, {}};
    struct copies copies = {0};
    struct kallsyms_tables tables;
    const char *why = NULL;
    int r = read_tables(kernel, places, &copies, &tables);

    if (linux_note_symbol(kernel, "_stext", &anchors[1].gva))
        anchors[1].name = "_stext";
    if (r == 0) {
        r = kallsyms_decode(&kernel->kallsyms, &tables, anchors, &why);
        if (r == VMIBUS_GUEST_UNPROVEN)
            linux_because(kernel, r, "kallsyms cannot be decoded: %s", why);
    }
    free_copies(&copies);
    return r;
}

int kallsyms_get(struct vmibus_linux *kernel, const struct kallsyms **symbolsp) {
    struct kallsyms_places places;
    int r = 0;

    if (!kernel->kallsyms) {
        r = kallsyms_find_by_note(kernel, &places);
        if (r == VMIBUS_GUEST_NOT_FOUND)
            r = kallsyms_find_by_structure(kernel, &places);
        if (r == 0)
            r = load(kernel, &places);
        else if (r > 0)
            r = linux_because(kernel, VMIBUS_GUEST_UNPROVEN, r == VMIBUS_GUEST_NOT_FOUND
                              ? "the kernel does not say where its symbols are, and nothing in its image looks like them"
                              : "the tables of kallsyms cannot be read");
    }
    *symbolsp = kernel->kallsyms;
    return r;
}

int linux_symbol(struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    const struct kallsyms *symbols;
    int r = kallsyms_get(kernel, &symbols);
    size_t index;

    *gva = 0;
    if (r)
        return r;
    index = kallsyms_find(symbols, name);
    if (index == kallsyms_count(symbols))
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "the kernel has no symbol %s", name);
    *gva = kallsyms_address(symbols, index);
    return 0;
}
