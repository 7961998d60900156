/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Turns: who is served when there is more to do than at once.
 *
 * The loop's time is shared by users (uids), not by connections.  A user whose turns have been short of late, less
 * than TURN_NS, is served as its peers become ready, for about TURN_NS in one iteration of the loop.  Anybody else,
 * and what is more than that, waits in the user's line.  Of the users with a line one has a turn at the end of each
 * iteration, in rotation.  So somebody who asks for little waits for about one turn of those who flood, however
 * many they are and however many connections they have; and a flood goes on at what speed is left.  Where nobody
 * else asks, to be in line costs nothing: the next iteration begins at once.  A turn that took longer than TURN_NS
 * is made up for: those who ask for little go first so many times more.
 *
 * As long as all peers are of one user nobody has to be fair to anybody, and nothing is measured.
 *
 * What is asked for in one piece, a command above all, is not interrupted: it has to be short by itself.
 */
#ifndef TRANSPORT_TURNS_H
#define TRANSPORT_TURNS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/list.h"
#include "util/loop.h"

#define TURN_NS UINT64_C(10000)

/** The uid of what is done for nobody in particular; it has its place among the users, but is none. */
#define TURN_NOBODY ((uid_t)-1)

struct turn;
struct turn_user;

/** Serves a peer: does a part of what it wants. May end the peer. */
typedef void (*turn_fn)(struct turn *turn);

/** All users of one loop's peers. */
struct turns {
    struct loop *loop;
    uint64_t (*clock)(void);    /**< nanoseconds of CPU time that the thread has used; a test has one of its own */
    struct list users;
    struct list lines;          /**< users with somebody in line, the next one first */
    uint32_t n_users;           /**< TURN_NOBODY not counted */
    uint64_t started;           /**< when the work under way was begun, nanoseconds of the thread's CPU time */
    uint64_t owed;              /**< nanoseconds by which the last turns of those in line were too long */
    uint64_t first_round;       /**< last iteration in which somebody was served at once */
    struct loop_deferred serve;
};

/** A peer's place among them, embedded in it. */
struct turn {
    struct turn_user *user;
    struct list link;           /**< user->line, while it waits */
    turn_fn work;
};

/** Prepares turns on a loop, borrowed. */
void turns_init(struct turns *turns, struct loop *loop);

/** Every turn must be gone. */
void turns_deinit(struct turns *turns);

/** Takes a peer in. 0 or -ENOMEM. */
int turn_init(struct turn *turn, struct turns *turns, uid_t uid, turn_fn work);

/** Takes it out, also out of a line. Harmless on zeros. */
void turn_deinit(struct turn *turn);

/** The peer is to be served: at once, and may be gone when this returns; or (true) it waits in line until it is its turn. */
bool turn_want(struct turn *turn);

/** From within work(): for how long it has been running, nanoseconds of CPU time; 0 while there is no other user. */
uint64_t turn_elapsed(const struct turn *turn);

/** From within work(): there is more to do than this turn is for, so it is used up. */
void turn_exhaust(struct turn *turn);

/** From within work(): whether what is left to do had better wait for the next turn. */
bool turn_is_over(const struct turn *turn);

/** Whether there is no other user: no need to be short. */
bool turn_is_alone(const struct turn *turn);

#endif
