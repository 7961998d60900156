/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: BTF, and everything that is looked up in it. A member that is found lies in its structure; what is said of the
 * same BTF is said again of a module that goes on from it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "guest/linux/btf.h"

static const char *const structures[] = {"task_struct", "list_head", "s", "atomic_t"};
static const char *const paths[] = {"next", "comm", "a.b", "x", "a[1]", "mm_mt.ma_root", "s.s.s", "a[3].b[2].c", ""};

static void look_up(const struct btf *btf) {
    char why[BTF_WHY_BOUND];
    int64_t value;

    for (size_t i = 0; i < sizeof(structures) / sizeof(structures[0]); i++) {
        uint32_t id = 0;

        for (int n = 0; n < 8 && (id = btf_find_structure(btf, structures[i], id)) != 0; n++) {
            uint32_t octets;

            if (btf_structure_size(btf, id, &octets) != 0)
                abort();
            for (size_t j = 0; j < sizeof(paths) / sizeof(paths[0]); j++) {
                struct linux_field field;

                if (btf_find_member(btf, id, paths[j], &field, why) != 0)
                    continue;
                if (field.size == 0 || field.offset > octets || (field.bits > 0 && field.size > 8))
                    abort();
            }
        }
    }
    btf_find_enumerator(btf, "PIDTYPE_TGID", &value);
}

static struct btf *open_copy(const struct btf *base, const uint8_t *data, size_t size) {
    void *copy = malloc(size > 0 ? size : 1);
    char why[BTF_WHY_BOUND];
    struct btf *btf = NULL;

    if (copy) {
        memcpy(copy, data, size);
        btf_new(&btf, base, copy, size, why);
    }
    return btf;
}

FUZZ_TARGET(btf) {
    struct btf *btf = open_copy(NULL, data, size), *module;

    if (!btf)
        return 0;
    look_up(btf);
    module = open_copy(btf, data, size);
    if (module)
        look_up(module);
    btf_free(module);
    btf_free(btf);
    return 0;
}
