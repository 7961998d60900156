/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading a chain file: record by record, each checked.  What is read may have been made by anybody: nothing of it is believed
 * before it was checked, and no more is looked at than is there.
 *
 * A record is good if its shape is right, its sequence follows, it names the hash of what is before it, and its own hash is
 * right.  Where one is not, the rest tells why: a crash leaves at most the last batch hurt, so if no good record of another batch
 * than the one being written can be found after it, the file is torn; else something was done to it.
 */
#ifndef AUDIT_CHAIN_READER_H
#define AUDIT_CHAIN_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/audit.h>

/** What stands at a place. */
enum chain_found {
    CHAIN_RECORD,       /**< a good record */
    CHAIN_FILE_END,     /**< nothing more */
    CHAIN_TORN,         /**< an unfinished write, and nothing more */
    CHAIN_DAMAGED,      /**< something else than what was written */
};

/** A file being read, from memory. */
struct chain_reader {
    const uint8_t *octets;  /**< borrowed */
    size_t size;
    size_t offset;          /**< of what is read next; after TORN or DAMAGED of what is wrong */
    uint64_t sequence;      /**< of the record that must come next */
    uint32_t batch;         /**< of the last record */
    uint8_t hash[VMIBUS_AUDIT_HASH]; /**< of the last record, or of the header */
    struct vmibus_chain_header header;
    const char *wrong;      /**< after DAMAGED: what */
};

/** A record. Its payload is a copy: `start`, `lost`, `rule` or `command` by kind. */
struct chain_item {
    struct vmibus_chain_record record;
    union {
        struct vmibus_chain_start start;
        struct vmibus_chain_lost lost;
        struct vmibus_audit_rule rule;
        struct vmibus_audit_record command;
    };
};

/**
 * Begins with the header.
 * @return CHAIN_RECORD: it is good; CHAIN_TORN: the file is too short for one, or all of it zeros; CHAIN_DAMAGED
 */
enum chain_found chain_reader_init(struct chain_reader *reader, const void *octets, size_t size);

/** The next record. After CHAIN_FILE_END or CHAIN_TORN there may be one later, when octets and size were set anew. */
enum chain_found chain_reader_next(struct chain_reader *reader, struct chain_item *item);

/** Whether a kind carries a command. */
static inline bool chain_has_command(uint16_t kind) {
    return kind == VMIBUS_CHAIN_INTENT || kind == VMIBUS_CHAIN_COMMAND || kind == VMIBUS_CHAIN_RECOVERED;
}

/** Octets of a kind's payload; SIZE_MAX: there is no such kind. */
size_t chain_payload_size(uint16_t kind);

#endif
