/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See fake_kallsyms.h. */
#include "fake_kallsyms.h"

#include <stdlib.h>
#include <string.h>

/* Tokens of more than one character, for octets from 0x80 on: one shorter and one longer than 16 characters. */
static const char *const long_tokens[] = {"init_", "_a_rather_long_token_"};

#define N_LONG (sizeof(long_tokens) / sizeof(long_tokens[0]))

static void make_tokens(struct fake_kallsyms *self) {
    for (unsigned int i = 0; i < KALLSYMS_TOKENS; i++) {
        char single[2] = {i > ' ' && i <= '~' ? (char)i : '\0', '\0'};
        const char *text = i >= 0x80 && i < 0x80 + N_LONG ? long_tokens[i - 0x80] : single;

        self->token_index[i] = (uint16_t)self->tokens_len;
        memcpy(self->tokens + self->tokens_len, text, strlen(text) + 1);
        self->tokens_len += strlen(text) + 1;
    }
}

static void add_name(struct fake_kallsyms *self, const char *name) {
    uint8_t octets[1024];
    size_t n = 0;

    while (*name) {
        size_t which = 0;

        while (which < N_LONG && strncmp(name, long_tokens[which], strlen(long_tokens[which])) != 0)
            which++;
        octets[n++] = which < N_LONG ? (uint8_t)(0x80 + which) : (uint8_t)*name;
        name += which < N_LONG ? strlen(long_tokens[which]) : 1;
    }
    if (self->names_len + n + 2 > sizeof(self->names))
        abort();
    if (n > 0x7f) {
        self->names[self->names_len++] = (uint8_t)(n & 0x7f) | 0x80;
        self->names[self->names_len++] = (uint8_t)(n >> 7);
    } else {
        self->names[self->names_len++] = (uint8_t)n;
    }
    memcpy(self->names + self->names_len, octets, n);
    self->names_len += n;
}

void fake_kallsyms_make(struct fake_kallsyms *self, const struct fake_symbol *symbols, size_t n, uint64_t base,
                        enum fake_offsets offsets) {
    memset(self, 0, sizeof(*self));
    if (n > FAKE_SYMBOLS_MAX)
        abort();
    make_tokens(self);
    *(offsets == FAKE_OFFSETS_FROM_PLACE ? &self->offsets_gva : &self->relative_base) = base;
    self->n = n;
    for (size_t i = 0; i < n; i++) {
        if (i % 256 == 0)
            self->markers[i / 256] = (uint32_t)self->names_len;
        add_name(self, symbols[i].name);
        if (offsets == FAKE_OFFSETS_UP)
            self->offsets[i] = (uint32_t)(symbols[i].gva - base);
        else if (offsets == FAKE_OFFSETS_FROM_PLACE)
            self->offsets[i] = (uint32_t)(symbols[i].gva - base - sizeof(self->offsets[i]) * i);
        else if (symbols[i].gva < 0x80000000)
            self->offsets[i] = (uint32_t)symbols[i].gva;
        else
            self->offsets[i] = (uint32_t)(base - 1 - symbols[i].gva);
    }
}

struct kallsyms_tables fake_kallsyms_tables(const struct fake_kallsyms *self) {
    return (struct kallsyms_tables){
        .names = self->names,
        .names_len = self->names_len,
        .tokens = self->tokens,
        .tokens_len = self->tokens_len,
        .token_index = self->token_index,
        .offsets = self->offsets,
        .n_symbols = self->n,
        .relative_base = self->relative_base,
        .offsets_gva = self->offsets_gva,
    };
}
