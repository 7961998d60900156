/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Symbols of vmlinux and of the modules, together. */
#include <string.h>

#include "kallsyms.h"
#include "kernel.h"
#include "modules.h"

static void fill(const struct kallsyms *symbols, size_t index, struct vmibus_linux_symbol *symbol) {
    *symbol = (struct vmibus_linux_symbol){
        .gva = kallsyms_address(symbols, index),
        .size = kallsyms_size(symbols, index),
    };
    symbol->name = kallsyms_name(symbols, index, &symbol->type);
}

/* Octets of the symbols of all modules that are shown, and what each counts for besides its name. */
#define SHOWN_MAX (UINT64_C(64) << 20)
#define SHOWN_SYMBOL 64

struct visit {
    struct vmibus_linux *kernel;
    const char *name;       /* NULL: all */
    vmibus_linux_symbol_fn visit;
    void *context;
    bool ended;             /* by the visitor */
    uint64_t n_octets;      /* that were shown of modules */
    uint64_t n_broken;      /* modules whose symbols made no sense */
    int r;                  /* a negative errno, if there was one */
};

static void visit_vmlinux(struct visit *visit, const struct kallsyms *symbols) {
    size_t n = kallsyms_count(symbols), i = visit->name ? kallsyms_find(symbols, visit->name) : 0;

    while (i < n && !visit->ended) {
        struct vmibus_linux_symbol symbol;

        fill(symbols, i, &symbol);
        visit->ended = !visit->visit(visit->context, &symbol);
        i = visit->name ? kallsyms_find_next(symbols, i) : i + 1;
    }
}

static bool visit_module(void *context, const struct vmibus_linux_module *module) {
    struct visit *visit = context;
    struct module_symbols *symbols;
    int r = module_symbols_read(visit->kernel, module, &symbols);

    if (r > 0)
        visit->n_broken++;
    visit->r = r < 0 ? r : 0;
    for (size_t i = 0; r == 0 && !visit->ended && i < symbols->n_symbols; i++) {
        struct vmibus_linux_symbol symbol;

        if (!module_symbols_get(symbols, i, &symbol) || (visit->name && strcmp(symbol.name, visit->name) != 0))
            continue;
        visit->n_octets += strlen(symbol.name) + SHOWN_SYMBOL;
        visit->ended = !visit->visit(visit->context, &symbol);
        if (visit->n_octets > SHOWN_MAX)
            break;
    }
    module_symbols_free(symbols);
    return r >= 0 && !visit->ended && visit->n_octets <= SHOWN_MAX;
}

int vmibus_linux_visit_symbols(struct vmibus_linux *kernel, const char *name, vmibus_linux_symbol_fn visit_symbol, void *context,
                               struct vmibus_linux_picture *picture) {
    struct visit visit = {.kernel = kernel, .name = name, .visit = visit_symbol, .context = context};
    struct vmibus_linux_picture modules = {0};
    const struct kallsyms *symbols;
    int r = kallsyms_get(kernel, &symbols);

    if (r == 0)
        visit_vmlinux(&visit, symbols);
    /* A kernel without modules, or whose layouts cannot be had, still has symbols. */
    if (r == 0 && !visit.ended) {
        r = vmibus_linux_visit_modules(kernel, visit_module, &visit, &modules);
        r = r > 0 ? 0 : r;
    }
    modules.n_broken += visit.n_broken;
    if (visit.n_octets > SHOWN_MAX)
        modules.flags |= VMIBUS_LINUX_BOUNDED;
    if (picture)
        *picture = modules;
    return r ? r : visit.r;
}

int vmibus_linux_find_symbol(struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    return linux_symbol(kernel, name, gva);
}

/* --- by address ------------------------------------------------------------------------------------------------ */

struct search {
    uint64_t gva;
    struct vmibus_linux_module module;  /* the one it lies in; no name: none */
};

static bool compare_module(void *context, const struct vmibus_linux_module *module) {
    struct search *search = context;

    if (search->gva - module->base < module->text_size)
        search->module = *module;
    return !search->module.name[0];
}

/* The last one at or below the address. */
static bool find_in_module(const struct module_symbols *symbols, uint64_t gva, struct vmibus_linux_symbol *found) {
    bool any = false;

    for (size_t i = 0; i < symbols->n_symbols; i++) {
        struct vmibus_linux_symbol symbol;

        if (!module_symbols_get(symbols, i, &symbol) || symbol.gva > gva || symbols->symbols[i].section == 0)
            continue;
        if (!any || symbol.gva > found->gva)
            *found = symbol;
        any = true;
    }
    return any;
}

static int search_modules(struct vmibus_linux *kernel, uint64_t gva, struct vmibus_linux_symbol *symbol) {
    struct search search = {.gva = gva};
    struct vmibus_linux_picture picture;
    struct module_symbols *symbols;
    int r = vmibus_linux_visit_modules(kernel, compare_module, &search, &picture);

    if (r == 0 && !search.module.name[0])
        r = linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "the address is neither of the kernel nor of a module");
    if (r == 0)
        r = module_symbols_read(kernel, &search.module, &symbols);
    if (r)
        return r;
    module_symbols_free(kernel->modules->last);
    kernel->modules->last = symbols;
    if (!find_in_module(symbols, gva, symbol))
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "the module has no symbol there");
    return 0;
}

int vmibus_linux_symbol_at(struct vmibus_linux *kernel, uint64_t gva, struct vmibus_linux_symbol *symbol) {
    const struct kallsyms *symbols;
    int r = kallsyms_get(kernel, &symbols);
    size_t index;

    *symbol = (struct vmibus_linux_symbol){0};
    if (r)
        return r;
    index = kallsyms_at(symbols, gva);
    /* Behind the last symbol of vmlinux lies what is not vmlinux. */
    if (index < kallsyms_count(symbols) && linux_is_kernel_address(kernel, kallsyms_address(symbols, index)) &&
        (kallsyms_size(symbols, index) || kallsyms_address(symbols, index) == gva)) {
        fill(symbols, index, symbol);
        return 0;
    }
    return search_modules(kernel, gva, symbol);
}
