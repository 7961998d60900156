/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/write_digest.h"

void write_digests_take(struct write_digests *digests, const struct write *write, const struct vmibus_ack *ack) {
    digests->taken = write->digest && !write->dry_run && ack->count;
    if (!digests->taken)
        return;
    write->digest(write->copy, write->len, digests->octets);
    write->digest(write->source, write->len, digests->octets + VMIBUS_AUDIT_HASH);
}

void write_digests_note(const struct write_digests *digests, struct audit *audit, uint64_t sequence, const struct write *write,
                        const struct vmibus_ack *ack) {
    if (digests->taken)
        audit_note_digests(audit, sequence, digests->octets);
    else if (audit->digest_bound && !write->dry_run && ack->count)
        audit_note_digests(audit, sequence, NULL);
}
