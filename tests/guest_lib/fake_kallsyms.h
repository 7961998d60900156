/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake_kallsyms: tables of symbols as scripts/kallsyms.c of Linux writes them, without its choice of good tokens: each
 * printable character stands for itself, and a few octets beyond for longer texts.
 */
#ifndef TESTS_GUEST_LIB_FAKE_KALLSYMS_H
#define TESTS_GUEST_LIB_FAKE_KALLSYMS_H

#include <stddef.h>
#include <stdint.h>

#include "guest/linux/kallsyms.h"

#define FAKE_SYMBOLS_MAX 2048

struct fake_symbol {
    const char *name;   /**< after its type's letter */
    uint64_t gva;
};

struct fake_kallsyms {
    uint8_t names[FAKE_SYMBOLS_MAX * 64];
    size_t names_len;
    char tokens[4096];
    size_t tokens_len;
    uint16_t token_index[KALLSYMS_TOKENS];
    uint32_t offsets[FAKE_SYMBOLS_MAX];
    uint32_t markers[FAKE_SYMBOLS_MAX / 256 + 1];
    size_t n;
    uint64_t relative_base, offsets_gva;
};

/** How offsets are written. */
enum fake_offsets {
    FAKE_OFFSETS_ABSOLUTE_PERCPU,   /**< up to 6.14 */
    FAKE_OFFSETS_UP,
    FAKE_OFFSETS_FROM_PLACE,        /**< after 6.18: the base is where the offsets lie */
};

/** Writes the tables of symbols, which stand by rising address. */
void fake_kallsyms_make(struct fake_kallsyms *self, const struct fake_symbol *symbols, size_t n, uint64_t base,
                        enum fake_offsets offsets);

/** The tables as they lie in memory. */
struct kallsyms_tables fake_kallsyms_tables(const struct fake_kallsyms *self);

#endif
