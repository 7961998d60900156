/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: `info mtree -f`.  Whatever is taken for a flat view rises, does not overlap and does not wrap, and
 * is the same when it is read again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "machine/mtree.h"

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

FUZZ_TARGET(mtree) {
    struct mtree tree, again;

    if (mtree_parse((const char *)data, size, &tree) != 0)
        return 0;
    check_view(&tree);
    if (mtree_parse((const char *)data, size, &again) != 0 || !mtree_equal(&tree, &again))
        abort();
    mtree_deinit(&tree);
    mtree_deinit(&again);

    return 0;
}
