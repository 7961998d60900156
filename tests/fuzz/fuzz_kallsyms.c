/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the decoding of kallsyms.  The input is a struct input, then the tables one behind the other: index of tokens,
 * tokens, offsets, names.  Decoding ends, and what it took can be looked up both ways.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/guest.h>

#include "fuzz/target.h"
#include "guest/linux/kallsyms.h"

struct input {
    uint64_t relative_base;
    uint64_t stext;         /* address of the anchor */
    uint32_t n_symbols;
    uint32_t tokens_len;
    uint32_t flags;         /* 1: addresses instead of offsets */
    uint32_t reserved;
};

/* A copy of a part of the input with nothing behind it, for the sanitizer. */
static void *take(const uint8_t **data, size_t *size, size_t len) {
    void *copy;

    if (len > *size)
        return NULL;
    copy = malloc(len ? len : 1);
    if (copy)
        memcpy(copy, *data, len);
    *data += len;
    *size -= len;
    return copy;
}

static void check(const struct kallsyms *symbols) {
    size_t n = kallsyms_count(symbols);

    for (size_t i = 0; i < n && i < 1000; i++) {
        char type;
        const char *name = kallsyms_name(symbols, i, &type);
        size_t found = kallsyms_find(symbols, name), steps = 0;
        uint64_t gva = kallsyms_address(symbols, i);

        while (found != i && found < n && steps++ < n)
            found = kallsyms_find_next(symbols, found);
        if (found != i || !*name || strlen(name) >= KALLSYMS_NAME_MAX || type <= ' ' || type > '~')
            abort();
        found = kallsyms_at(symbols, gva);
        if (found > i || kallsyms_address(symbols, found) != gva || (i > 0 && kallsyms_address(symbols, i - 1) > gva))
            abort();
        if (kallsyms_size(symbols, i) && kallsyms_at(symbols, gva + kallsyms_size(symbols, i) - 1) != found)
            abort();
    }
}

FUZZ_TARGET(kallsyms) {
    struct kallsyms *symbols;
    struct input input;
    const char *why = NULL;
    void *index, *tokens, *addresses, *names;
    size_t width, names_len;

    if (size < sizeof(input))
        return 0;
    memcpy(&input, data, sizeof(input));
    data += sizeof(input);
    size -= sizeof(input);
    width = input.flags & 1 ? 8 : 4;
    index = take(&data, &size, KALLSYMS_TOKENS * sizeof(uint16_t));
    tokens = take(&data, &size, input.tokens_len);
    addresses = take(&data, &size, (size_t)input.n_symbols * width);
    names_len = size;
    names = take(&data, &size, names_len);
    if (index && tokens && addresses && names) {
        struct kallsyms_tables tables = {
            .names = names,
            .names_len = names_len,
            .tokens = tokens,
            .tokens_len = input.tokens_len,
            .token_index = index,
            .offsets = width == 4 ? addresses : NULL,
            .addresses = width == 8 ? addresses : NULL,
            .n_symbols = input.n_symbols,
            .relative_base = input.relative_base,
        };
        struct kallsyms_anchor anchors[] = {{"_stext", input.stext}, {}};
        int r;

        r = kallsyms_decode(&symbols, &tables, anchors, &why);
        if ((r == 0) != (symbols != NULL) || (r && !why))
            abort();
        if (r == 0)
            check(symbols);
        kallsyms_free(symbols);
    }
    free(index);
    free(tokens);
    free(addresses);
    free(names);
    return 0;
}
