/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One control among several, over a socket: it counts what it is delivered, keeps what it was told of
 * leases, and remembers answers until somebody asks for them.  Nothing of the code under test is used.
 *
 * An actor may be lost: its connection has ended.  Whether that is a fault is the test's to say.
 */
#ifndef TESTS_DIFFERENTIAL_ACTOR_H
#define TESTS_DIFFERENTIAL_ACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#define ACTOR_ANSWERS 32
#define ACTOR_SLOTS 16
#define ACTOR_CLASSES 4

/** What an actor was told last of a lease. */
struct actor_lease {
    uint64_t generation;
    struct vmibus_lease lease;
};

struct actor {
    int fd;                     /**< -1: lost */
    uid_t uid;
    uint64_t delivery;          /**< number of the last frame */
    uint64_t memory_delivery;   /**< likewise on the memory channel, where it is one of its own */
    struct vmibus_frame answers[ACTOR_ANSWERS];
    size_t n_answers;           /**< that nobody has asked for yet */
    size_t n_fds;               /**< descriptors that came, all in all */
    struct actor_lease leases[ACTOR_SLOTS][ACTOR_CLASSES];
};

/** Connects as a user (if the test may) and says HELLO. False: it was not let in, and is lost. */
bool actor_connect(struct actor *actor, const char *path, uid_t uid);

/** Ends the connection. Harmless on one that is lost. */
void actor_close(struct actor *actor);

static inline bool actor_is_lost(const struct actor *actor) {
    return actor->fd < 0;
}

/** A command with a correlation that no other has. */
struct vmibus_frame actor_frame(enum vmibus_kind kind, uint32_t slot, uint64_t generation);

/** Sends a command. False: it is lost. */
bool actor_send(struct actor *actor, struct vmibus_frame *frame, const void *tail, size_t length);

/** Reads until the answer of a correlation. False: the actor is lost, and there is none. */
bool actor_answer(struct actor *actor, uint64_t correlation, struct vmibus_frame *answer);

/** Sends a command and reads its answer. */
bool actor_ask(struct actor *actor, struct vmibus_frame *frame, const void *tail, size_t length, struct vmibus_frame *answer);

/**
 * Takes an answer if it has come: what was answered before this call is there after it, because answers share one order.
 * @return 1, 0 (not yet), or -1: the actor is lost
 */
int actor_poll_answer(struct actor *actor, uint64_t correlation, struct vmibus_frame *answer);

/** Subscribes to kinds of all endpoints, none of them with 0. The answer comes after what is told so far. */
bool actor_subscribe(struct actor *actor, uint64_t kinds, struct vmibus_frame *answer);

/** Reads until it was told that a token is not held any more. */
bool actor_await_loss(struct actor *actor, uint64_t token);

#endif
