/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl translate: a page walk, entry by entry. */
#include <inttypes.h>
#include <stdio.h>

#include "frame_json.h"
#include "guest_memory.h"
#include "process_space.h"
#include "report.h"
#include "table.h"
#include "units.h"

/* Bits of a paging entry (Intel SDM volume 3, 4.5). */
static const struct {
    unsigned bit;
    bool of_pages; /* entries that lead to a table ignore it */
    const char *name;
} entry_bits[] = {
    {0, false, "present"},  {1, false, "writable"}, {2, false, "user"}, {3, false, "write-through"}, {4, false, "uncached"},
    {5, false, "accessed"}, {6, true, "dirty"},     {8, true, "global"}, {63, false, "no-execute"},
};

#define LARGE_PAGE (UINT64_C(1) << 7)
#define LARGE_PAGE_PAT (UINT64_C(1) << 12)
#define ADDRESS UINT64_C(0xffffffffff000) /* of 52 bits, the most there can be */

static const char *level_name(unsigned level) {
    static const char *const names[] = {"?", "page table", "page directory", "PDPT", "PML4", "PML5"};

    return level < sizeof(names) / sizeof(names[0]) ? names[level] : names[0];
}

static uint64_t size_at(unsigned level) {
    return UINT64_C(1) << (12 + 9 * (level - 1));
}

/* The bits of an entry that leads to a page, or would, that must be clear. */
static uint64_t reserved_bits(uint64_t value, unsigned level) {
    if (level == 1 || !(value & LARGE_PAGE))
        return 0;
    if (level > 3)
        return LARGE_PAGE;
    return value & ADDRESS & (size_at(level) - 1) & ~LARGE_PAGE_PAT;
}

static void describe_entry(uint64_t value, unsigned level, char *text, size_t size) {
    bool is_page = level == 1 || value & LARGE_PAGE;
    uint64_t reserved = reserved_bits(value, level);
    char page[UNITS_SIZE_SIZE];
    size_t used = 0;

    if (!(value & 1)) {
        snprintf(text, size, value ? "not present; the rest is the system's" : "not present");
        return;
    }
    for (size_t i = 0; i < sizeof(entry_bits) / sizeof(entry_bits[0]); i++)
        if (value >> entry_bits[i].bit & 1 && (is_page || !entry_bits[i].of_pages))
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", entry_bits[i].name);
    if (reserved)
        snprintf(text + used, size - used, "; reserved bits 0x%" PRIx64, reserved);
    else if (is_page)
        snprintf(text + used, size - used, "; page of %s at 0x%" PRIx64, units_size(size_at(level), page),
                 value & ADDRESS & ~(size_at(level) - 1));
    else
        snprintf(text + used, size - used, "; table at 0x%" PRIx64, value & ADDRESS);
}

static unsigned index_at(uint64_t gva, unsigned level) {
    return (unsigned)(gva >> (12 + 9 * (level - 1)) & 511);
}

static void print_text(const struct guest_memory *memory, uint64_t gva, int r, const struct vmibus_guest_translation *translation) {
    struct table *table = table_new(5);
    char text[160];

    printf("0x%016" PRIx64 " by cr3 0x%" PRIx64 ", %u levels\n", gva, memory->root.cr3, memory->root.levels);
    table_cell(table, "LEVEL");
    table_cell(table, "INDEX");
    table_cell(table, "ENTRY AT");
    table_cell(table, "ENTRY");
    table_cell(table, "MEANING");
    for (unsigned i = 0; i < translation->depth; i++) {
        unsigned level = memory->root.levels - i;

        describe_entry(translation->entries[i].value, level, text, sizeof(text));
        table_cell(table, "%u %s", level, level_name(level));
        table_cell(table, "%u", index_at(gva, level));
        table_cell(table, "0x%" PRIx64, translation->entries[i].gpa);
        table_cell(table, "0x%016" PRIx64, translation->entries[i].value);
        table_cell(table, "%s", text);
    }
    if (r == VMIBUS_GUEST_OUTSIDE_RAM || r == VMIBUS_GUEST_TRUNCATED) {
        table_cell(table, "%u %s", translation->level, level_name(translation->level));
        table_cell(table, "%u", index_at(gva, translation->level));
        table_cell(table, "0x%" PRIx64, translation->gpa);
        table_cell(table, "-");
        table_cell(table, "cannot be read");
    }
    table_print(table);
    if (r == 0)
        printf("0x%" PRIx64 " in a page of %s: %s, %s, %s\n", translation->gpa, units_size(translation->page_size, text),
               translation->rights & VMIBUS_GUEST_WRITABLE ? "writable" : "read-only",
               translation->rights & VMIBUS_GUEST_USER ? "user" : "kernel only",
               translation->rights & VMIBUS_GUEST_NO_EXECUTE ? "not executable" : "executable");
}

static struct json_object *rights_json(uint32_t rights) {
    struct json_object *array = json_object_new_array();

    if (rights & VMIBUS_GUEST_WRITABLE)
        json_object_array_add(array, json_object_new_string("WRITABLE"));
    if (rights & VMIBUS_GUEST_USER)
        json_object_array_add(array, json_object_new_string("USER"));
    if (rights & VMIBUS_GUEST_NO_EXECUTE)
        json_object_array_add(array, json_object_new_string("NO_EXECUTE"));
    return array;
}

static void print_json(const struct guest_memory *memory, uint64_t gva, int r, const struct vmibus_guest_translation *translation) {
    struct json_object *object = json_object_new_object(), *entries = json_object_new_array();

    for (unsigned i = 0; i < translation->depth; i++) {
        struct json_object *entry = json_object_new_object();

        json_object_object_add(entry, "level", json_object_new_int((int)memory->root.levels - (int)i));
        json_object_object_add(entry, "index", json_object_new_int((int)index_at(gva, memory->root.levels - i)));
        json_object_object_add(entry, "gpa", json_object_new_uint64(translation->entries[i].gpa));
        json_object_object_add(entry, "value", json_object_new_uint64(translation->entries[i].value));
        json_object_array_add(entries, entry);
    }
    json_object_object_add(object, "gva", json_object_new_uint64(gva));
    json_object_object_add(object, "cr3", json_object_new_uint64(memory->root.cr3));
    json_object_object_add(object, "levels", json_object_new_int(memory->root.levels));
    json_object_object_add(object, "epoch", json_object_new_uint64(memory->attachment->epoch));
    json_object_object_add(object, "entries", entries);
    json_object_object_add(object, "translated", json_object_new_boolean(r == 0));
    if (r == 0) {
        json_object_object_add(object, "gpa", json_object_new_uint64(translation->gpa));
        json_object_object_add(object, "page_size", json_object_new_uint64(translation->page_size));
        json_object_object_add(object, "rights", rights_json(translation->rights));
    }
    frame_json_print(object);
}

static int translate(struct vmibusctl *ctl, const struct guest_memory *memory, uint64_t gva) {
    struct vmibus_guest_translation translation = {};
    int r = STATUS_OK;

    if (guest_memory_is_current(memory))
        r = vmibus_guest_translate(&memory->reader, &memory->root, gva, &translation);
    /* Found in tables of an epoch that ended: nothing; guest_memory_check_epoch() says so. */
    if (!guest_memory_is_current(memory))
        return STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH;
    if (ctl->json)
        print_json(memory, gva, r, &translation);
    else
        print_text(memory, gva, r, &translation);
    return r ? guest_memory_report(memory, r, gva, &translation) : STATUS_OK;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct guest_memory memory = {};
    struct roster roster = {};
    struct vm *vm;
    uint64_t gva;
    int r, ended;

    if (!units_parse_number(arguments->words[1], UINT64_MAX, &gva))
        return vmibusctl_usage("address", arguments->words[1], "it is decimal, or 0x and hexadecimal");
    r = process_space_check(arguments);
    if (r == STATUS_OK)
        r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK) {
        r = guest_memory_attach(ctl, vm, false, arguments_get(arguments, "cr3"), false, &memory);
        if (r == STATUS_OK)
            r = process_space_enter(arguments_get(arguments, "pid"), &memory);
        if (r == STATUS_OK) {
            r = translate(ctl, &memory, gva);
            ended = guest_memory_check_epoch(ctl, &roster, &memory);
            r = ended ? ended : r;
        }
    }
    guest_memory_detach(&memory);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"cr3", "ADDR", "translate by this page-table root; without it by the kernel's"},
    PROCESS_SPACE_OPTION,
    {},
};

const struct verb verb_translate = {
    .name = "translate",
    .synopsis = "VM ADDR",
    .summary = "walk the page tables for an address and show each level",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
