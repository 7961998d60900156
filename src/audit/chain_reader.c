/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/chain_reader.h"

#include <string.h>

#include "audit/hash.h"
#include "util/octets.h"

_Static_assert(sizeof(struct vmibus_chain_header) == 192, "a chain file's header is 192 octets");
_Static_assert(sizeof(struct vmibus_chain_record) == 64, "a chain record's header is 64 octets");
_Static_assert(sizeof(struct vmibus_chain_start) == 56 && sizeof(struct vmibus_chain_lost) == 16, "payloads have no gaps");

/* Records begin at multiples of this. */
#define STEP 8u

size_t chain_payload_size(uint16_t kind) {
    switch (kind) {
    case VMIBUS_CHAIN_START:
        return sizeof(struct vmibus_chain_start);
    case VMIBUS_CHAIN_INTENT:
    case VMIBUS_CHAIN_COMMAND:
    case VMIBUS_CHAIN_RECOVERED:
        return sizeof(struct vmibus_audit_record);
    case VMIBUS_CHAIN_LOST:
        return sizeof(struct vmibus_chain_lost);
    case VMIBUS_CHAIN_RULE:
        return sizeof(struct vmibus_audit_rule);
    case VMIBUS_CHAIN_END:
    case VMIBUS_CHAIN_STOP:
        return 0;
    default:
        return SIZE_MAX;
    }
}

/* A record that is whole in itself, wherever it belongs. */
static bool is_whole(const uint8_t *octets, size_t size, struct vmibus_chain_record *record) {
    uint8_t hash[VMIBUS_AUDIT_HASH];
    size_t payload, length;

    if (size < sizeof(*record))
        return false;
    memcpy(record, octets, sizeof(*record));
    if (record->magic != VMIBUS_CHAIN_RECORD_MAGIC)
        return false;
    payload = chain_payload_size(record->kind);
    length = sizeof(*record) + payload + VMIBUS_AUDIT_HASH;
    if (payload == SIZE_MAX || record->length != length || size < length)
        return false;
    hash_octets(octets, length - VMIBUS_AUDIT_HASH, hash);
    return memcmp(hash, octets + length - VMIBUS_AUDIT_HASH, VMIBUS_AUDIT_HASH) == 0;
}

enum chain_found chain_reader_init(struct chain_reader *reader, const void *octets, size_t size) {
    uint8_t hash[VMIBUS_AUDIT_HASH];

    *reader = (struct chain_reader){.octets = octets, .size = size};
    if (size < sizeof(reader->header) || octets_are_zero(octets, size))
        return CHAIN_TORN;
    memcpy(&reader->header, octets, sizeof(reader->header));
    hash_octets(octets, sizeof(reader->header) - VMIBUS_AUDIT_HASH, hash);
    if (reader->header.magic != VMIBUS_CHAIN_MAGIC)
        reader->wrong = "it is no chain file";
    else if (reader->header.version < 1 || reader->header.version > VMIBUS_CHAIN_VERSION)
        reader->wrong = "it is of a version that is not known here";
    else if (memcmp(hash, reader->header.hash, sizeof(hash)) != 0)
        reader->wrong = "the header was changed";
    if (reader->wrong)
        return CHAIN_DAMAGED;
    memcpy(reader->hash, hash, sizeof(hash));
    reader->offset = sizeof(reader->header);
    reader->sequence = reader->header.first;
    return CHAIN_RECORD;
}

/*
 * Why there is no good record here.  What is being written when a writer dies is one batch: the one of the last good record, or
 * the one after it.  Its pages may reach the disk in any order.
 */
static enum chain_found judge(struct chain_reader *reader) {
    const uint8_t *octets = reader->octets;
    struct vmibus_chain_record record;

    for (size_t at = reader->offset + STEP; at + sizeof(record) <= reader->size; at += STEP) {
        if (!is_whole(octets + at, reader->size - at, &record))
            continue;
        if (record.batch != reader->batch && record.batch != reader->batch + 1)
            return CHAIN_DAMAGED;
        at += record.length - STEP;
    }
    return CHAIN_TORN;
}

enum chain_found chain_reader_next(struct chain_reader *reader, struct chain_item *item) {
    const uint8_t *octets = reader->octets + reader->offset;
    size_t left = reader->size - reader->offset;

    reader->wrong = NULL; /* more may have been written since */
    if (left == 0)
        return CHAIN_FILE_END;
    if (!is_whole(octets, left, &item->record)) {
        reader->wrong = "the record was changed, or is none";
        return judge(reader);
    }
    /* A record that is whole and in the wrong place was put there: no crash does that. */
    if (item->record.sequence != reader->sequence)
        reader->wrong = "records are missing before it, or it is not of this place";
    else if (memcmp(item->record.previous, reader->hash, sizeof(reader->hash)) != 0)
        reader->wrong = "it does not follow from the record before it";
    if (reader->wrong)
        return CHAIN_DAMAGED;
    memcpy(&item->command, octets + sizeof(item->record), chain_payload_size(item->record.kind));
    reader->batch = item->record.batch;
    reader->sequence++;
    reader->offset += item->record.length;
    memcpy(reader->hash, octets + item->record.length - VMIBUS_AUDIT_HASH, sizeof(reader->hash));
    return CHAIN_RECORD;
}
