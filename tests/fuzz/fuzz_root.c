/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: finding a Linux kernel in RAM.  The input is changes to a guest that has one: 12 octets each, which eight
 * octets of its memory, and what becomes of them; the first says instead what the vCPU's CR3 is.  A search ends, reads
 * no more than it may, and what it finds maps itself.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/guest.h>

#include "fuzz/target.h"

#define PAGE UINT64_C(4096)
#define LEN (UINT64_C(64) * PAGE)
#define IMAGE UINT64_C(0xffffffff80000000)
#define DIRECT_MAP UINT64_C(0xffff888000000000)
#define RIGHTS UINT64_C(0x8000000000000003) /* present, writable, not executable */
#define OCTETS_MAX ((UINT64_C(64) << 20) + LEN)

/* Where things are: pages of RAM. */
enum { TOP = 1, MAP_3, MAP_2, MAP_1, IMAGE_3, IMAGE_2, IMAGE_1, DATA, NOTE = 16 };

struct change {
    uint32_t index;
    uint32_t value[2];
};

/* RAM: an array in place of files. */
struct vmibus_guest_ram {
    uint64_t memory[LEN / 8];
};

int vmibus_guest_ram_read(struct vmibus_guest_ram *ram, uint64_t gpa, void *buffer, size_t len) {
    if (gpa > LEN || len > LEN - gpa)
        return VMIBUS_GUEST_OUTSIDE_RAM;
    memcpy(buffer, (uint8_t *)ram->memory + gpa, len);
    return 0;
}

static int read_ram(void *context, uint64_t gpa, void *buffer, size_t len) {
    return vmibus_guest_ram_read(context, gpa, buffer, len);
}

struct vmibus_guest_reader vmibus_guest_ram_reader(struct vmibus_guest_ram *ram) {
    return (struct vmibus_guest_reader){.read = read_ram, .context = ram};
}

int vmibus_guest_ram_next_data(struct vmibus_guest_ram *ram, uint64_t *gpa, uint64_t *len) {
    (void)ram;
    if (*gpa >= LEN)
        return VMIBUS_GUEST_NOT_FOUND;
    *len = LEN - *gpa;
    return 0;
}

static void enter(struct vmibus_guest_ram *ram, uint64_t table, uint64_t index, uint64_t page) {
    ram->memory[table * 512 + index] = page * PAGE | RIGHTS;
}

static void make_guest(struct vmibus_guest_ram *ram) {
    enter(ram, TOP, DIRECT_MAP >> 39 & 511, MAP_3);
    enter(ram, MAP_3, 0, MAP_2);
    enter(ram, MAP_2, 0, MAP_1);
    for (uint64_t i = 0; i < LEN / PAGE; i++)
        enter(ram, MAP_1, i, i);
    enter(ram, TOP, 511, IMAGE_3);
    enter(ram, IMAGE_3, 510, IMAGE_2);
    enter(ram, IMAGE_2, 0, IMAGE_1);
    enter(ram, IMAGE_1, TOP, TOP);
    enter(ram, IMAGE_1, DATA, DATA);
    ram->memory[DATA * 512 + 17] = DIRECT_MAP + NOTE * PAGE;
    snprintf((char *)&ram->memory[NOTE * 512], PAGE, "OSRELEASE=6.1.0\nSYMBOL(swapper_pg_dir)=%llx\nNUMBER(phys_base)=0\n",
             (unsigned long long)(IMAGE + TOP * PAGE));
}

static void check(struct vmibus_guest_ram *ram, int r, const struct vmibus_guest_kernel *kernel) {
    struct vmibus_guest_reader reader = vmibus_guest_ram_reader(ram);
    struct vmibus_guest_translation found;

    if (r != 0 && r != VMIBUS_GUEST_NOT_FOUND && r != VMIBUS_GUEST_UNPROVEN && r != -ENOMEM)
        abort();
    if (r != 0)
        return;
    if (kernel->octets > OCTETS_MAX || kernel->swept > LEN || kernel->swept > kernel->octets)
        abort();
    if (vmibus_guest_translate(&reader, &kernel->root, kernel->note.swapper_pg_dir, &found) != 0 ||
        found.gpa != kernel->root.cr3)
        abort();
}

FUZZ_TARGET(root) {
    struct vmibus_guest_ram *ram = calloc(1, sizeof(*ram));
    struct vmibus_guest_kernel kernel;
    uint64_t cr3[] = {TOP * PAGE, TOP * PAGE};
    uint8_t levels[] = {0, 4};
    const struct vmibus_guest_hints hints = {.vcpu_cr3 = cr3, .vcpu_levels = levels, .n_vcpu_cr3 = 2};

    if (!ram)
        return 0;
    make_guest(ram);
    for (size_t at = 0; size - at >= sizeof(struct change); at += sizeof(struct change)) {
        struct change change;
        uint64_t value;

        memcpy(&change, data + at, sizeof(change));
        value = (uint64_t)change.value[1] << 32 | change.value[0];
        if (at == 0)
            cr3[0] = value;
        else
            ram->memory[change.index % (LEN / 8)] = value;
    }
    check(ram, vmibus_guest_find_linux(ram, &hints, &kernel), &kernel);
    check(ram, vmibus_guest_find_linux(ram, NULL, &kernel), &kernel);
    free(ram);
    return 0;
}
