/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A link whose other end is slow, silent, gone or lies: it is lost, its owner is told why, once, and nothing is left of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/names.h>
#include <vmibus/protocol.h>

#include "harness.h"
#include "transport/link.h"
#include "util/arena.h"

#define TAIL_BOUND 4096u
#define QUEUE_BOUND 65536u

static struct loop *loop;
static struct arena arena;
static struct link link_under_test;
static int other; /* the other end, as octets */
static unsigned n_heard, n_down, n_lost;
static enum link_loss loss;

static void hear(void *context, const struct vmibus_frame *frame, const void *tail) {
    (void)context;
    n_heard++;
    if (frame->header.tail_length)
        ck_assert_int_eq(memcmp(tail, "vm", 2), 0);
}

static void down(void *context) {
    (void)context;
    n_down++;
    ck_assert(!link_is_up(&link_under_test));
}

static void lost(void *context, enum link_loss why) {
    (void)context;
    n_lost++;
    loss = why;
    link_end(&link_under_test);
}

static void begin(void) {
    struct link_options options = {.tail_bound = TAIL_BOUND, .sender = VMIBUS_SENDER_BUS, .queue_bound = QUEUE_BOUND,
                                   .half_frame_ms = 1, .hear = hear, .down = down, .lost = lost};
    const int octets = 4096;
    int pair[2];

    ck_assert_int_eq(loop_new(&loop), 0);
    ck_assert_int_eq(arena_init(&arena, link_memory_needed(TAIL_BOUND) + 65536), 0);
    options.loop = loop;
    options.arena = &arena;
    ck_assert_int_eq(link_init(&link_under_test, &options), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    ck_assert_int_eq(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &octets, sizeof(octets)), 0);
    ck_assert_int_eq(link_begin_consume_fd(&link_under_test, pair[0]), 0);
    other = pair[1];
}

static void end(void) {
    link_deinit(&link_under_test);
    arena_deinit(&arena);
    loop_free(loop);
    close(other);
}

#define WITH_LINK .setup = begin, .teardown = end

static struct vmibus_frame frame_of(enum vmibus_kind kind) {
    return (struct vmibus_frame){.header = {.kind = (uint16_t)kind,
                                            .direction = VMIBUS_DIRECTION_DOWN,
                                            .priority = VMIBUS_PRIORITY_NORMAL,
                                            .version = VMIBUS_PROTOCOL_VERSION,
                                            .slot = kind == VMIBUS_KIND_LINK_SYNCED ? 0 : 1,
                                            .generation = kind == VMIBUS_KIND_LINK_SYNCED ? 0 : 1}};
}

static void say(enum vmibus_kind kind) {
    const struct vmibus_frame frame = frame_of(kind);

    link_say(&link_under_test, &frame, NULL);
}

static void put(const void *octets, size_t size) {
    ck_assert_int_eq(write(other, octets, size), (ssize_t)size);
}

static void await_loss(enum link_loss why) {
    while (!n_lost)
        ck_assert_int_ge(loop_dispatch(loop, 30000), 0);
    ck_assert_uint_eq(n_lost, 1);
    ck_assert_uint_eq(n_down, 1);
    ck_assert_int_eq(loss, why);
    ck_assert(!link_is_up(&link_under_test));
    say(VMIBUS_KIND_LINK_SYNCED); /* to nobody */
    ck_assert_int_ge(loop_dispatch(loop, 0), -ETIMEDOUT);
    ck_assert_uint_eq(n_lost, 1);
}

static bool fill_socket(void) {
    while (link_is_up(&link_under_test) && !link_under_test.queue)
        say(VMIBUS_KIND_ENDPOINT_OPENED);
    return link_is_up(&link_under_test);
}

TEST(test_p09_end_that_does_not_read_is_lost_at_its_bound, WITH_LINK) {
    for (unsigned i = 0; link_is_up(&link_under_test); i++) {
        ck_assert_uint_le(link_under_test.end - link_under_test.begin, QUEUE_BOUND);
        ck_assert_uint_lt(i, 100000);
        say(VMIBUS_KIND_ENDPOINT_OPENED);
    }
    await_loss(LINK_SLOW);
}

TEST(test_p09_end_that_does_not_read_for_long_is_lost, WITH_LINK) {
    ck_assert(fill_socket());
    await_loss(LINK_SLOW);
}

TEST(test_p09_end_that_does_not_say_the_rest_is_lost, WITH_LINK) {
    const struct vmibus_frame frame = frame_of(VMIBUS_KIND_LINK_SYNCED);

    put(&frame, sizeof(frame) / 2);
    await_loss(LINK_SLOW);
    ck_assert_uint_eq(n_heard, 0);
}

/* Who has its whole table cannot be left with a fence that is revoked: the end of something arrives, or the link does not last. */
TEST(test_p05_what_ends_something_does_not_wait, WITH_LINK, .iterations = 3) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_FENCE_REVOKE, VMIBUS_KIND_ENDPOINT_CLOSED, VMIBUS_KIND_QUIESCE_STATE};

    say(VMIBUS_KIND_LINK_SYNCED);
    ck_assert(fill_socket());
    say(VMIBUS_KIND_ENDPOINT_OPENED);
    ck_assert(link_is_up(&link_under_test));
    say(kinds[_i]);
    ck_assert(!link_is_up(&link_under_test));
    await_loss(LINK_SLOW);
}

/* Before the table has gone everything is in order behind it. */
TEST(what_ends_something_waits_behind_the_table, WITH_LINK) {
    ck_assert(fill_socket());
    say(VMIBUS_KIND_FENCE_REVOKE);
    ck_assert(link_is_up(&link_under_test));
    say(VMIBUS_KIND_LINK_SYNCED);
    say(VMIBUS_KIND_FENCE_REVOKE);
    ck_assert(link_is_up(&link_under_test));
}

TEST(end_that_closes_is_gone, WITH_LINK, .iterations = 3) {
    if (_i == 2)
        ck_assert(fill_socket()); /* what waits goes to nobody */
    ck_assert_int_eq(shutdown(other, SHUT_RDWR), 0);
    if (_i == 1)
        say(VMIBUS_KIND_LINK_SYNCED);
    await_loss(LINK_CLOSED);
}

/* What is no frame, a frame that this end may not say, one for nobody. */
TEST(test_p09_end_that_lies_is_lost, WITH_LINK, .iterations = 4) {
    struct vmibus_frame frame = frame_of(_i == 2 ? VMIBUS_KIND_FENCE_DRAINED : VMIBUS_KIND_ENDPOINT_OPENED);

    if (_i == 0)
        frame.header.version = 99;
    else if (_i == 1)
        frame.header.tail_length = TAIL_BOUND + 1;
    else if (_i == 3)
        frame.header.direction = VMIBUS_DIRECTION_UP;
    put(&frame, sizeof(frame));
    await_loss(LINK_GARBLED);
    ck_assert_uint_eq(n_heard, 0);
}

TEST(frame_of_a_kind_that_is_not_known_is_passed_over, WITH_LINK) {
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_LINK_SYNCED), opened = frame_of(VMIBUS_KIND_ENDPOINT_OPENED);

    frame.header.kind = 0x7ffe;
    put(&frame, sizeof(frame));
    opened.header.tail_length = 2;
    put(&opened, sizeof(opened));
    put("vm", 2);
    link_catch_up(&link_under_test);
    ck_assert(link_is_up(&link_under_test));
    ck_assert_uint_eq(n_heard, 1);
}

HARNESS_SUITE("links", HARNESS_QUICK)
