/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Building the guest: x86-64 page tables entry by entry (Intel SDM volume 3, 4.5), and the texts.
 *
 * Errors are sticky in struct builder: the first one ends all writing, the caller asks once.
 */
#include "stub_guest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ENTRY_PRESENT (UINT64_C(1) << 0)
#define ENTRY_WRITABLE (UINT64_C(1) << 1)
#define ENTRY_USER (UINT64_C(1) << 2)
#define ENTRY_ACCESSED (UINT64_C(1) << 5)
#define ENTRY_DIRTY (UINT64_C(1) << 6)
#define ENTRY_LARGE (UINT64_C(1) << 7)
#define ENTRY_RESERVED_LARGE (UINT64_C(1) << 13) /* reserved in an entry that maps 2 MiB */
#define ENTRY_NO_EXECUTE (UINT64_C(1) << 63)

#define RIGHTS_TABLE (ENTRY_PRESENT | ENTRY_WRITABLE | ENTRY_ACCESSED)
#define RIGHTS_DATA \
    (ENTRY_PRESENT | ENTRY_WRITABLE | ENTRY_ACCESSED | ENTRY_DIRTY | ENTRY_NO_EXECUTE)
#define RIGHTS_READ_ONLY (ENTRY_PRESENT | ENTRY_ACCESSED | ENTRY_NO_EXECUTE)

#define TABLES_MAXIMUM 16

/* One address space being written: which table lies where, so that each is made once. */
struct builder {
    struct stub_ram *ram;
    int error;
    uint64_t root;
    uint64_t next;   /* the next free page for a table */
    uint64_t rights; /* of entries that point to tables */
    uint8_t levels;
    struct {
        uint64_t parent; /* where the entry lies that points to it */
        uint64_t table;
    } tables[TABLES_MAXIMUM];
    unsigned n_tables;
};

static void write_octets(struct builder *builder, uint64_t gpa, const void *data, size_t len) {
    if (builder->error == 0)
        builder->error = stub_ram_write(builder->ram, gpa, data, len);
}

static void write_entry(struct builder *builder, uint64_t gpa, uint64_t entry) {
    write_octets(builder, gpa, &entry, sizeof(entry));
}

static uint64_t entry_gpa(uint64_t table, uint64_t gva, unsigned level) {
    return table + ((gva >> (12 + 9 * (level - 1))) & 511) * sizeof(uint64_t);
}

/* The table that the entry at parent points to, made where it does not exist. */
static uint64_t descend(struct builder *builder, uint64_t parent) {
    unsigned i;

    for (i = 0; i < builder->n_tables; i++)
        if (builder->tables[i].parent == parent)
            return builder->tables[i].table;
    if (builder->n_tables == TABLES_MAXIMUM) {
        builder->error = builder->error ? builder->error : -ENOSPC;
        return parent & ~(STUB_PAGE - 1);
    }
    builder->tables[i].parent = parent;
    builder->tables[i].table = builder->next;
    builder->n_tables++;
    builder->next += STUB_PAGE;
    write_entry(builder, parent, builder->tables[i].table | builder->rights);
    return builder->tables[i].table;
}

/* Stores an entry for gva at a level, making the tables above it. */
static void map_entry(struct builder *builder, uint64_t gva, unsigned level, uint64_t entry) {
    uint64_t table = builder->root;
    unsigned at;

    for (at = builder->levels; at > level; at--)
        table = descend(builder, entry_gpa(table, gva, at));
    write_entry(builder, entry_gpa(table, gva, level), entry);
}

static void build_kernel_tables(struct builder *builder, unsigned vm, unsigned boot) {
    uint64_t gva = stub_kernel_gva(vm, boot), direct = stub_direct_gva(vm);

    builder->root = stub_swapper_gpa(boot);
    builder->next = stub_kernel_gpa(boot) + STUB_TABLES_OFFSET;
    builder->rights = RIGHTS_TABLE;
    map_entry(builder, gva, 2, stub_kernel_gpa(boot) | RIGHTS_DATA | ENTRY_LARGE);
    map_entry(builder, stub_banner_gva(vm, boot), 1, stub_banner_gpa(boot) | RIGHTS_READ_ONLY);
    map_entry(builder, direct, 3, RIGHTS_DATA | ENTRY_LARGE);
    if (stub_is_split(vm))
        map_entry(builder, direct + STUB_HIGH_GPA, 3, STUB_HIGH_GPA | RIGHTS_DATA | ENTRY_LARGE);
}

/* Points the upper half of a process's root at the kernel's tables. */
static void share_kernel_half(struct builder *process, const struct builder *kernel) {
    unsigned i;

    for (i = 0; i < kernel->n_tables; i++)
        if ((kernel->tables[i].parent & ~(STUB_PAGE - 1)) == kernel->root)
            write_entry(process, process->root + (kernel->tables[i].parent & (STUB_PAGE - 1)),
                        kernel->tables[i].table | kernel->rights);
}

static void build_buffer(struct builder *builder, unsigned vm, unsigned boot, unsigned process) {
    uint8_t octets[STUB_PAGE];
    unsigned page;
    size_t i;

    for (page = 0; page < STUB_BUFFER_PAGES; page++) {
        for (i = 0; i < sizeof(octets); i++)
            octets[i] = stub_buffer_octet(process, page * STUB_PAGE + i);
        write_octets(builder, stub_buffer_gpa(vm, boot, process, page), octets, sizeof(octets));
        map_entry(builder, STUB_BUFFER_GVA + page * STUB_PAGE, 1,
                  stub_buffer_gpa(vm, boot, process, page) | RIGHTS_DATA | ENTRY_USER);
    }
}

static void build_process(const struct builder *kernel, struct builder *builder, const char *name,
                          unsigned boot, unsigned process) {
    unsigned vm = builder->ram->vm;
    char text[STUB_PAGE];
    int len;

    builder->root = stub_process_cr3(boot, process);
    builder->next = builder->root + STUB_PAGE;
    builder->rights = RIGHTS_TABLE | ENTRY_USER;
    share_kernel_half(builder, kernel);
    len = snprintf(text, sizeof(text), STUB_DATA_FORMAT, name, process, boot);
    write_octets(builder, stub_data_gpa(boot, process), text, (size_t)len);
    write_octets(builder, stub_read_only_gpa(boot, process), STUB_READ_ONLY_TEXT,
                 sizeof(STUB_READ_ONLY_TEXT) - 1);
    map_entry(builder, STUB_DATA_GVA, 1, stub_data_gpa(boot, process) | RIGHTS_DATA | ENTRY_USER);
    map_entry(builder, STUB_READ_ONLY_GVA, 1,
              stub_read_only_gpa(boot, process) | RIGHTS_READ_ONLY | ENTRY_USER);
    map_entry(builder, STUB_PAGE_OUTSIDE_GVA, 1, STUB_OUTSIDE_GPA | RIGHTS_DATA | ENTRY_USER);
    build_buffer(builder, vm, boot, process);
    map_entry(builder, STUB_RESERVED_GVA, 2,
              STUB_LARGE_GPA | RIGHTS_DATA | ENTRY_USER | ENTRY_LARGE | ENTRY_RESERVED_LARGE);
    map_entry(builder, STUB_TABLE_OUTSIDE_GVA, 2, STUB_OUTSIDE_GPA | RIGHTS_TABLE | ENTRY_USER);
    map_entry(builder, STUB_LARGE_GVA, 2, STUB_LARGE_GPA | RIGHTS_DATA | ENTRY_USER | ENTRY_LARGE);
    map_entry(builder, STUB_HUGE_GVA, 3, RIGHTS_DATA | ENTRY_USER | ENTRY_LARGE);
}

/*
 * The lines of Linux kernel/crash_core.c and arch/x86/kernel/crash_core_64.c that matter to a
 * finder, in their order.
 */
static uint32_t build_note(struct builder *builder, unsigned vm, unsigned boot) {
    char text[STUB_PAGE];
    int len =
        snprintf(text, sizeof(text),
                 "OSRELEASE=" STUB_RELEASE "\n"
                 "PAGESIZE=4096\n"
                 "SYMBOL(init_uts_ns)=%llx\n"
                 "SYMBOL(swapper_pg_dir)=%llx\n"
                 "SYMBOL(_stext)=%llx\n"
                 "NUMBER(KERNEL_IMAGE_SIZE)=1073741824\n"
                 "NUMBER(phys_base)=%lld\n"
                 "SYMBOL(init_top_pgt)=%llx\n"
                 "NUMBER(pgtable_l5_enabled)=%d\n"
                 "KERNELOFFSET=%llx\n"
                 "NUMBER(sme_mask)=0\n",
                 (unsigned long long)(stub_banner_gva(vm, boot) + 0x100),
                 (unsigned long long)stub_swapper_gva(vm, boot),
                 (unsigned long long)stub_kernel_gva(vm, boot), (long long)stub_phys_base(vm, boot),
                 (unsigned long long)stub_swapper_gva(vm, boot), stub_levels(vm) == 5,
                 (unsigned long long)stub_kernel_offset(vm, boot));

    write_octets(builder, stub_note_gpa(boot), text, (size_t)len);
    return (uint32_t)len;
}

int stub_guest_build(struct stub_ram *ram, const char *name, unsigned boot, uint32_t *note_len) {
    struct builder kernel = {.ram = ram, .levels = stub_levels(ram->vm)}, process;
    unsigned i;

    build_kernel_tables(&kernel, ram->vm, boot);
    write_octets(&kernel, stub_banner_gpa(boot), STUB_BANNER_TEXT, sizeof(STUB_BANNER_TEXT) - 1);
    for (i = 0; i < STUB_PROCESSES && kernel.error == 0; i++) {
        process = (struct builder){.ram = ram, .levels = kernel.levels};
        build_process(&kernel, &process, name, boot, i);
        kernel.error = process.error;
    }
    /* Last: who finds the note finds all that it speaks of. */
    *note_len = build_note(&kernel, ram->vm, boot);
    return kernel.error;
}
