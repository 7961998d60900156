/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A link that is handed over amidst frames: nothing is lost, said twice or out of step, whatever is wrong is not taken. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/names.h>
#include <vmibus/protocol.h>

#include "harness.h"
#include "transport/handover.h"
#include "transport/link.h"
#include "util/arena.h"
#include "util/fds.h"
#include "util/lies.h"

#define TAIL_BOUND 4096u
#define TAG 1

static struct loop *loop;
static struct arena arena;
static struct link link_under_test;
static int other; /* the other end, as octets */
static unsigned heard;
static uint64_t last_heard;

static void hear(void *context, const struct vmibus_frame *frame, const void *tail) {
    (void)context;
    (void)tail;
    heard++;
    last_heard = frame->header.correlation;
}

static void lost(void *context, enum link_loss loss) {
    (void)context;
    (void)loss;
}

static void begin(void) {
    const struct link_options options = {
        .loop = NULL, .tail_bound = TAIL_BOUND, .sender = VMIBUS_SENDER_BUS, .queue_bound = 1 << 20, .half_frame_ms = 60000,
        .hear = hear, .lost = lost};
    struct link_options with_loop = options;

    ck_assert_int_eq(loop_new(&loop), 0);
    ck_assert_int_eq(arena_init(&arena, link_memory_needed(TAIL_BOUND) + 65536), 0);
    with_loop.loop = loop;
    with_loop.arena = &arena;
    ck_assert_int_eq(link_init(&link_under_test, &with_loop), 0);
}

static void end(void) {
    link_deinit(&link_under_test);
    arena_deinit(&arena);
    loop_free(loop);
}

static void connect_link(void) {
    const int octets = 4096;
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    ck_assert_int_eq(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &octets, sizeof(octets)), 0);
    ck_assert_int_eq(link_begin_consume_fd(&link_under_test, pair[0]), 0);
    other = pair[1];
}

static struct vmibus_frame frame_of(uint64_t number) {
    return (struct vmibus_frame){.header = {.kind = VMIBUS_KIND_LINK_SYNCED,
                                            .direction = VMIBUS_DIRECTION_DOWN,
                                            .priority = VMIBUS_PRIORITY_NORMAL,
                                            .version = VMIBUS_PROTOCOL_VERSION,
                                            .correlation = number}};
}

/* What a process writes, and its descriptors, as the next one gets them. */
static int save(int **fds, size_t *n_fds) {
    static const uint8_t token[HANDOVER_TOKEN];
    struct handover_writer writer = {};
    int state;

    handover_begin(&writer, TAG);
    link_handover_save(&link_under_test, &writer);
    handover_end(&writer);
    state = handover_seal(&writer, token, "test");
    ck_assert_int_ge(state, 0);
    *n_fds = writer.n_fds;
    *fds = calloc(writer.n_fds + 1, sizeof(int));
    for (size_t i = 0; i < writer.n_fds; i++)
        (*fds)[i] = fd_dup(writer.fds[i]);
    handover_writer_deinit(&writer);
    return state;
}

static bool restore(int state, int *fds, size_t n_fds) {
    struct handover_record record;
    struct handover whole;
    bool good;

    ck_assert_int_eq(handover_open(&whole, state, fds, n_fds), 0);
    ck_assert(handover_find(handover_all(&whole), TAG, &record));
    good = link_handover_restore(&link_under_test, handover_in(&record));
    ck_assert_int_eq(good, whole.error == 0);
    handover_close(&whole);
    close(state);
    return good;
}

/* Another process: the same link in what has just been made. */
static void restart(void) {
    size_t n_fds;
    int *fds, state = save(&fds, &n_fds);

    ck_assert_uint_eq(n_fds, 1);
    end();
    begin();
    ck_assert(restore(state, fds, n_fds));
}

/* More than the socket takes: the rest waits in the queue. Returns how many were said. */
static uint64_t say_too_much(void) {
    uint64_t n = 0;

    while (!link_under_test.queue || link_under_test.end - link_under_test.begin < 100 * sizeof(struct vmibus_frame)) {
        const struct vmibus_frame frame = frame_of(++n);

        link_say(&link_under_test, &frame, NULL);
    }
    return n;
}

TEST(what_waits_to_be_sent_stays_in_step, .setup = begin, .teardown = end) {
    struct vmibus_frame frame;
    uint64_t n, seen = 0;
    size_t got = 0;

    connect_link();
    n = say_too_much();
    restart();
    ck_assert(link_is_up(&link_under_test));
    frame = frame_of(++n);
    link_say(&link_under_test, &frame, NULL);
    while (seen < n) {
        ssize_t r = read(other, (uint8_t *)&frame + got, sizeof(frame) - got);

        if (r < 0) {
            ck_assert_int_eq(errno, EAGAIN);
            ck_assert_int_ge(loop_dispatch(loop, 1000), -ETIMEDOUT);
            continue;
        }
        got += (size_t)r;
        if (got < sizeof(frame))
            continue;
        got = 0;
        ck_assert_uint_eq(frame.header.correlation, ++seen);
    }
    close(other);
}

TEST(half_a_frame_is_heard_once, .setup = begin, .teardown = end) {
    const struct vmibus_frame frame = frame_of(7);

    connect_link();
    ck_assert_int_eq(write(other, &frame, 50), 50);
    link_catch_up(&link_under_test);
    ck_assert_uint_eq(heard, 0);
    restart();
    ck_assert_int_eq(write(other, (const uint8_t *)&frame + 50, sizeof(frame) - 50), sizeof(frame) - 50);
    link_catch_up(&link_under_test);
    ck_assert_uint_eq(heard, 1);
    ck_assert_uint_eq(last_heard, 7);
    close(other);
}

/* The process that has written is silent, or the next one's queue would come behind what was said later. */
TEST(test_p05_nothing_is_said_after_it_was_written, .setup = begin, .teardown = end) {
    const struct vmibus_frame frame = frame_of(1);
    struct vmibus_frame seen;
    size_t n_fds;
    int *fds, state;

    connect_link();
    state = save(&fds, &n_fds);
    link_say(&link_under_test, &frame, NULL);
    ck_assert_int_eq(read(other, &seen, sizeof(seen)), -1);
    ck_assert_int_eq(errno, EAGAIN);
    fds_close(fds, n_fds);
    free(fds);
    close(state);
    close(other);
}

/* What is no stream socket is no link. */
TEST(test_p12_other_descriptors_are_not_taken, .setup = begin, .teardown = end) {
    size_t n_fds;
    int *fds, state;

    connect_link();
    state = save(&fds, &n_fds);
    close(fds[0]);
    fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
    end();
    begin();
    ck_assert(!restore(state, fds, n_fds));
    ck_assert(!link_is_up(&link_under_test));
    close(other);
}

/* --- lies ---------------------------------------------------------------------------------------- */

static int *given;
static size_t n_given;

/* The ledger of the link asserts that nothing is left. */
static bool is_taken(const uint8_t *octets, size_t size) {
    int *fds = calloc(n_given + 1, sizeof(*fds));
    struct handover_record record;
    struct handover whole;
    bool good = false;

    for (size_t i = 0; i < n_given; i++)
        fds[i] = fd_dup(given[i]);
    begin();
    ck_assert_int_eq(handover_open_octets(&whole, octets, size, fds, n_given), 0);
    if (handover_find(handover_all(&whole), TAG, &record))
        good = link_handover_restore(&link_under_test, handover_in(&record));
    ck_assert(!good || link_is_up(&link_under_test));
    handover_close(&whole);
    end();
    return good;
}

/* A link amidst a frame with a tail, and with a queue. */
TEST(test_p12_lies_are_taken_whole_or_not_at_all, .setup = begin) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_ENDPOINT_OPENED, .direction = VMIBUS_DIRECTION_DOWN, .slot = 1,
                                            .generation = 1, .tail_length = 5, .version = VMIBUS_PROTOCOL_VERSION}};
    uint8_t *octets;
    struct lies lies;
    size_t size;

    connect_link();
    (void)say_too_much();
    ck_assert_int_eq(write(other, &frame, sizeof(frame)), sizeof(frame));
    ck_assert_int_eq(write(other, "we", 2), 2);
    link_catch_up(&link_under_test);
    ck_assert(link_under_test.receiver.in_tail);
    octets = lies_read_consume_fd(save(&given, &n_given), &size);
    end();
    lies = lies_tell(octets, size, harness_is_full() ? 1 : 7, is_taken);
    ck_assert_uint_gt(lies.n_refused, 10);
    ck_assert_uint_gt(lies.n_taken, 10);
    fds_close(given, n_given);
    free(given);
    free(octets);
    close(other);
}

HARNESS_SUITE("handover of a link", HARNESS_QUICK)
