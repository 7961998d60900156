/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A module's own table of symbols: an ELF one that the kernel keeps for kallsyms (Linux kernel/module/kallsyms.c).
 *
 * The kernel does not say how long the names are: as long as the last one that a symbol refers to.
 */
#include "modules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct module_symbol) == 24, "Elf64_Sym");

/* Room behind the last name that is referred to: KSYM_NAME_LEN. */
#define NAME_ROOM 512

/* Where the tables lie. */
struct places {
    uint64_t table, names, types, count;
};

static int find_tables(struct vmibus_linux *kernel, const struct modules *modules, uint64_t module, struct places *places) {
    uint64_t kallsyms = 0;
    int r;

    *places = (struct places){0};
    if (!modules->module.kallsyms.size || !modules->kallsyms.table.size || !modules->kallsyms.count.size ||
        !modules->kallsyms.names.size)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel keeps no symbols of modules");
    r = linux_read_field(kernel, module, &modules->module.kallsyms, &kallsyms);
    if (r == 0)
        r = linux_read_field(kernel, kallsyms, &modules->kallsyms.table, &places->table);
    if (r == 0)
        r = linux_read_field(kernel, kallsyms, &modules->kallsyms.count, &places->count);
    if (r == 0)
        r = linux_read_field(kernel, kallsyms, &modules->kallsyms.names, &places->names);
    if (r == 0 && modules->kallsyms.types.size)
        r = linux_read_field(kernel, kallsyms, &modules->kallsyms.types, &places->types);
    if (r == 0 && places->count > MODULE_SYMBOLS_MAX)
        r = linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "a module has more symbols than the bound of %d", MODULE_SYMBOLS_MAX);
    return r;
}

/* As many octets of the names as are there, up to the end of the last one. */
static int read_names(struct vmibus_linux *kernel, uint64_t gva, struct module_symbols *symbols) {
    size_t len = 0;
    int r;

    for (size_t i = 0; i < symbols->n_symbols; i++)
        if (symbols->symbols[i].name > len)
            len = symbols->symbols[i].name;
    len += NAME_ROOM;
    if (len > MODULE_NAMES_MAX)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "a module's symbols have longer names than the bound");
    if (!linux_charge(kernel, len))
        return VMIBUS_GUEST_UNFINISHED;
    symbols->names = malloc(len + 1);
    if (!symbols->names)
        return -ENOMEM;
    r = vmibus_guest_read(&kernel->reader, &kernel->root, gva, symbols->names, len, &symbols->names_len, NULL);
    symbols->names[symbols->names_len] = '\0';
    return r < 0 ? r : 0;
}

static int read_tables(struct vmibus_linux *kernel, const struct places *places, struct module_symbols *symbols) {
    int r;

    symbols->n_symbols = places->count;
    symbols->symbols = calloc(places->count + 1, sizeof(*symbols->symbols));
    symbols->types = places->types ? calloc(places->count + 1, 1) : NULL;
    if (!symbols->symbols || (places->types && !symbols->types))
        return -ENOMEM;
    r = linux_read(kernel, places->table, symbols->symbols, symbols->n_symbols * sizeof(*symbols->symbols));
    if (r == 0 && symbols->types)
        r = linux_read(kernel, places->types, symbols->types, symbols->n_symbols);
    return r ? r : read_names(kernel, places->names, symbols);
}

int module_symbols_read(struct vmibus_linux *kernel, const struct vmibus_linux_module *module, struct module_symbols **symbolsp) {
    struct module_symbols *symbols;
    const struct modules *modules;
    struct places places;
    int r = modules_get(kernel, &modules);

    *symbolsp = NULL;
    if (r == 0)
        r = find_tables(kernel, modules, module->module, &places);
    if (r)
        return r;
    symbols = calloc(1, sizeof(*symbols));
    if (!symbols)
        return -ENOMEM;
    symbols->module = *module;
    r = read_tables(kernel, &places, symbols);
    if (r)
        module_symbols_free(symbols);
    else
        *symbolsp = symbols;
    return r;
}

struct module_symbols *module_symbols_free(struct module_symbols *symbols) {
    if (!symbols)
        return NULL;
    free(symbols->symbols);
    free(symbols->types);
    free(symbols->names);
    free(symbols);
    return NULL;
}

bool module_symbols_get(const struct module_symbols *symbols, size_t index, struct vmibus_linux_symbol *symbol) {
    const struct module_symbol *from = &symbols->symbols[index];
    char type = symbols->types ? symbols->types[index] : '?';

    if (from->name >= symbols->names_len || !symbols->names[from->name])
        return false;
    *symbol = (struct vmibus_linux_symbol){
        .gva = from->value,
        .size = from->size,
        .name = symbols->names + from->name,
        .module = symbols->module.name,
        .type = type > ' ' && type <= '~' ? type : '?',
    };
    return strnlen(symbol->name, NAME_ROOM) < NAME_ROOM;
}
