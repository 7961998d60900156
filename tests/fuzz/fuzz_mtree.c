/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the texts of the human monitor.  Whatever is taken for a flat view rises, does not
 * overlap and does not wrap.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/layout.h"
#include "qemu/mtree.h"
#include "qemu/process.h"
#include "qemu/registers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_view(const struct mtree *tree) {
    for (size_t i = 0; i < tree->n_ranges; i++) {
        const struct mtree_range *range = &tree->ranges[i];

        if (!range->len || range->gpa + (range->len - 1) < range->gpa ||
            range->offset + (range->len - 1) < range->offset)
            abort();
        if (i && (range->gpa <= range[-1].gpa || range->gpa - range[-1].gpa < range[-1].len))
            abort();
        if (strlen(range->name) > MTREE_NAME_BOUND)
            abort();
    }
}

static void parse_rest(const char *text, size_t size) {
    struct registers registers;
    uint64_t number;

    registers_parse(text, size, &registers);
    if (registers.n_cr3 > REGISTERS_VCPUS_BOUND)
        abort();
    registers_fingerprint(text, size);
    process_parse_stat(text, size, &number);
    if (layout_parse_location(text, 0x1000, "ram0", &number) && !number)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    struct mtree tree;

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (mtree_parse(text, size, &tree) == 0) {
        check_view(&tree);
        mtree_deinit(&tree);
    }
    parse_rest(text, size);
    free(text);

    return 0;
}
