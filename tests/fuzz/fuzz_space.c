/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the memory of a kernel with two address spaces, in a maple tree and in a red-black tree, with files in them; the
 * input changes it word by word. The walks end, and what they hand over makes sense.
 *
 * The input is a list of changes: an octet that says how, three for where, eight for what.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../guest_lib/flat_kernel.h"
#include "fuzz/target.h"
#include "guest/linux/path.h"

#define N_AREAS 40
#define CHANGE 12
#define READS_BOUND 5000000

static bool check(void *context, const struct vmibus_linux_mapping *mapping) {
    uint64_t *last = context;

    if (mapping->start >= mapping->end || mapping->end <= *last)
        abort();
    if (mapping->name && strnlen(mapping->name, VMIBUS_LINUX_PATH_SIZE) == VMIBUS_LINUX_PATH_SIZE)
        abort();
    *last = mapping->end;
    return true;
}

static uint64_t make(struct flat_kernel *flat, enum flat_trees trees) {
    uint64_t root = flat_dentry(flat, 0, "/"), top = flat_mount(flat, 0, 0, root), usr = flat_dentry(flat, root, "usr");
    uint64_t inner = flat_dentry(flat, 0, "/"), mounted = flat_mount(flat, top, usr, inner);
    uint64_t file = flat_file(flat, mounted, flat_dentry(flat, inner, "a library with a name of its own"), 7, 8);
    uint64_t mm = flat_mm(flat), areas[N_AREAS];

    for (uint64_t i = 0; i < N_AREAS; i++)
        areas[i] = flat_area(flat, mm, 0x10000 * (i + 1), 0x10000 * (i + 1) + (i % 2 ? 0x1000 : 0x10000), 0x75, i % 5 ? 0 : file);
    flat_plant(flat, trees, mm, areas, N_AREAS, 3);
    return mm;
}

/* Changes are of what was made only: the rest of the memory is never read. */
static void change(struct flat_kernel *flat, const uint8_t *data, size_t size) {
    for (; size >= CHANGE; data += CHANGE, size -= CHANGE) {
        size_t at = (size_t)(data[1] | data[2] << 8 | data[3] << 16) * 8 % flat->used;
        uint64_t word, what;

        memcpy(&word, flat->memory + at, 8);
        memcpy(&what, data + 4, 8);
        switch (data[0] % 4) {
        case 0:
            word = what;
            break;
        case 1:
            word ^= what;
            break;
        case 2:
            word += (int8_t)data[4];
            break;
        default: /* an address of something else */
            word = FLAT_BASE + what % flat->used;
            break;
        }
        memcpy(flat->memory + at, &word, 8);
    }
}

static void run(enum flat_trees trees, const uint8_t *data, size_t size) {
    struct flat_kernel *flat = flat_kernel_new(trees);
    struct vmibus_linux_picture picture;
    struct vmibus_linux_task task;
    uint64_t last = 0;

    if (!flat)
        return;
    flat_task(flat, 1, &task);
    task.mm = ((struct flat_task *)flat_at(flat, task.task))->mm = make(flat, trees);
    change(flat, data, size);
    vmibus_linux_visit_mappings(&flat->kernel, &task, check, &last, &picture);
    if (flat->reads > READS_BOUND)
        abort();
    flat_kernel_free(flat);
}

FUZZ_TARGET(space) {
    if (size == 0)
        return 0;
    run(data[0] % 2 ? FLAT_MAPLE : FLAT_RED_BLACK, data + 1, size - 1);
    return 0;
}
