/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of modules (Linux kernel/module/main.c), and what struct module says of each.
 *
 * The list is gone through first, link by link: each entry must point back to the one before it.  Then the entries are read, then
 * the links again: were they the same, the picture is steady.
 */
#include "modules.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* --- layouts --------------------------------------------------------------------------------------------------- */

#define WISH(structure, path, member, optional) {structure, path, offsetof(struct modules, member), optional}

static const struct linux_wish wishes[] = {
    WISH("module", "list", module.list, false),
    WISH("module", "name", module.name, false),
    WISH("module", "state", module.state, false),
    WISH("module", "refcnt.counter", module.references, true),  /* absent without CONFIG_MODULE_UNLOAD */
    WISH("module", "kallsyms", module.kallsyms, true),
    WISH("module", "core_layout.base", module.core_base, true),
    WISH("module", "core_layout.size", module.core_size, true),
    WISH("module", "init_layout.size", module.init_size, true),
    WISH("module", "data_layout.size", module.data_size, true),
    WISH("module", "mem", module.memory, true),
    WISH("module_memory", "base", part.base, true),
    WISH("module_memory", "size", part.size, true),
    WISH("mod_kallsyms", "symtab", kallsyms.table, true),
    WISH("mod_kallsyms", "num_symtab", kallsyms.count, true),
    WISH("mod_kallsyms", "strtab", kallsyms.names, true),
    WISH("mod_kallsyms", "typetab", kallsyms.types, true),      /* since 5.2 */
    {},
};

/* The list's head, which what it points to must point back to. */
static int find_head(struct vmibus_linux *kernel, uint64_t *head) {
    uint64_t next, back;
    int r = linux_symbol(kernel, "modules", head);

    if (r == 0)
        r = linux_read_u64(kernel, *head, &next);
    if (r == 0)
        r = linux_read_u64(kernel, next + 8, &back);
    if (r < 0 || r == VMIBUS_GUEST_UNPROVEN)
        return r;
    if (r || back != *head)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "there is no list of modules where the kernel has it");
    return 0;
}

/* The parts of a module: as one of two generations of kernels has them. */
static int check_layout(struct vmibus_linux *kernel, struct modules *modules) {
    bool together = modules->module.core_base.size == 8 && modules->module.core_size.size == 4;
    uint32_t n;

    if (modules->copy_size > MODULE_COPY_MAX || modules->module.name.size > VMIBUS_LINUX_MODULE_NAME_SIZE)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "struct module is not as in any kernel that is known");
    if (together)
        return 0;
    n = modules->part_size ? modules->module.memory.size / modules->part_size : 0;
    if (n == 0 || n > MODULE_PARTS_MAX || modules->part.base.size != 8)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "struct module does not tell where a module lies");
    return 0;
}

static int resolve(struct vmibus_linux *kernel, struct modules *modules) {
    int r = find_head(kernel, &modules->head);

    if (r == 0)
        r = linux_fields_resolve(kernel, wishes, modules);
    if (r == 0)
        r = linux_structure_size(kernel, "module", &modules->copy_size);
    if (r == 0 && modules->module.memory.size)
        r = linux_structure_size(kernel, "module_memory", &modules->part_size);
    return r == 0 ? check_layout(kernel, modules) : r < 0 ? r : VMIBUS_GUEST_UNPROVEN;
}

int modules_get(struct vmibus_linux *kernel, const struct modules **modulesp) {
    struct modules *modules;
    int r;

    *modulesp = kernel->modules;
    if (kernel->modules)
        return 0;
    modules = calloc(1, sizeof(*modules));
    if (!modules)
        return -ENOMEM;
    r = resolve(kernel, modules);
    if (r)
        modules_free(modules);
    else
        *modulesp = kernel->modules = modules;
    return r;
}

struct modules *modules_free(struct modules *modules) {
    if (modules)
        module_symbols_free(modules->last);
    free(modules);
    return NULL;
}

/* --- the list -------------------------------------------------------------------------------------------------- */

struct list {
    uint64_t *links;    /* MODULES_MAX of them */
    size_t n;
    bool ended;         /* it came back to its head, and every link points back */
};

/* Goes through the links. 0 or a negative errno. */
static int go_through(const struct vmibus_linux *kernel, uint64_t head, struct list *list) {
    uint64_t at = head;

    list->n = 0;
    list->ended = false;
    for (;;) {
        uint64_t next, back;
        int r = linux_read_u64(kernel, at, &next);

        if (r == 0)
            r = linux_read_u64(kernel, next + 8, &back);
        if (r < 0)
            return r;
        if (r || back != at)
            return 0;
        list->ended = next == head;
        if (next == head || list->n == MODULES_MAX)
            return 0;
        list->links[list->n++] = next;
        at = next;
    }
}

static uint64_t get(const void *copy, const struct modules *modules, const struct linux_field *field) {
    uint64_t value = 0;

    linux_get_field(copy, modules->copy_size, field, &value);
    return value;
}

/* Where its parts lie. */
static void decode_parts(const struct modules *modules, const uint8_t *copy, struct vmibus_linux_module *module) {
    const struct linux_field *memory = &modules->module.memory;

    if (modules->module.core_base.size) {
        module->base = get(copy, modules, &modules->module.core_base);
        module->text_size = get(copy, modules, &modules->module.core_size);
        module->size = module->text_size + get(copy, modules, &modules->module.init_size) +
                       get(copy, modules, &modules->module.data_size);
        return;
    }
    if (memory->offset > modules->copy_size || memory->size > modules->copy_size - memory->offset)
        return;
    for (uint32_t i = 0; i < memory->size / modules->part_size; i++) {
        const uint8_t *part = copy + memory->offset + (size_t)i * modules->part_size;
        uint64_t base = 0, size = 0;

        linux_get_field(part, modules->part_size, &modules->part.base, &base);
        linux_get_field(part, modules->part_size, &modules->part.size, &size);
        if (i == 0) {   /* MOD_TEXT */
            module->base = base;
            module->text_size = size;
        }
        module->size += size;
    }
}

/* Reads one; false: it makes no sense. */
static int read_module(const struct vmibus_linux *kernel, const struct modules *modules, uint64_t gva, uint8_t *copy,
                       struct vmibus_linux_module *module) {
    const struct linux_field *name = &modules->module.name;
    int r = linux_read(kernel, gva, copy, modules->copy_size);

    *module = (struct vmibus_linux_module){.module = gva};
    if (r)
        return r;
    if (name->offset > modules->copy_size || name->size > modules->copy_size - name->offset)
        return VMIBUS_GUEST_UNPROVEN;
    memcpy(module->name, copy + name->offset, name->size);
    module->name[sizeof(module->name) - 1] = '\0';
    module->state = (uint32_t)get(copy, modules, &modules->module.state);
    module->references = (uint32_t)get(copy, modules, &modules->module.references);
    if (module->references)     /* MODULE_REF_BASE: a module that is not going away holds itself */
        module->references--;
    decode_parts(modules, copy, module);
    if (!module->name[0] || module->state > VMIBUS_LINUX_MODULE_UNFORMED ||
        (module->state != VMIBUS_LINUX_MODULE_UNFORMED && !linux_is_kernel_address(kernel, module->base)))
        return VMIBUS_GUEST_UNPROVEN;
    return 0;
}

/* Reads and shows the entries. Whether the visitor wants more is told in *more. */
static int show(struct vmibus_linux *kernel, const struct modules *modules, const struct list *list, vmibus_linux_module_fn visit,
                void *context, struct vmibus_linux_picture *picture, bool *more) {
    uint8_t *copy = malloc(modules->copy_size);
    int r = copy ? 0 : -ENOMEM;

    *more = true;
    for (size_t i = 0; r == 0 && *more && i < list->n; i++) {
        struct vmibus_linux_module module;
        int broken = read_module(kernel, modules, list->links[i] - modules->module.list.offset, copy, &module);

        if (broken < 0) {
            r = broken;
        } else if (broken) {
            picture->n_broken++;
        } else if (module.state != VMIBUS_LINUX_MODULE_UNFORMED) {
            picture->n_seen++;
            *more = visit(context, &module);
        }
    }
    free(copy);
    return r;
}

static int visit_list(struct vmibus_linux *kernel, const struct modules *modules, struct list *list, struct list *again,
                      vmibus_linux_module_fn visit, void *context, struct vmibus_linux_picture *picture) {
    bool more;
    int r = go_through(kernel, modules->head, list);

    if (r == 0)
        r = show(kernel, modules, list, visit, context, picture, &more);
    if (r)
        return r;
    if (list->ended && more)
        picture->flags |= VMIBUS_LINUX_ENDED;
    else if (list->n == MODULES_MAX)
        picture->flags |= VMIBUS_LINUX_BOUNDED;
    else
        return 0;
    r = go_through(kernel, modules->head, again);
    if (r == 0 && again->ended && again->n == list->n && memcmp(again->links, list->links, list->n * sizeof(*list->links)) == 0)
        picture->flags |= VMIBUS_LINUX_STEADY;
    return r;
}

int vmibus_linux_visit_modules(struct vmibus_linux *kernel, vmibus_linux_module_fn visit, void *context,
                               struct vmibus_linux_picture *picture) {
    const struct modules *modules;
    struct list list, again;
    uint64_t *links;
    int r;

    *picture = (struct vmibus_linux_picture){0};
    r = modules_get(kernel, &modules);
    if (r)
        return r;
    links = calloc(2 * MODULES_MAX, sizeof(*links));
    if (!links)
        return -ENOMEM;
    list.links = links;
    again.links = links + MODULES_MAX;
    r = visit_list(kernel, modules, &list, &again, visit, context, picture);
    free(links);
    return r;
}
