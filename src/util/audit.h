/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The intents log: who commanded what, and how it ended; and the seam to whoever keeps that for good.
 *
 * A record is written before the command is executed and finished afterwards, by plain stores into a
 * shared file mapping: no system call, and what was stored outlives the process.  Records form a ring;
 * the sequence number of a record tells its place and never repeats, so a reader sees what was
 * overwritten.  One process writes one log; readers map it read-only and check a record's sequence
 * before and after copying it.
 * <vmibus/audit.h> has the file's layout, and how to read it.
 *
 * Bus and memory authority know no more than this.  What makes the records last (src/audit) is behind struct audit_ops; without
 * it, in an embedded bus, nothing is digested and nobody waits.
 */
#ifndef UTIL_AUDIT_H
#define UTIL_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/audit.h>
#include <vmibus/protocol.h>

#include "util/list.h"

_Static_assert(sizeof(struct vmibus_audit_header) == 256, "audit header is 256 octets");
_Static_assert(sizeof(struct vmibus_audit_record) == 256, "audit record is 256 octets");
_Static_assert(sizeof(struct vmibus_audit_rule) == 192, "audit rule is 192 octets");

struct audit_waiter;

/**
 * A command's intent has reached the disk, or will not.
 * @param error 0: the command goes on; an errno: it must not be executed. ETIME: its own deadline passed.
 */
typedef void (*audit_waiter_fn)(struct audit_waiter *waiter, int error);

/** A command that is parked until its intent is durable; embedded in it. Zeroed: it does not wait. */
struct audit_waiter {
    struct list link;
    audit_waiter_fn recorded;       /**< on the loop's thread; the waiter is not waiting any more */
    uint64_t sequence;              /**< of the command's record */
    uint64_t deadline;              /**< CLOCK_MONOTONIC nanoseconds; UINT64_MAX: none */
    uint64_t position, limit;       /**< the keeper's */
};

/** Whether a command may be executed. */
enum audit_answer {
    AUDIT_GO_ON,        /**< now */
    AUDIT_WAIT,         /**< later: recorded() is called, after this returns */
    AUDIT_REFUSED,      /**< no: it cannot be recorded, and policy wants that */
};

/** What the keeper has to say of the records. */
struct audit_counters {
    uint64_t chained;       /**< records on the disk */
    uint64_t unrecorded;    /**< commands of which there is no record, or whose intent was not durable in time */
    uint64_t untold;        /**< messages that the journal did not take */
};

/** Who keeps records for good. All on the loop's thread but digest(). */
struct audit_ops {
    /** A record that has ended, or (pending still) is about to be overwritten. Cheap. */
    void (*keep)(void *context, struct vmibus_audit_record *record);
    /** See audit_require(). */
    enum audit_answer (*require)(void *context, const struct vmibus_audit_record *record, struct audit_waiter *waiter, int *error);
    /** Of octets that nobody else can change. Any thread. */
    void (*digest)(const void *octets, size_t len, uint8_t *digest);
    void (*count)(void *context, struct audit_counters *counters);
};

/** A log open for writing. Zeroed: records go nowhere. */
struct audit {
    struct vmibus_audit_header *header;
    struct vmibus_audit_record *records;
    struct vmibus_audit_rule *rules; /**< VMIBUS_AUDIT_RULES, by number */
    size_t size;
    const struct audit_ops *ops;    /**< NULL: nobody keeps records for good */
    void *context;                  /**< of ops */
    uint32_t digest_bound;          /**< octets: longer writes are not digested; 0: none is */
    bool strict;                    /**< audit_require() may say AUDIT_WAIT */
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
 * The number by which records name a rule: for when a policy is read.  The same rule has the same number each time, and a number
 * means another rule only after VMIBUS_AUDIT_RULES others.
 * @return VMIBUS_AUDIT_RULE_UNTOLD if there is no log
 */
uint16_t audit_number_rule(struct audit *audit, const char *name, const char *source, uint32_t line);

/** A command is passed on to be executed: whatever its outcome will be, it may have changed something. */
void audit_note_begun(struct audit *audit, uint64_t sequence);

/** The rule of a number; NULL: it is the number of none, or of one that is not kept any more. */
const struct vmibus_audit_rule *audit_find_rule(const struct audit *audit, uint16_t number);

/**
 * Writes an intent; @a record's sequence and state are set here.
 * @return its sequence, to finish it by; 0 if there is no log
 */
uint64_t audit_begin(struct audit *audit, const struct vmibus_audit_record *record);

/** Names the endpoint of a record that is to be begun. */
void audit_set_name(struct vmibus_audit_record *record, const char *name);

/** Notes how it ended. Harmless if the record was overwritten meanwhile, or if sequence is 0. */
void audit_finish(struct audit *audit, uint64_t sequence, const struct vmibus_ack *ack);

/**
 * A destructive command is about to be executed, and nothing of it has been yet.
 * @param sequence as audit_begin() told
 * @param waiter   parked if AUDIT_WAIT; recorded and deadline are set
 * @param ack      on AUDIT_REFUSED receives error, reason and value
 */
enum audit_answer audit_require(struct audit *audit, uint64_t sequence, struct audit_waiter *waiter, struct vmibus_ack *ack);

/** What an ACK says where a waiter was told an error. */
void audit_refuse(struct vmibus_ack *ack, int error);

/** Whether it waits. */
static inline bool audit_waiter_waits(const struct audit_waiter *waiter) {
    return waiter->link.next && list_is_linked(&waiter->link);
}

/** Takes a waiter away. Harmless if it does not wait. */
void audit_waiter_cancel(struct audit_waiter *waiter);

/** Whether a write of so many octets is to be digested. */
static inline bool audit_wants_digest(const struct audit *audit, uint64_t len) {
    return audit->header && audit->ops && len <= audit->digest_bound;
}

/**
 * Notes digests, before audit_finish(). Harmless as that is.
 * @param digests those of the old and of the new octets, one after the other; NULL: the write was too long for any
 */
void audit_note_digests(struct audit *audit, uint64_t sequence, const uint8_t *digests);

/** A number for a session that does not tell its id (16 octets); 0: nobody keeps records. */
uint64_t audit_session_number(const struct audit *audit, const uint8_t *session);

/** What the keeper counts; zeros if there is none. */
void audit_get_counters(const struct audit *audit, struct audit_counters *counters);

#endif
