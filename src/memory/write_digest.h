/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Digests of what a write replaced and of what it wrote, for the audit log: of octets that are ours alone, the copy that was
 * taken before the first one moved, and the source that they were written from.  Extents follow each other in their order.
 *
 * A guest that runs may change an octet between the copy and the write; with QUIESCE it does not run.  Writes longer than the
 * administrator's bound have no digest, and the record says so: one of a part would pass for one of all.
 */
#ifndef MEMORY_WRITE_DIGEST_H
#define MEMORY_WRITE_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/audit.h>
#include <vmibus/protocol.h>

#include "memory/write.h"
#include "util/audit.h"

struct write_digests {
    bool taken;
    uint8_t octets[2 * VMIBUS_AUDIT_HASH];  /**< of the old, then of the new */
};

/** Takes digests of a write that was executed, if any are to be. Any thread, as the write. */
void write_digests_take(struct write_digests *digests, const struct write *write, const struct vmibus_ack *ack);

/** Notes them in the record of a write; if it wrote something and there are none, that. The loop's thread. */
void write_digests_note(const struct write_digests *digests, struct audit *audit, uint64_t sequence, const struct write *write,
                        const struct vmibus_ack *ack);

#endif
