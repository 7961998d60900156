/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The intents log: who commanded what, and how it ended.
 *
 * A record is written before the command is executed and finished afterwards, by plain stores into a
 * shared file mapping: no system call, and what was stored outlives the process.  Records form a ring;
 * the sequence number of a record tells its place and never repeats, so a reader sees what was
 * overwritten.  One process writes one log; readers map it read-only and check a record's sequence
 * before and after copying it.
 * <vmibus/audit.h> has the file's layout, and how to read it.
 */
#ifndef UTIL_AUDIT_H
#define UTIL_AUDIT_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/audit.h>
#include <vmibus/protocol.h>

_Static_assert(sizeof(struct vmibus_audit_header) == 128, "audit header is 128 octets");
_Static_assert(sizeof(struct vmibus_audit_record) == 128, "audit record is 128 octets");

/** A log open for writing. Zeroed: records go nowhere. */
struct audit {
    struct vmibus_audit_header *header;
    struct vmibus_audit_record *records;
    size_t size;
};

/**
 * Maps a log and goes on after the last record; a file of another shape is begun anew.
 * @param fd       regular file or memfd, read-write; borrowed
 * @param capacity records
 * @return 0 or a negative errno
 */
int audit_init(struct audit *audit, int fd, uint64_t capacity, uint32_t incarnation);

/** Unmaps it. */
void audit_deinit(struct audit *audit);

/**
 * Writes an intent; @a record's sequence and state are set here.
 * @return its sequence, to finish it by; 0 if there is no log
 */
uint64_t audit_begin(struct audit *audit, const struct vmibus_audit_record *record);

/** Notes how it ended. Harmless if the record was overwritten meanwhile, or if sequence is 0. */
void audit_finish(struct audit *audit, uint64_t sequence, const struct vmibus_ack *ack);

#endif
