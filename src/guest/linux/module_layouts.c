/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding a module's BTF in the kernel's list, and proving that it continues the BTF of vmlinux that we have.
 */
#include "module_layouts.h"

#include <inttypes.h>

#include "btf.h"
#include "fields.h"

enum {
    MODULES_BOUND = 4096, /* modules in the list; a large distribution loads some hundreds */
};

/* Where members lie. */
struct module_btf_fields {
    struct linux_field next;                /* of a list_head */
    struct linux_field list, module, btf;   /* of a list entry */
    struct linux_field data, data_size, base, start_id, start_string; /* of the kernel's own struct btf */
};

#define WISH(structure, path, field) {structure, path, offsetof(struct module_btf_fields, field), false}

static const struct linux_wish wishes[] = {
    WISH("list_head", "next", next),
    WISH("btf_module", "list", list),
    WISH("btf_module", "module", module),
    WISH("btf_module", "btf", btf),
    WISH("btf", "data", data),
    WISH("btf", "data_size", data_size),
    WISH("btf", "base_btf", base),
    WISH("btf", "start_id", start_id),
    WISH("btf", "start_str_off", start_string),
    {0},
};

/* Finds the struct btf of a module in the list. */
static int find_entry(struct vmibus_linux *kernel, const struct module_btf_fields *fields, uint64_t module, uint64_t *btf) {
    uint64_t head, at, here;
    int r = linux_symbol(kernel, "btf_modules", &head);

    if (r == 0)
        r = linux_read_field(kernel, head, &fields->next, &at);
    for (int i = 0; r == 0 && at != head; i++) {
        uint64_t entry = at - fields->list.offset;

        if (i == MODULES_BOUND)
            return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the list of modules' BTF has no end");
        r = linux_read_field(kernel, entry, &fields->module, &here);
        if (r == 0 && here == module)
            return linux_read_field(kernel, entry, &fields->btf, btf);
        if (r == 0)
            r = linux_read_field(kernel, at, &fields->next, &at);
    }
    if (r != 0 && r != VMIBUS_GUEST_NOT_FOUND)
        return linux_because(kernel, r, "the list of modules' BTF cannot be read");
    return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "the kernel has no BTF of the module at %#" PRIx64, module);
}

/* Whether the kernel lets this BTF go on from vmlinux's where ours ends. A base of its own it may have too, which is not read. */
static int prove_base(struct vmibus_linux *kernel, const struct module_btf_fields *fields, const struct btf *base, uint64_t btf) {
    uint64_t base_gva, first_id, first_string;
    int r = linux_read_field(kernel, btf, &fields->base, &base_gva);

    if (r == 0)
        r = linux_read_field(kernel, btf, &fields->start_id, &first_id);
    if (r == 0)
        r = linux_read_field(kernel, btf, &fields->start_string, &first_string);
    if (r != 0)
        return linux_because(kernel, r, "the BTF of a module at %#" PRIx64 " cannot be read", btf);
    if (base_gva == 0 || first_id != btf_n_types(base) || first_string != btf_strings_len(base))
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN,
                             "the BTF of a module goes on from type %" PRIu64 ", that of vmlinux ends with %" PRIu32, first_id,
                             btf_n_types(base));
    return 0;
}

int linux_module_layouts(struct vmibus_linux *kernel, uint64_t module, struct btf **btfp) {
    struct module_btf_fields fields = {0};
    const struct btf *base;
    uint64_t btf, data, len;
    int r = linux_layouts(kernel, &base);

    *btfp = NULL;
    if (r == 0)
        r = linux_fields_resolve(kernel, wishes, &fields);
    if (r == 0)
        r = find_entry(kernel, &fields, module, &btf);
    if (r == 0)
        r = prove_base(kernel, &fields, base, btf);
    if (r != 0)
        return r;
    r = linux_read_field(kernel, btf, &fields.data, &data);
    if (r == 0)
        r = linux_read_field(kernel, btf, &fields.data_size, &len);
    if (r != 0)
        return linux_because(kernel, r, "the BTF of a module at %#" PRIx64 " cannot be read", btf);
    return linux_layouts_read(kernel, base, data, len, "a module", btfp);
}
