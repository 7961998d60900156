/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modules: where the members of struct module lie, and the table of symbols of one.
 *
 * The list is read anew with each visit. A table of symbols is copied whole, names and all, before anything is made of it: what it
 * says of lengths is bounded, what it says of names is looked up in the copy only.
 */
#ifndef GUEST_LINUX_MODULES_H
#define GUEST_LINUX_MODULES_H

#include "kernel.h"

enum {
    MODULES_MAX = 4096,
    MODULE_COPY_MAX = 8192,             /**< octets of a struct module */
    MODULE_PARTS_MAX = 16,              /**< of enum mod_mem_type */
    MODULE_SYMBOLS_MAX = 1 << 18,       /**< the largest drivers have some 50,000 */
    MODULE_NAMES_MAX = 16 << 20,        /**< octets of their names */
};

/** Where members lie; kept in the kernel object. */
struct modules {
    uint64_t head;          /**< the list's */
    uint32_t copy_size;     /**< octets of a struct module */
    uint32_t part_size;     /**< of a struct module_memory, since 6.4 */
    struct {
        struct linux_field list, name, state, references, kallsyms;
        struct linux_field core_base, core_size, init_size, data_size;  /**< until 6.3; data_size is not of x86 */
        struct linux_field memory;                                      /**< since 6.4: an array by enum mod_mem_type */
    } module;
    struct {
        struct linux_field base, size;
    } part;
    struct {
        struct linux_field table, count, names, types;
    } kallsyms;
    struct module_symbols *last;    /**< whose texts vmibus_linux_symbol_at() has given away */
};

/** A symbol as it stands in the table: Elf64_Sym. */
struct module_symbol {
    uint32_t name;
    uint8_t info;
    uint8_t other;
    uint16_t section;
    uint64_t value;
    uint64_t size;
};

/** A copy of a module's table of symbols. */
struct module_symbols {
    struct vmibus_linux_module module;
    struct module_symbol *symbols;
    char *types;            /**< a letter for each; NULL where the kernel keeps none */
    char *names;            /**< names_len octets and a NUL */
    size_t n_symbols, names_len;
};

/** Looks up the layout once. 0, UNPROVEN or a negative errno. */
int modules_get(struct vmibus_linux *kernel, const struct modules **modulesp);

/** Frees it. Takes and returns NULL. */
struct modules *modules_free(struct modules *modules);

/**
 * Copies the table of symbols of a module.
 * @param symbolsp receives it, to be freed
 * @return 0; UNPROVEN: it makes no sense; an outcome of reading; or a negative errno
 */
int module_symbols_read(struct vmibus_linux *kernel, const struct vmibus_linux_module *module, struct module_symbols **symbolsp);

/** Frees it. Takes and returns NULL. */
struct module_symbols *module_symbols_free(struct module_symbols *symbols);

/** A symbol of the table, whose texts are the copy's. False: it has no name, or none that ends, as the first one. */
bool module_symbols_get(const struct module_symbols *symbols, size_t index, struct vmibus_linux_symbol *symbol);

#endif
