/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A chain file that anybody may have made: read to its end, record by record, within bounds. */
#include <stdint.h>
#include <stdlib.h>

#include "audit/chain_reader.h"
#include "fuzz/target.h"

FUZZ_TARGET(audit_chain) {
    enum chain_found found;
    struct chain_reader reader;
    struct chain_item item;
    size_t before;

    found = chain_reader_init(&reader, data, size);
    while (found == CHAIN_RECORD) {
        before = reader.offset;
        found = chain_reader_next(&reader, &item);
        if (found == CHAIN_RECORD && (reader.offset <= before || chain_payload_size(item.record.kind) == SIZE_MAX))
            abort();
    }
    if (reader.offset > size || (found == CHAIN_DAMAGED && !reader.wrong))
        abort();
    return 0;
}
