/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The intents log as a file: who commanded what, and how it ended.  A program that reads one maps it
 * read-only; it is written meanwhile, by plain stores.
 *
 * Layout: one header of 128 octets, then `capacity` records of 128 octets, little-endian.  Records
 * form a ring; the sequence number of a record tells its place and never repeats.
 */
#ifndef VMIBUS_AUDIT_H
#define VMIBUS_AUDIT_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMIBUS_AUDIT_MAGIC UINT64_C(0x0031445541494d56) /* "VMIAUD1" */
#define VMIBUS_AUDIT_PENDING UINT16_C(0xffff)           /* the command had not ended when last heard of */

struct vmibus_audit_header {
    uint64_t magic;
    uint64_t capacity;       /**< records */
    uint64_t written;        /**< records ever begun; the newest has this sequence */
    uint32_t incarnation;    /**< of the writer */
    uint32_t pid;            /**< of the writer */
    int64_t realtime_offset; /**< CLOCK_REALTIME minus CLOCK_MONOTONIC at opening, nanoseconds */
    uint8_t reserved[88];
};

struct vmibus_audit_record {
    uint64_t sequence;      /**< 0 while being written; from 1 */
    uint64_t received;      /**< CLOCK_MONOTONIC nanoseconds */
    uint64_t finished;      /**< 0 while pending */
    uint64_t generation;
    uint32_t slot;
    uint32_t uid;
    uint32_t pid;
    uint16_t kind;          /**< enum vmibus_kind */
    uint16_t error;         /**< enum vmibus_error, or VMIBUS_AUDIT_PENDING */
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

/**
 * Copies one record of a mapped log.
 * @param header   of the log; its capacity must have been checked against the file's size
 * @param sequence from 1 to header->written
 * @return 1 copied; 0 overwritten, or being written
 */
static inline int vmibus_audit_read(const struct vmibus_audit_header *header, uint64_t sequence,
                                    struct vmibus_audit_record *record) {
    const struct vmibus_audit_record *records = (const struct vmibus_audit_record *)(const void *)(header + 1);
    const struct vmibus_audit_record *slot = &records[(sequence - 1) % header->capacity];
    uint16_t error;

    if (sequence == 0 || __atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE) != sequence)
        return 0;
    /* The error is stored last, so what is read after it belongs to it. */
    error = __atomic_load_n(&slot->error, __ATOMIC_ACQUIRE);
    memcpy(record, slot, sizeof(*record));
    record->error = error;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&slot->sequence, __ATOMIC_RELAXED) == sequence;
}

#ifdef __cplusplus
}
#endif

#endif
