/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The audit files: who commanded what, and how it ended.  vmibus-audit(5) describes both.
 *
 * The intents log is a ring in a file mapping: one header of 256 octets, then `capacity` records of 256
 * octets, then `rules` rules of 192 octets.  The sequence number of a record tells its place and never repeats.  A program that
 * reads one maps it read-only; it is written meanwhile, by plain stores.
 *
 * The chain is a series of files that only grow: a header of 192 octets, then records one after the
 * other.  Each holds the hash of the one before, so that no record can be changed, left out or put in
 * without changing all hashes after it.
 *
 * All integers are little-endian.
 */
#ifndef VMIBUS_AUDIT_H
#define VMIBUS_AUDIT_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMIBUS_AUDIT_MAGIC UINT64_C(0x0032445541494d56) /* "VMIAUD2" */
#define VMIBUS_AUDIT_PENDING UINT16_C(0xffff)           /* the command had not ended when last heard of */
#define VMIBUS_AUDIT_HASH 32                            /* octets of a hash: SHA-256 */
#define VMIBUS_AUDIT_NAME 64                            /* octets of an endpoint's name, the last one NUL: what is longer is cut */

/* The rule of a record: a number that the writer gave it, or one of these. */
#define VMIBUS_AUDIT_RULE_UNTOLD UINT16_C(0)      /* no capability was asked for, or the writer does not tell */
#define VMIBUS_AUDIT_RULE_LAST UINT16_C(0xfffd)   /* numbers of rules go from 1 to this, and begin again */
#define VMIBUS_AUDIT_RULE_NONE UINT16_C(0xfffe)   /* no rule gives the capability: denied */
#define VMIBUS_AUDIT_RULE_OWNER UINT16_C(0xffff)  /* no rule is needed: there are none, or it is the writer itself */
#define VMIBUS_AUDIT_RULES 1024                   /* that an intents log keeps: the last ones that were numbered */

/* flags of a record */
#define VMIBUS_AUDIT_DIGESTED UINT16_C(0x0001)     /* digest_old and digest_new are there */
#define VMIBUS_AUDIT_NO_DIGEST UINT16_C(0x0002)    /* the write was longer than the bound on digests: none was taken */
#define VMIBUS_AUDIT_WAITED UINT16_C(0x0004)       /* the intent was on the disk before the command was executed */
#define VMIBUS_AUDIT_NOT_DURABLE UINT16_C(0x0008)  /* it should have been, and policy let the command go on without */
#define VMIBUS_AUDIT_BEGUN UINT16_C(0x2000)        /* in the ring only: it was passed on to be executed */
#define VMIBUS_AUDIT_COUNTED UINT16_C(0x4000)      /* in the ring only: the chain does not have it, only counts it as lost */
#define VMIBUS_AUDIT_CHAINED UINT16_C(0x8000)      /* the writer's own, in the ring only */

struct vmibus_audit_header {
    uint64_t magic;
    uint64_t capacity;       /**< records */
    uint64_t written;        /**< records ever begun; the newest has this sequence */
    uint32_t incarnation;    /**< of the writer */
    uint32_t pid;            /**< of the writer */
    int64_t realtime_offset; /**< CLOCK_REALTIME minus CLOCK_MONOTONIC at opening, nanoseconds */
    uint64_t lost;           /**< records that were overwritten before they were in the chain, of which it does not say so yet */
    uint64_t rules;          /**< places for rules behind the records: VMIBUS_AUDIT_RULES; 0: there are none */
    uint64_t numbered;       /**< rules ever numbered */
    uint64_t idle;           /**< of lost: those that changed nothing, beyond what is recorded of one user */
    uint8_t reserved[184];
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
    uint16_t reason;        /**< enum vmibus_reason: with error, which check refused */
    uint8_t detail;         /**< lease class, power or vm operation */
    uint8_t operation;      /**< lease operation */
    uint32_t len;           /**< octets or events */
    uint64_t token;
    uint64_t epoch;
    uint64_t cr3;
    uint64_t address;       /**< gva of a write */
    uint64_t count;         /**< how much was done */
    uint64_t correlation;
    uint64_t session;       /**< the same for all commands of one connection; it does not tell the session's id */
    uint32_t incarnation;   /**< of the writer: sequences are unique within one */
    uint16_t flags;         /**< VMIBUS_AUDIT_ flags */
    uint16_t rule;          /**< that gave the capability when the grant was looked up: see VMIBUS_AUDIT_RULE_LAST */
    uint64_t value;         /**< of the ACK: what the check objected to */
    char name[VMIBUS_AUDIT_NAME]; /**< of the endpoint */
    uint8_t digest_old[VMIBUS_AUDIT_HASH]; /**< of the octets that were overwritten, all extents in their order */
    uint8_t digest_new[VMIBUS_AUDIT_HASH]; /**< of the octets that were written */
};

/** A rule of the policy, by which records name it. */
struct vmibus_audit_rule {
    uint16_t number;        /**< 1 to VMIBUS_AUDIT_RULE_LAST */
    uint16_t reserved;
    uint32_t line;          /**< of its first key */
    char name[64];          /**< NUL-terminated; its beginning, if it is longer */
    char source[120];       /**< the file that it stands in, NUL-terminated; its end, if it is longer */
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

/**
 * Copies a rule of a mapped log.
 * @param header of the log; capacity and rules must have been checked against the file's size
 * @return 1 copied; 0 the log does not have it (any more)
 */
static inline int vmibus_audit_read_rule(const struct vmibus_audit_header *header, uint16_t number,
                                         struct vmibus_audit_rule *rule) {
    const struct vmibus_audit_record *records = (const struct vmibus_audit_record *)(const void *)(header + 1);
    const struct vmibus_audit_rule *rules = (const struct vmibus_audit_rule *)(const void *)(records + header->capacity);
    const struct vmibus_audit_rule *place;

    if (number == 0 || number > VMIBUS_AUDIT_RULE_LAST || header->rules != VMIBUS_AUDIT_RULES)
        return 0;
    place = &rules[(number - 1u) % VMIBUS_AUDIT_RULES];
    if (__atomic_load_n(&place->number, __ATOMIC_ACQUIRE) != number)
        return 0;
    memcpy(rule, place, sizeof(*rule));
    rule->name[sizeof(rule->name) - 1] = rule->source[sizeof(rule->source) - 1] = '\0';
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&place->number, __ATOMIC_RELAXED) == number;
}

/* --- the chain --------------------------------------------------------------------------------- */

#define VMIBUS_CHAIN_MAGIC UINT64_C(0x00314e4843494d56)  /* "VMICHN1" */
#define VMIBUS_CHAIN_VERSION 2
#define VMIBUS_CHAIN_RECORD_MAGIC UINT32_C(0x52494d56)   /* "VMIR" */

enum vmibus_chain_kind {
    VMIBUS_CHAIN_START = 1,     /**< a writer began: struct vmibus_chain_start */
    VMIBUS_CHAIN_INTENT = 2,    /**< a command is about to be executed (audit = strict): struct vmibus_audit_record */
    VMIBUS_CHAIN_COMMAND = 3,   /**< a command has ended: struct vmibus_audit_record */
    VMIBUS_CHAIN_RECOVERED = 4, /**< the same, taken from the intents log after the writer died; it may be pending */
    VMIBUS_CHAIN_LOST = 5,      /**< commands that are not recorded: struct vmibus_chain_lost */
    VMIBUS_CHAIN_END = 6,       /**< the last record of a file that another one follows; no payload */
    VMIBUS_CHAIN_STOP = 7,      /**< the writer ended as it should; no payload */
    VMIBUS_CHAIN_RULE = 8,      /**< what a number means in the commands after it in this file: struct vmibus_audit_rule */
};

/** At the beginning of each file. */
struct vmibus_chain_header {
    uint64_t magic;
    uint32_t version;        /**< VMIBUS_CHAIN_VERSION; in files of version 1 no command tells its rule */
    uint32_t incarnation;    /**< of the writer that made the file */
    uint64_t segment;        /**< number of the file, from 1 */
    uint64_t first;          /**< sequence of its first record */
    int64_t realtime;        /**< CLOCK_REALTIME nanoseconds when it was made */
    uint32_t pid;
    uint32_t reserved;
    uint8_t boot_id[16];     /**< /proc/sys/kernel/random/boot_id */
    char writer[16];         /**< "bus"; NUL-padded */
    uint8_t unused[48];
    uint8_t previous[VMIBUS_AUDIT_HASH]; /**< of the last record of the file before; zeros: there is none */
    uint8_t hash[VMIBUS_AUDIT_HASH];     /**< of the octets before */
};

/** Before the payload of each record; the hash of both follows it. */
struct vmibus_chain_record {
    uint32_t magic;
    uint16_t kind;           /**< enum vmibus_chain_kind */
    uint16_t reserved;
    uint32_t length;         /**< of the whole record, header and hash included; a multiple of 8 */
    uint32_t batch;          /**< records of one write have the same; a crash can hurt the last batch only */
    uint64_t sequence;       /**< from 1, without gaps, across files */
    int64_t realtime;        /**< CLOCK_REALTIME nanoseconds when it was made */
    uint8_t previous[VMIBUS_AUDIT_HASH]; /**< hash of the record before, or of the file's header */
};

struct vmibus_chain_start {
    uint32_t incarnation;
    uint32_t pid;
    uint8_t boot_id[16];
    int64_t realtime_offset; /**< CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds */
    uint64_t written;        /**< records of the intents log before it */
    uint64_t cut;            /**< octets of an unfinished write that were cut off before it */
    uint32_t damaged;        /**< 1: the file before does not verify, and was left as it is */
    uint32_t digest_bound;   /**< octets: longer writes have no digest */
};

struct vmibus_chain_lost {
    uint64_t count;
    uint32_t error;          /**< errno why; 0: the disk was slower than the commands, or all were idle */
    uint32_t idle;           /**< of count: commands that changed nothing, beyond what is recorded of one user */
};

#define VMIBUS_CHAIN_PAYLOAD_BOUND sizeof(struct vmibus_audit_record)
#define VMIBUS_CHAIN_RECORD_BOUND (sizeof(struct vmibus_chain_record) + VMIBUS_CHAIN_PAYLOAD_BOUND + VMIBUS_AUDIT_HASH)

#ifdef __cplusplus
}
#endif

#endif
