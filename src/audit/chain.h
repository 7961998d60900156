/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing a chain: a series of files in one directory, each record holding the hash of the one before.  One process writes one
 * chain; <vmibus/audit.h> has the layout.
 *
 * Records are appended to memory and written in batches, one at a time (disk.h): what comes while one batch is on its way to the
 * disk makes the next one.  A batch begins at the end of the loop's iteration if somebody waits for it, else a little later.
 * A batch that cannot be written is kept and tried again, at the same place with the same octets; what finds no room
 * meanwhile is counted, and the next record that finds some says how many there were.
 *
 * A user's records may take as much of a batch as they leave of it, and some of it is kept for intents, for which commands wait:
 * who floods finds no room for records of its own, and takes none from others.
 *
 * A file is ended when it has grown to its bound: END is its last record, its hash stands in the next file's header.
 * Each file tells of the rules that its commands name, so it can be read without those before it.
 * A file is cut only at the start, where a crash left an unfinished write; one that does not verify is left alone, and a new
 * one begun.
 */
#ifndef AUDIT_CHAIN_H
#define AUDIT_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/audit.h>

#include "audit/chain_reader.h"
#include "audit/disk.h"
#include "util/audit.h"
#include "util/list.h"
#include "util/loop.h"

/** Octets of a file's name, NUL included. */
#define CHAIN_NAME 48

/** Octets that wait for the disk at most, and as many that are on their way. */
#define CHAIN_BUFFER (1u << 20)

/** Users are told apart by the rest of their number by this. */
#define CHAIN_USERS 256

/** What is done when records cannot be written. */
enum chain_full {
    CHAIN_REFUSE,       /**< whoever must wait is refused */
    CHAIN_DROP_OLDEST,  /**< the oldest file is removed if the disk is full; else as CHAIN_REFUSE */
    CHAIN_CONTINUE,     /**< nobody is refused */
};

/** What its owner is told. */
enum chain_event {
    CHAIN_BEGUN,        /**< a file: number, hash of its header */
    CHAIN_ENDED,        /**< a file: number, hash of its last record */
    CHAIN_FAILING,      /**< records cannot be written: number is the errno (ETIMEDOUT: the disk does not answer) */
    CHAIN_WORKS,        /**< they can again: number of commands that were not recorded meanwhile */
    CHAIN_REMOVED,      /**< a file: number */
};

struct chain_options {
    struct loop *loop;
    int directory;              /**< duplicated */
    const char *writer;         /**< begins the files' names; up to 15 letters */
    uint64_t segment_bytes;     /**< a file is ended when it has so many octets */
    uint32_t keep;              /**< files at most: older ones are removed; 0: all are kept */
    uint32_t commit_ms;         /**< how long records wait for others where nobody waits for them */
    uint32_t patience_ms;       /**< how long somebody waits for the disk */
    enum chain_full full;
    enum disk_way way;
    struct vmibus_chain_start start; /**< of the writer; cut and damaged are found out */
    /** A record that was there before, of the newest files: at least as many commands as @a scan, if there are. */
    void (*seen)(void *context, const struct chain_item *item);
    uint64_t scan;
    /** hash: see enum chain_event; may be NULL. */
    void (*tell)(void *context, enum chain_event event, uint64_t number, const uint8_t *hash);
    /** A waiter of this sequence goes on although its record is not on the disk. */
    void (*undurable)(void *context, uint64_t sequence);
    /** There is room again for records that found none. */
    void (*room)(void *context);
    void *context;              /**< of these */
};

/** A batch. */
struct chain_buffer {
    uint8_t *octets;
    size_t len;
    uint64_t last;              /**< sequence of its last record */
    uint64_t n_records;
    uint64_t lost_told;         /**< commands without a record, as records up to this batch say */
    uint64_t idle_told;         /**< ... of these, that changed nothing */
    uint64_t begins;            /**< number of the file that it begins; 0: it goes on with the one before */
    uint32_t taken[CHAIN_USERS]; /**< octets of each user's commands */
};

struct chain {
    struct chain_options options;
    struct disk *disk;
    int directory, fd;
    uint64_t oldest, open, segment; /**< files: the oldest there is, the one of fd, the one that the last record is for */
    uint64_t offset;            /**< octets of the file that are on the disk */
    uint64_t sequence;          /**< of the next record */
    uint32_t batch;
    uint8_t hash[VMIBUS_AUDIT_HASH];
    bool outdated;              /**< the file that it goes on with is of an older version: END is the next batch's last record */
    struct {
        uint64_t segment;
        uint16_t number;
    } told[VMIBUS_AUDIT_RULES]; /**< rules, by number, and in which file they were told last */
    struct chain_buffer buffers[2], *filling, *flight; /**< flight NULL: nothing is on its way */
    uint64_t flight_since;
    int failing;                /**< errno; 0: it works */
    bool failing_told, stalled_told;
    uint32_t retry_ms;
    uint64_t idle, idle_told, idle_durable; /**< of lost: commands that changed nothing and are not recorded on purpose */
    uint64_t lost, lost_told, lost_durable; /**< commands without a record; those of which records say so; ... on the disk */
    uint64_t durable;           /**< sequence of the last record on the disk */
    uint64_t written;           /**< records on the disk, by this process */
    struct list waiters;        /**< in the order of their positions */
    struct loop_timer commit_timer, retry_timer, patience_timer;
    struct loop_deferred soon;
    char name[CHAIN_NAME];      /**< of the file that a job is about */
};

/**
 * Goes on with the chain in a directory, or begins one, with a START record.
 * @return 0 or a negative errno; what is wrong with the files there is no reason not to begin
 */
int chain_init(struct chain *chain, const struct chain_options *options);

/** Ends it with STOP, after waiting a bounded time for the disk. Whoever waits is told ECANCELED. Harmless if zeroed. */
void chain_deinit(struct chain *chain);

/**
 * Appends a command, and before it, if the file does not have that yet, what the number of its rule means.
 * @param rule borrowed; NULL: the record names none, or nobody knows it
 * @return its sequence; 0: there is no room, or none left for whose command it is
 */
uint64_t chain_append(struct chain *chain, enum vmibus_chain_kind kind, const struct vmibus_audit_record *record,
                      const struct vmibus_audit_rule *rule);

/** There is room for nobody's command. */
bool chain_is_full(const struct chain *chain);

/** A command has no record: the next record that there is room for says so. @param idle on purpose, as it changed nothing */
void chain_lose(struct chain *chain, bool idle);

/**
 * Waits until what was appended so far is on the disk; for who does not serve anybody yet.
 * @return false: the disk fails, or has not answered in time
 */
bool chain_flush(struct chain *chain);

/** Why whoever must wait would wait in vain: an errno. 0: there is no reason. */
int chain_trouble(const struct chain *chain);

/** Parks a waiter until the record of its position is on the disk. */
void chain_wait(struct chain *chain, struct audit_waiter *waiter);

/** The name of a file. In chain_files.c. @param name CHAIN_NAME octets */
void chain_file_name(char *name, const char *writer, uint64_t segment);

/** The number of a file of a writer, by its name; 0: it is none. In chain_files.c. */
uint64_t chain_file_number(const char *name, const char *writer);

#endif
