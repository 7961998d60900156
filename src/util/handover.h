/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handover: what a process leaves to the one that takes its place, written into one memory file.
 *
 *      file    header, then records; sealed, so that nobody changes it between the check and the use
 *      record  tag, reserved, length, then so many octets: a value, or records again
 *
 * Both the version before and the version after must be able to read it, so a record's meaning never changes, its tag
 * is never used for something else, and a reader skips the tags that it does not know and keeps a default for
 * those that are not there.  A number may be shorter than its reader's (the rest is zeros), or longer as long as it fits.
 * Tags are of the record that they are in; each layer lists its own in its handover.c.
 *
 * Descriptors travel beside the file, in a table: a record names one by its place there.  Each is named once.
 *
 * What is read is not trusted: only a file of this uid's, sealed and without a name, is looked at, its lengths and sum are checked,
 * and whoever reads values checks these in turn.  The first thing that is wrong makes everything wrong: reader and
 * writer remember it, so that it need be asked for once, at the end.
 *
 * One thread owns a writer, a reader.
 */
#ifndef UTIL_HANDOVER_H
#define UTIL_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What is never changed compatibly: raised when a reader of another number could not make sense of the file. */
#define HANDOVER_FORMAT 1

#define HANDOVER_MAGIC UINT64_C(0x6f64616e48737562) /* "busHando" */
#define HANDOVER_FDS_MAX 65536u
#define HANDOVER_OCTETS_MAX (UINT64_C(1) << 31)
#define HANDOVER_DEPTH 16
#define HANDOVER_TOKEN 16

/** How a file begins. */
struct handover_header {
    uint64_t magic;
    uint32_t format;
    uint32_t n_fds;                 /**< that the records name */
    uint64_t length;                /**< octets of records */
    uint64_t sum;                   /**< FNV-1a, 64 bits, of the records */
    uint8_t token[HANDOVER_TOKEN];  /**< of this handover and no other */
    char product[32];               /**< who wrote it, for messages; terminated */
};

_Static_assert(sizeof(struct handover_header) == 80, "handover header is 80 octets");

/* --- writing ----------------------------------------------------------------------------------- */

/** All zeros: nothing is written yet. */
struct handover_writer {
    uint8_t *octets;
    size_t length, capacity;
    int *fds;                       /**< borrowed descriptors */
    size_t n_fds, fds_capacity;
    size_t begun[HANDOVER_DEPTH];   /**< where the records begin that are not ended */
    unsigned depth;
    int error;                      /**< the first negative errno; nothing is written after it */
};

/** A record that further ones are written into, until handover_end(). */
void handover_begin(struct handover_writer *writer, uint16_t tag);

/** Ends the record begun last. */
void handover_end(struct handover_writer *writer);

/** A record of octets. */
void handover_put(struct handover_writer *writer, uint16_t tag, const void *octets, size_t length);

/** A record of a number; 0 is the default everywhere, and left out. */
void handover_put_number(struct handover_writer *writer, uint16_t tag, uint64_t number);

/** A record that names a descriptor, borrowed until the writer ends; -1 is left out. */
void handover_put_fd(struct handover_writer *writer, uint16_t tag, int fd);

/**
 * Makes the file.
 * @param token   HANDOVER_TOKEN octets
 * @param product at most 31 characters
 * @return a descriptor, or the first negative errno of everything
 */
int handover_seal(struct handover_writer *writer, const uint8_t *token, const char *product);

/** Frees what it has; closes nothing. Harmless on zeros. */
void handover_writer_deinit(struct handover_writer *writer);

/* --- reading ----------------------------------------------------------------------------------- */

/** A file, and the descriptors beside it. */
struct handover {
    void *mapped;                   /**< the file, or NULL */
    size_t size;
    const struct handover_header *header;
    int *fds;                       /**< owned, as long as they are not taken (-1) */
    size_t n_fds;
    int error;                      /**< the first thing that was wrong */
};

/** Records one after the other; of one record, or of a whole file. */
struct handover_records {
    struct handover *handover;
    const uint8_t *next, *end;
};

/** One record. */
struct handover_record {
    struct handover *handover;
    uint16_t tag;
    const uint8_t *octets;
    size_t length;
};

/**
 * Opens a file.
 * @param fd   borrowed
 * @param fds  the descriptors beside it, taken whatever the outcome; the array is the handover's from then on (malloc'ed)
 * @return 0; -EPERM: not this uid's, not sealed, or has a name; -EBADMSG: damaged; -EPROTONOSUPPORT: of another format; or
 *         another negative errno.  handover_close() in any case.
 */
int handover_open(struct handover *handover, int fd, int *fds, size_t n_fds);

/** The same for octets in memory, which must stay there: what a file consists of. For fuzzers, and files from a disk. */
int handover_open_octets(struct handover *handover, const void *octets, size_t length, int *fds, size_t n_fds);

/** Closes it, and the descriptors that nobody took. Harmless on zeros. */
void handover_close(struct handover *handover);

/** The records of the file. */
struct handover_records handover_all(struct handover *handover);

/** The records of a record. */
struct handover_records handover_in(const struct handover_record *record);

/** The next record. False: there is none, or something was wrong. */
bool handover_next(struct handover_records *records, struct handover_record *record);

/** The record with a tag; with several, the first. False: there is none. */
bool handover_find(struct handover_records records, uint16_t tag, struct handover_record *record);

/** Its number; one that does not fit into 64 bits is wrong. */
uint64_t handover_number(const struct handover_record *record);

/** Its number, which is wrong above a bound. */
uint64_t handover_number_below(const struct handover_record *record, uint64_t bound);

/** Copies octets: shorter ones leave zeros behind them, longer ones are wrong unless the rest is zeros. */
void handover_copy(const struct handover_record *record, void *to, size_t size);

/** Its descriptor, which is the caller's from now on; -1: something was wrong. */
int handover_take_fd(const struct handover_record *record);

/** Notes that something is wrong. Returns false. */
bool handover_wrong(struct handover *handover, int error);

/* --- structures -------------------------------------------------------------------------------- */

/** A member without pointers that is a record of its own. */
struct handover_member {
    uint16_t tag;
    uint16_t size;
    uint32_t offset;
    bool is_bool; /* which has two values, whatever a file says */
};

#define HANDOVER_MEMBER(tag, type, member)                                                                                        \
    {(tag), sizeof(((type *)NULL)->member), (uint32_t)offsetof(type, member), _Generic(((type *)NULL)->member, bool: true, default: false)}

/** Writes members; what is all zeros is left out. */
void handover_put_members(struct handover_writer *writer, const struct handover_member *members, size_t n, const void *object);

/** Reads a record into the member that it belongs to. False: it belongs to none. */
bool handover_take_member(const struct handover_record *record, const struct handover_member *members, size_t n, void *object);

#define HANDOVER_N(members) (sizeof(members) / sizeof((members)[0]))

#endif
