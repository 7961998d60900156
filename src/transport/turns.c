/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/turns.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "util/clock.h"

/* One uid with peers. */
struct turn_user {
    struct turns *turns;
    struct list link;
    struct list line_link;  /* turns->lines, while somebody is in line */
    struct list line;
    uint32_t refs;
    uid_t uid;
    uint64_t round;         /* iteration of the loop in which it was served last, */
    uint64_t spent;         /* for how long, nanoseconds, */
    uint64_t usual;         /* and for how long on the average of late */
};

static struct turn_user *user_ref(struct turns *turns, uid_t uid) {
    struct turn_user *user;

    list_for_each(user, &turns->users, link)
        if (user->uid == uid) {
            user->refs++;
            return user;
        }
    user = calloc(1, sizeof(*user));
    if (!user)
        return NULL;
    user->turns = turns;
    user->refs = 1;
    user->uid = uid;
    user->usual = TURN_NS; /* or a user that comes and goes would always be served first */
    list_init(&user->line);
    list_init(&user->line_link);
    list_append(&turns->users, &user->link);
    turns->n_users += uid != TURN_NOBODY;
    return user;
}

static void user_unref(struct turn_user *user) {
    if (--user->refs > 0)
        return;
    list_unlink(&user->line_link);
    list_unlink(&user->link);
    user->turns->n_users -= user->uid != TURN_NOBODY;
    free(user);
}

/* Not the time of day: whoever is answered may be given the CPU before the answer has left. */
static uint64_t cpu_time(void) {
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* The peer may be gone after its work, and the user with it but for the reference. */
static void run(struct turn *turn) {
    struct turn_user *user = turn->user;
    struct turns *turns = user->turns;

    if (turn_is_alone(turn)) {
        turn->work(turn);
        return;
    }
    user->refs++;
    turns->started = turns->clock();
    turn->work(turn);
    user->spent += turns->clock() - turns->started;
    user_unref(user);
}

/* An iteration in which it is served begins for the user, unless it has begun. */
static void begin_round(struct turn_user *user) {
    uint64_t round = loop_round(user->turns->loop);

    if (round == user->round)
        return;
    if (user->spent > 0)
        user->usual = (3 * user->usual + user->spent) / 4;
    user->round = round;
    user->spent = 0;
}

static bool may_go_first(struct turn_user *user) {
    if (!list_is_empty(&user->line))
        return false;
    begin_round(user);
    return user->uid != TURN_NOBODY && user->usual < TURN_NS && user->spent < TURN_NS;
}

/* Serves those in a user's line, as long as another one that takes as long as the one before fits into the turn. */
static void serve_line(struct turn_user *user) {
    uint64_t before, last = 0;

    while (!list_is_empty(&user->line) && user->spent + last < TURN_NS) {
        struct turn *turn = list_first(&user->line, struct turn, link);

        list_unlink(&turn->link);
        before = user->spent;
        run(turn);
        last = user->spent - before;
    }
}

static void serve_next(struct loop_deferred *deferred) {
    struct turns *turns = container_of(deferred, struct turns, serve);
    struct turn_user *user = list_first(&turns->lines, struct turn_user, line_link);

    if (!user)
        return;
    if (turns->owed >= TURN_NS && turns->first_round == loop_round(turns->loop)) {
        turns->owed -= TURN_NS;
        loop_defer(&turns->serve);
        return;
    }
    list_unlink(&user->line_link);
    user->refs++;
    begin_round(user);
    user->spent = 0;
    serve_line(user);
    turns->owed = user->spent > TURN_NS ? user->spent - TURN_NS : 0;
    if (!list_is_empty(&user->line))
        list_append(&turns->lines, &user->line_link);
    user_unref(user);
    if (!list_is_empty(&turns->lines))
        loop_defer(&turns->serve);
}

bool turn_want(struct turn *turn) {
    struct turn_user *user = turn->user;
    struct turns *turns = user->turns;

    if (list_is_linked(&turn->link))
        return true;
    if (turn_is_alone(turn) || may_go_first(user)) {
        turns->first_round = loop_round(turns->loop);
        run(turn);
        return false;
    }
    list_append(&user->line, &turn->link);
    if (!list_is_linked(&user->line_link))
        list_append(&turns->lines, &user->line_link);
    loop_defer(&turns->serve);
    return true;
}

uint64_t turn_elapsed(const struct turn *turn) {
    const struct turns *turns = turn->user->turns;

    return turn_is_alone(turn) ? 0 : turns->clock() - turns->started;
}

void turn_exhaust(struct turn *turn) {
    struct turn_user *user = turn->user;

    if (user->spent < TURN_NS)
        user->spent = TURN_NS;
    if (user->usual < TURN_NS)
        user->usual = TURN_NS;
}

bool turn_is_over(const struct turn *turn) {
    return turn->user->spent >= TURN_NS && !turn_is_alone(turn);
}

bool turn_is_alone(const struct turn *turn) {
    return turn->user->turns->n_users == (turn->user->uid != TURN_NOBODY);
}

int turn_init(struct turn *turn, struct turns *turns, uid_t uid, turn_fn work) {
    *turn = (struct turn){.user = user_ref(turns, uid), .work = work};
    list_init(&turn->link);
    return turn->user ? 0 : -ENOMEM;
}

void turn_deinit(struct turn *turn) {
    if (!turn->user)
        return;
    list_unlink(&turn->link);
    user_unref(turn->user);
    turn->user = NULL;
}

void turns_init(struct turns *turns, struct loop *loop) {
    *turns = (struct turns){.loop = loop, .clock = cpu_time};
    list_init(&turns->users);
    list_init(&turns->lines);
    loop_deferred_init(&turns->serve, loop, serve_next);
}

void turns_deinit(struct turns *turns) {
    assert(list_is_empty(&turns->users));
    loop_deferred_cancel(&turns->serve);
}
