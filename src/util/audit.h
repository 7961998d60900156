/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The intents log: who commanded what, and how it ended.
 *
 * A record is written before the command is executed and finished afterwards, by plain stores into a
 * shared file mapping: no system call, and what was stored outlives the process.  Records form a ring;
 * the sequence number of a record tells its place and never repeats, so a reader sees what was
 * overwritten.  One process writes one log; readers map it read-only and check a record's sequence
 * before and after copying it.
 *
 * Layout of the file: one header of 128 octets, then `capacity` records of 128 octets, little-endian.
 */
#ifndef UTIL_AUDIT_H
#define UTIL_AUDIT_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#define AUDIT_MAGIC UINT64_C(0x0031445541494d56) /* "VMIAUD1" */
#define AUDIT_PENDING UINT16_C(0xffff)           /* the command had not ended when last heard of */

struct audit_header {
    uint64_t magic;
    uint64_t capacity;      /**< records */
    uint64_t written;       /**< records ever begun; the newest has this sequence */
    uint32_t incarnation;   /**< of the writer */
    uint32_t pid;           /**< of the writer */
    int64_t realtime_offset; /**< CLOCK_REALTIME minus CLOCK_MONOTONIC at opening, nanoseconds */
    uint8_t reserved[88];
};

struct audit_record {
    uint64_t sequence;      /**< 0 while being written; from 1 */
    uint64_t received;      /**< CLOCK_MONOTONIC nanoseconds */
    uint64_t finished;      /**< 0 while pending */
    uint64_t generation;
    uint32_t slot;
    uint32_t uid;
    uint32_t pid;
    uint16_t kind;          /**< enum vmibus_kind */
    uint16_t error;         /**< enum vmibus_error, or AUDIT_PENDING */
    uint16_t reason;        /**< enum vmibus_reason */
    uint8_t detail;         /**< lease class, power or vm operation */
    uint8_t operation;      /**< lease operation */
    uint32_t len;           /**< octets or events */
    uint64_t token;
    uint64_t epoch;
    uint64_t cr3;
    uint64_t address;       /**< gva of a write */
    uint64_t count;         /**< how much was done */
    uint64_t correlation;
    uint8_t reserved[24];
};

_Static_assert(sizeof(struct audit_header) == 128, "audit header is 128 octets");
_Static_assert(sizeof(struct audit_record) == 128, "audit record is 128 octets");

/** A log open for writing. Zeroed: records go nowhere. */
struct audit {
    struct audit_header *header;
    struct audit_record *records;
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
uint64_t audit_begin(struct audit *audit, const struct audit_record *record);

/** Notes how it ended. Harmless if the record was overwritten meanwhile, or if sequence is 0. */
void audit_finish(struct audit *audit, uint64_t sequence, const struct vmibus_ack *ack);

/**
 * Copies one record of a mapped log.
 * @return 1 copied, 0 overwritten or being written
 */
int audit_read(const struct audit_header *header, uint64_t sequence, struct audit_record *record);

#endif
