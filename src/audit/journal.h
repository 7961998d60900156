/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages to the journal, with fields, by its native protocol over a socket of our own that never waits: sd_journal_send(3)
 * does when the journal is behind.  What the journal does not take, or what would be more than a bounded rate, is counted
 * and not sent: the journal is the convenient copy, the chain the record.  One user's commands get half of that rate at most, and
 * what the writer says of itself has a rate of its own, so that nobody keeps the chain's hashes out of the journal.
 */
#ifndef AUDIT_JOURNAL_H
#define AUDIT_JOURNAL_H

#include <stddef.h>
#include <stdint.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

/** Users are told apart by the rest of their number by this. */
#define JOURNAL_USERS 256

/** A bucket of messages: CLOCK_MONOTONIC nanoseconds at which it would be full. */
struct journal_bucket {
    uint64_t filled;
};

/** Zeroed but for fd -1: nothing is sent. */
struct journal {
    int fd;
    const char *path;       /**< borrowed */
    uint32_t rate, burst;   /**< messages a second, and at once */
    struct journal_bucket own, commands, users[JOURNAL_USERS];
    uint64_t untold;
};

/** A message being put together. What finds no room in it is left out. */
struct journal_message {
    size_t len;
    char text[2048];
};

/**
 * Opens the socket; that nobody listens there is no failure, and may change.
 * @param path borrowed; NULL: nothing is sent
 */
void journal_init(struct journal *journal, const char *path, uint32_t rate, uint32_t burst);

/** Closes it. */
void journal_deinit(struct journal *journal);

/** Begins a message: its MESSAGE_ID (32 hex digits) and PRIORITY (as syslog(3)). */
void journal_begin(struct journal_message *message, const char *id, int priority);

/** Adds a field; control characters of the value become blanks. */
__attribute__((format(printf, 3, 4)))
void journal_add(struct journal_message *message, const char *name, const char *format, ...);

/** Sends what the writer says of itself, if that can be without waiting. */
void journal_send(struct journal *journal, const struct journal_message *message);

/** Sends what is told of a user's command, if that can be without waiting. */
void journal_send_for(struct journal *journal, const struct journal_message *message, uint32_t uid);

#endif
