/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a whole chain is what its writer wrote: each file by chain_reader.h, how they follow each other, and whether each
 * command of the intents log is in it.
 *
 * It says what a plain chain can say.  Whoever may rewrite all files can make a chain that is right in itself: that is seen only
 * by a hash that was kept elsewhere (verify_options.head).
 */
#ifndef AUDIT_VERIFY_H
#define AUDIT_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit/chain.h"
#include "audit/chain_reader.h"

enum verify_verdict {
    VERIFY_GOOD,
    VERIFY_TORN,        /**< good but for an unfinished write at the end: the writer died, or is writing */
    VERIFY_DAMAGED,     /**< something was changed, taken out or put in */
    VERIFY_MISSING,     /**< the chain is whole, and commands are missing of which it does not say so */
    VERIFY_OTHER_HEAD,  /**< the chain is whole, and does not hold the hash that it should */
};

struct verify_result {
    enum verify_verdict verdict;
    uint64_t first_segment, last_segment;
    uint64_t files, records, commands, recovered, pending;
    uint64_t lost;          /**< commands without a record, as the chain says itself */
    uint64_t idle;          /**< of these: changed nothing, and are not recorded on purpose */
    uint64_t missing;       /**< commands without a record in all */
    uint64_t open;          /**< of the last writer: not ended yet, not taken yet, or lost */
    uint64_t cut;           /**< octets of unfinished writes that were cut off */
    uint64_t damaged_files; /**< that their writer found so, and left alone */
    bool stopped;           /**< the last writer ended as it should */
    bool head_seen;
    uint8_t head[VMIBUS_AUDIT_HASH]; /**< hash of the last good record */
    uint64_t bad_segment;   /**< of TORN and DAMAGED: where */
    uint64_t bad_offset;
    uint64_t bad_sequence;  /**< of the first record that is not good */
    const char *wrong;
};

struct verify_options {
    const char *writer;
    const uint8_t *head;    /**< a hash that must be in the chain: of a record, or of a file's header; NULL: none */
    /** Each good record, in order; may be NULL. */
    void (*record)(void *context, uint64_t segment, const struct chain_item *item, const uint8_t *hash);
    void *context;
};

/**
 * Verifies the chain of a writer in a directory.
 * @return 0, -ENOENT (there is none) or another negative errno
 */
int verify_chain(int directory, const struct verify_options *options, struct verify_result *result);

#endif
