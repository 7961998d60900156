/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Turns: who asks for little goes first, who floods stands in line, users in rotation whatever their peers. */
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "harness.h"

#include "transport/turns.h"

#define MODEST 1000
#define GREEDY 2000

struct peer {
    struct turn turn;
    unsigned served;
    uint64_t burns;     /* nanoseconds */
    bool floods;        /* there is always more */
    struct peer *ends;  /* taken out while this one is served */
};

static struct loop *loop;
static struct turns turns;
static struct peer peers[64];
static unsigned order[256], n_order;

static uint64_t spent; /* what the clock shows */

/* A turn takes some time, but never as long as a slow machine makes it. */
static uint64_t clock_of_test(void) {
    return spent += TURN_NS / 100;
}

static void serve(struct turn *turn) {
    struct peer *peer = container_of(turn, struct peer, turn);

    peer->served++;
    if (n_order < 256)
        order[n_order++] = (unsigned)(peer - peers);
    spent += peer->burns;
    if (peer->floods)
        turn_exhaust(turn);
    if (peer->ends)
        turn_deinit(&peer->ends->turn);
}

static void open_turns(void) {
    ck_assert_int_eq(loop_new(&loop), 0);
    turns_init(&turns, loop);
    turns.clock = clock_of_test;
    memset(peers, 0, sizeof(peers));
    n_order = 0;
}

static void close_turns(void) {
    for (size_t i = 0; i < 64; i++)
        turn_deinit(&peers[i].turn);
    turns_deinit(&turns);
    loop_free(loop);
}

static void open_peer(size_t i, uid_t uid) {
    ck_assert_int_eq(turn_init(&peers[i].turn, &turns, uid, serve), 0);
}

static void iterate(void) {
    ck_assert_int_ge(loop_dispatch(loop, 0), 0);
}

/* What a modest user is after a few short turns. */
static void prove_modest(size_t i) {
    for (unsigned n = 0; n < 100 && turn_want(&peers[i].turn); n++)
        iterate();
    for (unsigned n = 0; n < 20; n++) {
        iterate();
        (void)turn_want(&peers[i].turn);
    }
    iterate();
}

TEST(test_p09_alone_nobody_waits, .setup = open_turns, .teardown = close_turns) {
    open_peer(0, GREEDY);
    open_peer(1, GREEDY);
    peers[0].floods = true;
    for (unsigned i = 1; i <= 10; i++) {
        ck_assert(turn_is_alone(&peers[0].turn));
        ck_assert(!turn_want(&peers[0].turn));
        ck_assert(!turn_want(&peers[1].turn));
        ck_assert_uint_eq(peers[0].served, i);
        ck_assert_uint_eq(peers[1].served, i);
        ck_assert(!turn_is_over(&peers[0].turn));
    }
}

TEST(test_p09_who_floods_stands_in_line, .setup = open_turns, .teardown = close_turns) {
    open_peer(0, MODEST);
    open_peer(1, GREEDY);
    peers[1].floods = true;
    prove_modest(0);
    peers[0].served = 0;
    for (unsigned i = 1; i <= 50; i++) {
        (void)turn_want(&peers[1].turn);
        ck_assert(!turn_want(&peers[0].turn)); /* at once, whoever was first */
        ck_assert_uint_eq(peers[0].served, i);
        iterate();
    }
    /* And does not starve there. */
    ck_assert_uint_gt(peers[1].served, 10);
}

TEST(test_p09_line_is_of_users_not_of_peers, .setup = open_turns, .teardown = close_turns) {
    unsigned many = 0, one;

    for (size_t i = 0; i < 40; i++)
        open_peer(i, GREEDY);
    open_peer(40, GREEDY + 1);
    open_peer(41, MODEST);
    for (size_t i = 0; i < 41; i++)
        peers[i].floods = true;
    for (unsigned n = 0; n < 400; n++) {
        for (size_t i = 0; i < 41; i++)
            (void)turn_want(&peers[i].turn);
        iterate();
    }
    for (size_t i = 0; i < 40; i++) {
        many += peers[i].served;
        ck_assert_uint_ge(peers[i].served, 3); /* they share their user's turns evenly */
        ck_assert_uint_le(peers[i].served, 8);
    }
    one = peers[40].served;
    ck_assert_uint_ge(one + 3, many);
    ck_assert_uint_ge(many + 3, one);
}

TEST(test_p09_coming_anew_does_not_go_first, .setup = open_turns, .teardown = close_turns) {
    open_peer(0, MODEST);
    prove_modest(0);
    for (unsigned i = 0; i < 20; i++) {
        open_peer(1, GREEDY);
        ck_assert(turn_want(&peers[1].turn));
        turn_deinit(&peers[1].turn);
    }
    ck_assert_uint_eq(peers[1].served, 0);
    iterate();
}

TEST(test_p09_what_is_for_nobody_waits_for_everybody, .setup = open_turns, .teardown = close_turns) {
    open_peer(0, TURN_NOBODY);
    ck_assert(turn_is_alone(&peers[0].turn));
    ck_assert(!turn_want(&peers[0].turn));
    open_peer(1, MODEST);
    ck_assert(turn_is_alone(&peers[1].turn));
    ck_assert(!turn_is_alone(&peers[0].turn));
    ck_assert(turn_want(&peers[0].turn));
    ck_assert_uint_eq(peers[0].served, 1);
    iterate();
    iterate();
    ck_assert_uint_eq(peers[0].served, 2);
}

/* The first peer asks in every iteration. */
static void ask(struct loop_source *source, uint32_t events) {
    (void)source;
    (void)events;
    (void)turn_want(&peers[0].turn);
}

TEST(test_p09_long_turn_is_made_up_for, .setup = open_turns, .teardown = close_turns) {
    struct loop_source source;
    int fd = eventfd(1, EFD_CLOEXEC);
    unsigned first;

    open_peer(0, MODEST);
    open_peer(1, GREEDY);
    peers[1].burns = 10 * TURN_NS;
    prove_modest(0);
    (void)turn_want(&peers[1].turn);
    iterate();
    iterate();
    ck_assert_uint_eq(peers[1].served, 1);
    first = peers[0].served;
    (void)turn_want(&peers[1].turn);
    ck_assert_int_eq(loop_source_init(&source, loop, fd, EPOLLIN, ask), 0);
    while (peers[1].served == 1)
        iterate();
    ck_assert_uint_ge(peers[0].served - first, 5);
    loop_source_deinit(&source);
    close(fd);
}

/* A part of it that would go beyond the turn waits for the next one. */
TEST(test_p09_turn_of_a_line_ends_in_time, .setup = open_turns, .teardown = close_turns) {
    unsigned served = 0;

    open_peer(0, MODEST);
    for (size_t i = 1; i <= 4; i++) {
        open_peer(i, GREEDY);
        peers[i].burns = TURN_NS * 6 / 10;
        ck_assert(turn_want(&peers[i].turn));
    }
    for (unsigned n = 1; n <= 4; n++) {
        iterate();
        served = 0;
        for (size_t i = 1; i <= 4; i++)
            served += peers[i].served;
        ck_assert_uint_eq(served, n);
    }
}

/* Whoever is served may take anybody out, itself too. */
TEST(test_p09_peers_go_in_anybodys_turn, .setup = open_turns, .teardown = close_turns) {
    for (size_t i = 0; i < 8; i++) {
        open_peer(i, (uid_t)(GREEDY + i / 4));
        peers[i].floods = true;
    }
    open_peer(8, MODEST);
    for (unsigned n = 0; n < 3; n++) {
        for (size_t i = 0; i < 8; i++)
            (void)turn_want(&peers[i].turn);
        iterate();
    }
    peers[0].ends = &peers[1];
    peers[2].ends = &peers[6];
    peers[4].ends = &peers[4];
    peers[7].ends = &peers[3];
    for (unsigned n = 0; n < 40; n++) {
        for (size_t i = 0; i < 8; i++)
            if (peers[i].turn.user)
                (void)turn_want(&peers[i].turn);
        iterate();
    }
    ck_assert_ptr_null(peers[1].turn.user);
    ck_assert_ptr_null(peers[3].turn.user);
    ck_assert_ptr_null(peers[4].turn.user);
    ck_assert_uint_gt(peers[0].served, 1);
}

HARNESS_SUITE("turns", HARNESS_QUICK)
