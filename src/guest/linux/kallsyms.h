/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kallsyms: the symbols of vmlinux, decoded from the tables that the kernel keeps of them (Linux kernel/kallsyms.c,
 * scripts/kallsyms.c).
 *
 * Three steps: where the tables lie (kallsyms_tables.c: the note tells, or their structure shows it), a copy of them, and
 * the decoding of that copy (kallsyms.c), which reads no guest memory: whatever the octets are, it ends, stays within
 * the copy and takes bounded memory.
 */
#ifndef GUEST_LINUX_KALLSYMS_H
#define GUEST_LINUX_KALLSYMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vmibus_linux;

enum {
    KALLSYMS_TOKENS = 256,
    KALLSYMS_SYMBOLS_MAX = 1 << 20,         /**< an allyesconfig has some 600,000 */
    KALLSYMS_TOKEN_TABLE_MAX = 1 << 16,     /**< its index has 16 bits */
    KALLSYMS_NAME_MAX = 512,                /**< KSYM_NAME_LEN since 6.1, with the type and a NUL */
    KALLSYMS_NAMES_MAX = 32 << 20,          /**< octets of names, as they stand there and expanded */
};

/** A copy of a kernel's tables. */
struct kallsyms_tables {
    const uint8_t *names;           /**< for each symbol: a length in one octet or two, then that many tokens */
    size_t names_len;               /**< octets that may be looked at */
    const char *tokens;             /**< texts, each ended by NUL */
    size_t tokens_len;
    const uint16_t *token_index;    /**< KALLSYMS_TOKENS offsets in tokens */
    const uint32_t *offsets;        /**< n_symbols of them, or NULL */
    const uint64_t *addresses;      /**< where there are no offsets */
    size_t n_symbols;
    uint64_t relative_base;         /**< of the offsets; 0: the kernel has none */
    uint64_t offsets_gva;           /**< where the offsets lie, from which those without a base count */
};

/** A symbol whose address is known otherwise; a table ends with a NULL name. */
struct kallsyms_anchor {
    const char *name;
    uint64_t gva;
};

struct kallsyms;

/**
 * Decodes tables. All names are expanded, and addresses must ascend and agree with the anchors, of which one must be
 * there at least.
 * @param symbolsp  receives the symbols, NULL on failure
 * @param whyp      receives what is wrong with the tables, a constant text
 * @return 0, VMIBUS_GUEST_UNPROVEN or -ENOMEM
 */
int kallsyms_decode(struct kallsyms **symbolsp, const struct kallsyms_tables *tables, const struct kallsyms_anchor *anchors,
                    const char **whyp);

/** Frees them. Takes and returns NULL. */
struct kallsyms *kallsyms_free(struct kallsyms *symbols);

/** How many there are. They stand in the order of their addresses. */
size_t kallsyms_count(const struct kallsyms *symbols);

/** A name, which is the object's; the type before it is an nm(1) letter. */
const char *kallsyms_name(const struct kallsyms *symbols, size_t index, char *type);

/** An address. Per-CPU symbols of kernels that have them at 0 are small numbers. */
uint64_t kallsyms_address(const struct kallsyms *symbols, size_t index);

/** The first symbol of a name, or kallsyms_count(). Takes below a microsecond, unless the guest made names to collide. */
size_t kallsyms_find(const struct kallsyms *symbols, const char *name);

/** The next symbol of the same name, or kallsyms_count(). */
size_t kallsyms_find_next(const struct kallsyms *symbols, size_t index);

/** The last symbol at or below an address, of several at one address the first; kallsyms_count(): none. */
size_t kallsyms_at(const struct kallsyms *symbols, uint64_t gva);

/** Octets from a symbol to the next higher address of one, 0 for the last. */
uint64_t kallsyms_size(const struct kallsyms *symbols, size_t index);

/** Where a kernel's tables lie; addresses are guest-virtual. */
struct kallsyms_places {
    uint64_t names, token_table, token_index;
    uint64_t offsets;           /**< 0: there are addresses instead */
    uint64_t addresses;
    uint64_t relative_base;     /**< its value; 0: the kernel has none */
    uint64_t n_symbols;
    size_t names_len;           /**< at most so many octets */
};

/** Finds the tables by the note's SYMBOL lines (since 6.0). 0; NOT_FOUND: it has none; UNPROVEN; or as reads fail. */
int kallsyms_find_by_note(struct vmibus_linux *kernel, struct kallsyms_places *places);

/** Finds them by their structure, in the mapped image of the kernel. 0, NOT_FOUND, or a negative errno. */
int kallsyms_find_by_structure(struct vmibus_linux *kernel, struct kallsyms_places *places);

/** The kernel's symbols, read and decoded when they are first asked for. 0, UNPROVEN, or a negative errno. */
int kallsyms_get(struct vmibus_linux *kernel, const struct kallsyms **symbolsp);

#endif
