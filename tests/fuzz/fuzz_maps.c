/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzes the parser of /proc/PID/maps:
 *     clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc tests/fuzz/fuzz_maps.c src/memory/maps.c
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "fuzz/target.h"
#include "memory/maps.h"

FUZZ_TARGET(maps) {
    struct maps maps = {};
    uint64_t last = 0;

    if (maps_parse(&maps, (const char *)data, size) == 0) {
        for (size_t i = 0; i < maps.n_entries; i++) {
            const struct maps_entry *entry = &maps.entries[i];

            assert(entry->start >= last && entry->start < entry->end);
            assert(maps_find(&maps, entry->start) == entry);
            assert(maps_find(&maps, entry->end - 1) == entry);
            last = entry->end;
        }
    }
    maps_deinit(&maps);
    return 0;
}
