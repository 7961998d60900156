/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modules: a list that a test writes, sound or not, of a layout that the test gives in place of the kernel's BTF; and their
 * tables of symbols.
 */
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_image.h"
#include "guest/linux/modules.h"

#define HEAD (FAKE_IMAGE_GVA + 0x1000)
#define MODULES (FAKE_IMAGE_GVA + 0x2000)
#define TABLES (FAKE_IMAGE_GVA + 0x100000)
#define BASE UINT64_C(0xffffffffc0000000)

/* The test's own struct module, in both ways of telling where the parts lie. */
struct link {
    uint64_t next, back;
};

struct part {
    uint64_t base;
    uint32_t size, pad;
};

struct module {
    uint32_t state, references;
    struct link list;
    char name[56];
    uint64_t kallsyms;
    struct part core;
    uint32_t init_size, pad;
    struct part parts[7];
};

struct tables {
    uint64_t table, names, types;
    uint32_t count, pad;
};

#define FIELD(type, member) {.offset = offsetof(type, member), .size = sizeof(((type *)NULL)->member)}

static struct fake_image image;

static void begin(bool in_parts) {
    struct modules *modules;

    fake_image_begin(&image);
    fake_image_open(&image);
    modules = calloc(1, sizeof(*modules));
    ck_assert_ptr_nonnull(modules);
    *modules = (struct modules){
        .head = HEAD,
        .copy_size = sizeof(struct module),
        .part_size = sizeof(struct part),
        .module = {
            .list = FIELD(struct module, list),
            .name = FIELD(struct module, name),
            .state = FIELD(struct module, state),
            .references = FIELD(struct module, references),
            .kallsyms = FIELD(struct module, kallsyms),
        },
        .part = {.base = FIELD(struct part, base), .size = FIELD(struct part, size)},
        .kallsyms = {
            .table = FIELD(struct tables, table),
            .count = FIELD(struct tables, count),
            .names = FIELD(struct tables, names),
            .types = FIELD(struct tables, types),
        },
    };
    if (in_parts) {
        modules->module.memory = (struct linux_field)FIELD(struct module, parts);
    } else {
        modules->module.core_base = (struct linux_field)FIELD(struct module, core.base);
        modules->module.core_size = (struct linux_field)FIELD(struct module, core.size);
        modules->module.init_size = (struct linux_field)FIELD(struct module, init_size);
    }
    image.kernel->modules = modules;
    *(struct link *)fake_image_at(&image, HEAD) = (struct link){HEAD, HEAD};
}

static uint64_t module_gva(size_t index) {
    return MODULES + index * sizeof(struct module);
}

static struct module *module_at(size_t index) {
    return fake_image_at(&image, module_gva(index));
}

static uint64_t link_of(size_t index) {
    return module_gva(index) + offsetof(struct module, list);
}

/* Makes n modules and links them. */
static void make(size_t n) {
    uint64_t before = HEAD;

    for (size_t i = 0; i < n; i++) {
        struct module *module = module_at(i);

        *module = (struct module){.references = 3, .core = {BASE + i * 0x10000, 0x4000, 0}, .init_size = 0x1000};
        snprintf(module->name, sizeof(module->name), "module_%zu", i);
        module->parts[0] = (struct part){BASE + i * 0x10000, 0x2000, 0};
        module->parts[1] = (struct part){BASE + 0x100000, 0x1000, 0};
        module->list.back = before;
        ((struct link *)fake_image_at(&image, before))->next = link_of(i);
        before = link_of(i);
    }
    ((struct link *)fake_image_at(&image, before))->next = HEAD;
    ((struct link *)fake_image_at(&image, HEAD))->back = before;
}

struct seen {
    struct vmibus_linux_module last;
    size_t n, bound;
};

static bool see(void *context, const struct vmibus_linux_module *module) {
    struct seen *seen = context;

    seen->last = *module;
    return ++seen->n != seen->bound;
}

static struct seen visit(struct vmibus_linux_picture *picture) {
    struct seen seen = {.n = 0};

    ck_assert_int_eq(vmibus_linux_visit_modules(image.kernel, see, &seen, picture), 0);
    return seen;
}

#define GOOD (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY)

TEST(test_list, .iterations = 2) {
    struct vmibus_linux_picture picture;
    struct seen seen;

    begin(_i == 1);
    make(3);
    seen = visit(&picture);
    ck_assert_uint_eq(seen.n, 3);
    ck_assert_uint_eq(picture.flags, GOOD);
    ck_assert_str_eq(seen.last.name, "module_2");
    ck_assert_uint_eq(seen.last.base, BASE + 0x20000);
    ck_assert_uint_eq(seen.last.text_size, _i ? 0x2000 : 0x4000);
    ck_assert_uint_eq(seen.last.size, _i ? 0x3000 : 0x5000);
    ck_assert_uint_eq(seen.last.references, 2);
    fake_image_end(&image);
}

TEST(test_no_modules) {
    struct vmibus_linux_picture picture;

    begin(false);
    ck_assert_uint_eq(visit(&picture).n, 0);
    ck_assert_uint_eq(picture.flags, GOOD);
    fake_image_end(&image);
}

TEST(test_visit_that_is_ended) {
    struct vmibus_linux_picture picture;
    struct seen seen = {.bound = 2};

    begin(false);
    make(5);
    ck_assert_int_eq(vmibus_linux_visit_modules(image.kernel, see, &seen, &picture), 0);
    ck_assert_uint_eq(seen.n, 2);
    ck_assert_uint_eq(picture.flags, 0);
    fake_image_end(&image);
}

/* A list that never comes back to its head, although each link points back. */
TEST(test_p09_endless_list) {
    struct vmibus_linux_picture picture;

    begin(false);
    make(MODULES_MAX + 10);
    ck_assert_uint_eq(visit(&picture).n, MODULES_MAX);
    ck_assert(picture.flags & VMIBUS_LINUX_BOUNDED);
    ck_assert(!(picture.flags & VMIBUS_LINUX_ENDED));
    fake_image_end(&image);
}

/* A cycle that leaves out the head: the link that closes it does not point back. */
TEST(test_p09_cyclic_list) {
    struct vmibus_linux_picture picture;

    begin(false);
    make(4);
    module_at(3)->list.next = link_of(1);
    ck_assert_uint_eq(visit(&picture).n, 4);
    ck_assert_uint_eq(picture.flags & GOOD, 0);
    module_at(0)->list.next = link_of(0);
    ck_assert_uint_eq(visit(&picture).n, 1);
    ck_assert_uint_eq(picture.flags & GOOD, 0);
    fake_image_end(&image);
}

TEST(test_p12_modules_that_make_no_sense) {
    struct vmibus_linux_picture picture;

    begin(false);
    make(6);
    module_at(1)->name[0] = '\0';
    module_at(2)->state = 77;
    module_at(3)->core.base = 0x400000;
    module_at(4)->state = VMIBUS_LINUX_MODULE_UNFORMED;     /* as the kernel makes them: no reason to complain */
    ck_assert_uint_eq(visit(&picture).n, 2);
    ck_assert_uint_eq(picture.n_broken, 3);
    ck_assert_uint_eq(picture.n_seen, 2);
    fake_image_end(&image);
}

TEST(test_p09_links_that_lead_nowhere) {
    struct vmibus_linux_picture picture;

    begin(false);
    make(3);
    module_at(1)->list.next = UINT64_C(0xffffffffb0000000);
    ck_assert_uint_eq(visit(&picture).n, 2);
    ck_assert_uint_eq(picture.flags & GOOD, 0);
    module_at(1)->list.next = UINT64_MAX - 3;
    ck_assert_uint_eq(visit(&picture).n, 2);
    fake_image_end(&image);
}

/* A module goes while the list is read. */
static void unload(struct fake_guest *guest, uint64_t gpa) {
    if (gpa != module_gva(2) - FAKE_IMAGE_GVA + FAKE_IMAGE_GPA)
        return;
    guest->after_read = NULL;
    module_at(0)->list.next = link_of(2);
    module_at(2)->list.back = link_of(0);
}

TEST(test_list_that_changes_meanwhile) {
    struct vmibus_linux_picture picture;

    begin(false);
    make(3);
    image.guest.after_read = unload;
    ck_assert_uint_eq(visit(&picture).n, 3);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
    fake_image_end(&image);
}

/* One goes and another comes: as many as before. */
static void reload(struct fake_guest *guest, uint64_t gpa) {
    if (gpa != module_gva(2) - FAKE_IMAGE_GVA + FAKE_IMAGE_GPA)
        return;
    guest->after_read = NULL;
    *module_at(10) = *module_at(1);
    module_at(0)->list.next = link_of(10);
    module_at(2)->list.back = link_of(10);
}

TEST(test_list_whose_length_stays) {
    struct vmibus_linux_picture picture;

    begin(false);
    make(3);
    image.guest.after_read = reload;
    ck_assert_uint_eq(visit(&picture).n, 3);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
    fake_image_end(&image);
}

/* --- symbols of modules ---------------------------------------------------------------------------------------------- */

/* Gives the first module a table of two symbols. Returns it. */
static struct tables *give_symbols(void) {
    static const char names[] = "\0first\0second";
    struct tables *tables = fake_image_at(&image, TABLES);
    struct module_symbol *symbols = fake_image_at(&image, TABLES + 0x100);

    module_at(0)->kallsyms = TABLES;
    *tables = (struct tables){TABLES + 0x100, TABLES + 0x1000, TABLES + 0x2000, 3, 0};
    symbols[1] = (struct module_symbol){.name = 1, .section = 1, .value = BASE + 0x10, .size = 8};
    symbols[2] = (struct module_symbol){.name = 7, .section = 1, .value = BASE + 0x20, .size = 8};
    memcpy(fake_image_at(&image, TABLES + 0x1000), names, sizeof(names));
    memcpy(fake_image_at(&image, TABLES + 0x2000), "?tD", 3);
    return tables;
}

static struct module_symbols *read_symbols(int expected) {
    struct vmibus_linux_module module = {.module = module_gva(0), .name = "module_0"};
    struct module_symbols *symbols;

    ck_assert_int_eq(module_symbols_read(image.kernel, &module, &symbols), expected);
    return symbols;
}

TEST(test_symbols_of_a_module) {
    struct vmibus_linux_symbol symbol;
    struct module_symbols *symbols;

    begin(false);
    make(1);
    give_symbols();
    symbols = read_symbols(0);
    ck_assert_uint_eq(symbols->n_symbols, 3);
    ck_assert(!module_symbols_get(symbols, 0, &symbol));
    ck_assert(module_symbols_get(symbols, 1, &symbol));
    ck_assert_str_eq(symbol.name, "first");
    ck_assert_str_eq(symbol.module, "module_0");
    ck_assert_uint_eq(symbol.gva, BASE + 0x10);
    ck_assert_int_eq(symbol.type, 't');
    ck_assert(module_symbols_get(symbols, 2, &symbol));
    ck_assert_str_eq(symbol.name, "second");
    module_symbols_free(symbols);
    fake_image_end(&image);
}

TEST(test_p09_symbols_with_hostile_counts) {
    struct tables *tables;

    begin(false);
    make(1);
    tables = give_symbols();
    tables->count = UINT32_MAX;
    read_symbols(VMIBUS_GUEST_UNPROVEN);
    tables->count = MODULE_SYMBOLS_MAX;     /* goes past the image */
    tables->table = FAKE_IMAGE_GVA + FAKE_IMAGE_LEN - 0x1000;
    ck_assert_ptr_null(read_symbols(VMIBUS_GUEST_NOT_PRESENT));
    tables->count = 0;
    module_symbols_free(read_symbols(0));
    fake_image_end(&image);
}

/* Names far away, without an end, at the end of what is mapped. */
TEST(test_p09_symbols_with_hostile_names) {
    struct vmibus_linux_symbol symbol;
    struct module_symbols *symbols;
    struct module_symbol *table;
    struct tables *tables;

    begin(false);
    make(1);
    tables = give_symbols();
    table = fake_image_at(&image, tables->table);
    table[1].name = UINT32_MAX;
    read_symbols(VMIBUS_GUEST_UNPROVEN);
    table[1].name = 1u << 20;
    tables->names = FAKE_IMAGE_GVA + FAKE_IMAGE_LEN - 16;
    memset(fake_image_at(&image, tables->names), 'x', 16);
    symbols = read_symbols(0);
    ck_assert_uint_eq(symbols->names_len, 16);
    ck_assert(!module_symbols_get(symbols, 1, &symbol));
    ck_assert(module_symbols_get(symbols, 2, &symbol));
    ck_assert_str_eq(symbol.name, "xxxxxxxxx");
    module_symbols_free(symbols);
    tables->names = TABLES + 0x1000;
    memset(fake_image_at(&image, TABLES + 0x1000), 'y', 0x1000);
    table[1].name = 1;
    symbols = read_symbols(0);
    ck_assert(!module_symbols_get(symbols, 1, &symbol));
    module_symbols_free(symbols);
    fake_image_end(&image);
}

/* Each read fails in its turn: an error of the reader is passed on, and what is not whole is not called so. */
TEST(test_p12_each_read_that_fails, .iterations = 4) {
    const int failure = _i & 1 ? -EIO : VMIBUS_GUEST_OUTSIDE_RAM;
    struct vmibus_linux_picture picture;
    struct seen seen;
    int k = 1;

    begin(_i & 2);
    make(3);
    for (image.guest.failure = failure;; k++) {
        int r;

        seen = (struct seen){.n = 0};
        image.guest.reads = 0;
        image.guest.fail_at_read = k;
        r = vmibus_linux_visit_modules(image.kernel, see, &seen, &picture);
        if (image.guest.reads < (size_t)k)
            break;
        if (failure < 0)
            ck_assert_msg(r == failure, "read %d: %d", k, r);
        ck_assert_msg(r != 0 || seen.n == 3 || picture.n_broken > 0 || picture.flags != GOOD, "read %d", k);
    }
    ck_assert_int_gt(k, 20);
    fake_image_end(&image);
}

TEST(test_p12_each_read_of_symbols_that_fails, .iterations = 2) {
    const int failure = _i ? -EIO : VMIBUS_GUEST_OUTSIDE_RAM;
    const struct vmibus_linux_module module = {.module = module_gva(0), .name = "module_0"};
    struct module_symbols *symbols;
    int k = 1;

    begin(false);
    make(1);
    give_symbols();
    for (image.guest.failure = failure;; k++) {
        int r;

        image.guest.reads = 0;
        image.guest.fail_at_read = k;
        r = module_symbols_read(image.kernel, &module, &symbols);
        module_symbols_free(r == 0 ? symbols : NULL);
        if (image.guest.reads < (size_t)k)
            break;
        ck_assert_msg(failure < 0 ? r == failure : r >= 0, "read %d: %d", k, r);
    }
    ck_assert_int_gt(k, 5);
    fake_image_end(&image);
}

HARNESS_SUITE("linux_modules", HARNESS_QUICK)
