/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A control among several that play on one bus.  Whatever it does, it demands of what it is told:
 *
 *   - delivery numbers rise by one;
 *   - a command is answered once at most, and only on the connection that it was given on;
 *   - a token is given once only.
 *
 * What it learns of leases that have ended goes into the book, which all share: nothing may be executed under one of these.
 */
#ifndef TESTS_FUZZ_PLAYER_H
#define TESTS_FUZZ_PLAYER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#include "fuzz/stream.h"

#define PLAYER_COMMANDS 2048
#define BOOK_TOKENS 1024
#define CLASSES 4

/** A token that somebody was given. */
struct book_entry {
    uint32_t slot;
    uint8_t lease_class;
    bool ended;
    uint64_t generation, token;
};

struct book {
    struct book_entry entries[BOOK_TOKENS];
    unsigned n;
};

struct player {
    struct stream stream;
    struct book *book;
    uid_t uid;
    bool deaf;                          /**< it reads nothing */
    uint64_t delivery, correlation;
    uint64_t first;                     /**< correlation of the first command of this connection */
    uint8_t answered[PLAYER_COMMANDS];  /**< by correlation */
    uint64_t tokens[CLASSES][2];        /**< the last ones of each class, of whichever VM */
    uint64_t epoch;                     /**< of the memory context that it was told of last */
    uint8_t half[256];                  /**< the rest of a frame that it has begun */
    size_t n_half;
};

/** Connects, and says HELLO. @a fd is taken. */
void player_connect_consume_fd(struct player *player, int fd);

/** Ends its connection. Harmless without one. */
void player_disconnect(struct player *player);

static inline bool player_is_connected(const struct player *player) {
    return player->stream.fd >= 0;
}

/** Gives a command; what it has begun before is finished first. */
void player_give(struct player *player, struct vmibus_frame *frame, const void *tail, size_t tail_length);

/** Gives the beginning of a command, @a n octets. */
void player_begin(struct player *player, struct vmibus_frame *frame, size_t n);

/** Hears what it is told, unless it is deaf. */
void player_hear(struct player *player);

/** Whether a token of a lease is known to have ended. */
bool book_has_ended(const struct book *book, const struct vmibus_header *vm, enum vmibus_lease_class lease_class, uint64_t token);

#endif
