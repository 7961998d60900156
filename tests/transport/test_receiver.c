/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One stream, cut in every way: what is handed on must always be the same. */
#include "transport/receiver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

#define BOUND 20000
#define STREAM 65536

/* What was handed on. */
struct heard {
    unsigned n_frames, n_skipped, n_violations;
    uint64_t next;           /* correlation expected next */
    bool stop_at_once;
    struct account *account; /* charged for large tails */
    int refusal;
    struct frame_fault fault;
    size_t n_fds;            /* descriptors that came with frames */
};

static const uint64_t limits[N_RESOURCES] = {[RESOURCE_TAILS] = 1, [RESOURCE_FDS] = 64};

static struct receiver_pool pool;
static struct receiver receiver;
static struct ledger ledger;
static struct heard heard;
static int sockets[2];

static uint8_t tail_octet(uint64_t correlation, size_t i) {
    return (uint8_t)(correlation * 31 + i);
}

static bool hear_frame(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds, uint64_t received) {
    const uint8_t *octets = tail;

    ck_assert_ptr_eq(context, &heard);
    ck_assert_int_eq(fds != NULL, frame->header.fd_count != 0);
    for (size_t i = 0; i < frame->header.fd_count; i++)
        ck_assert_int_ge(fcntl(fds[i], F_GETFD), 0);
    heard.n_fds += frame->header.fd_count;
    ck_assert_uint_ne(received, 0);
    ck_assert_uint_eq(frame->header.correlation, heard.next++);
    ck_assert_int_eq(tail != NULL, frame->header.tail_length != 0);
    for (size_t i = 0; i < frame->header.tail_length; i++)
        if (octets[i] != tail_octet(frame->header.correlation, i)) /* libcheck takes its time for each assertion */
            ck_abort_msg("octet %zu of the tail of frame %lu is wrong", i, (unsigned long)frame->header.correlation);
    heard.n_frames++;
    return !heard.stop_at_once;
}

static bool hear_skipped(void *context, const struct vmibus_frame *frame, int refusal, uint64_t received) {
    (void)context;
    (void)received;
    ck_assert_uint_eq(frame->header.correlation, heard.next++);
    heard.n_skipped++;
    heard.refusal = refusal;
    return !heard.stop_at_once;
}

static void hear_violation(void *context, const struct vmibus_frame *frame, const struct frame_fault *fault) {
    (void)context;
    (void)frame;
    heard.n_violations++;
    heard.fault = *fault;
}

static struct account *tell_account(void *context) {
    (void)context;
    return heard.account;
}

static const struct receiver_events events = {hear_frame, hear_skipped, hear_violation, tell_account};

static struct arena arena;

static void begin(void) {
    memset(&heard, 0, sizeof(heard));
    ledger_init(&ledger, limits);
    ck_assert_int_eq(ledger_ref_account(&ledger, 1000, limits, &heard.account), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    ck_assert_int_eq(arena_init(&arena, receiver_pool_cost(BOUND, 1, 1)), 0);
    ck_assert_int_eq(receiver_pool_init(&pool, &arena, BOUND, 1, 1), 0);
    receiver_init(&receiver, &pool, sockets[0]);
}

/* Nothing may be taken from the pools or charged any more: deinit asserts it. */
static void end(void) {
    receiver_deinit(&receiver);
    receiver_pool_deinit(&pool);
    arena_deinit(&arena);
    account_unref(heard.account);
    ledger_deinit(&ledger);
    close(sockets[0]);
    close(sockets[1]);
}

static size_t put_frame(uint8_t *stream, uint64_t correlation, uint32_t tail_length) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SUBSCRIBE,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .tail_length = tail_length,
                   .correlation = correlation},
    };

    memcpy(stream, &frame, sizeof(frame));
    for (size_t i = 0; i < tail_length; i++)
        stream[sizeof(frame) + i] = tail_octet(correlation, i);
    return sizeof(frame) + tail_length;
}

static size_t put_frames(uint8_t *stream, const uint32_t *tails, size_t n) {
    size_t length = 0;

    for (size_t i = 0; i < n; i++)
        length += put_frame(stream + length, i, tails[i]);
    return length;
}

static int read_all(size_t n_frames) {
    int r;

    do {
        r = receiver_read(&receiver, n_frames, 1000 * n_frames, &events, &heard);
    } while (r == 0);
    return r;
}

static void feed(const uint8_t *data, size_t length, size_t n_frames) {
    ck_assert_int_eq(write(sockets[1], data, length), (ssize_t)length);
    ck_assert_int_eq(read_all(n_frames), -EAGAIN);
}

TEST(test_octet_by_octet) {
    static const uint32_t tails[] = {0, 1, 0, 127, 128, 129, 4095, 4096, 4097, 0, BOUND};
    size_t n = sizeof(tails) / sizeof(tails[0]), length;
    static uint8_t stream[STREAM];

    begin();
    length = put_frames(stream, tails, n);
    for (size_t i = 0; i < length; i++)
        feed(stream + i, 1, 1);
    ck_assert_uint_eq(heard.n_frames, n);
    ck_assert_uint_eq(heard.n_violations, 0);
    ck_assert(!receiver_is_halfway(&receiver));
    ck_assert_uint_eq(receiver.n_whole, n);
    end();
}

TEST(test_every_split_in_two) {
    static const uint32_t tails[] = {3, 0, 130, 0, 64};
    size_t n = sizeof(tails) / sizeof(tails[0]), length;
    static uint8_t stream[STREAM];

    begin();
    length = put_frames(stream, tails, n);
    for (size_t split = 1; split < length; split++)
        for (size_t allowed = 1; allowed < 6; allowed++) {
            heard.next = heard.n_frames = 0;
            feed(stream, split, allowed);
            feed(stream + split, length - split, allowed);
            ck_assert_uint_eq(heard.n_frames, n);
            ck_assert(!receiver_is_halfway(&receiver));
        }
    end();
}

TEST(test_random_splits_and_tails, .iterations = 20) {
    static uint8_t stream[32 * (VMIBUS_FRAME_SIZE + BOUND)];
    unsigned seed = (unsigned)_i + 1;
    uint32_t tails[32];
    size_t length;

    begin();
    for (size_t i = 0; i < 32; i++)
        tails[i] = (uint32_t)rand_r(&seed) % (i % 4 ? 300 : BOUND + 1);
    length = put_frames(stream, tails, 32);
    for (size_t i = 0; i < length;) {
        size_t piece = 1 + (size_t)rand_r(&seed) % (_i % 2 ? 200 : 30000);

        if (piece > length - i)
            piece = length - i;
        feed(stream + i, piece, 1 + (size_t)rand_r(&seed) % 8);
        i += piece;
    }
    ck_assert_uint_eq(heard.n_frames, 32);
    ck_assert_uint_eq(heard.n_skipped, 0);
    end();
}

/* No more frames than there is room for answers, however much has arrived. */
TEST(test_p08_no_more_frames_than_allowed) {
    uint8_t stream[50 * VMIBUS_FRAME_SIZE];
    uint32_t tails[50] = {};

    begin();
    put_frames(stream, tails, 50);
    ck_assert_int_eq(write(sockets[1], stream, sizeof(stream)), sizeof(stream));
    for (unsigned i = 1; i <= 10; i++) {
        ck_assert_int_eq(receiver_read(&receiver, 5, SIZE_MAX, &events, &heard), 0);
        ck_assert_uint_eq(heard.n_frames, 5 * i);
    }
    ck_assert_int_eq(receiver_read(&receiver, 5, SIZE_MAX, &events, &heard), -EAGAIN);
    end();
}

/* Nor more of a tail than is good for a turn; and who is read is told whether there was more. */
TEST(test_p09_no_more_of_a_tail_than_allowed) {
    static uint8_t stream[2 * (VMIBUS_FRAME_SIZE + BOUND)];
    static const uint32_t tails[] = {BOUND, 0};
    size_t length, left = BOUND - 1;

    begin();
    length = put_frames(stream, tails, 2);
    ck_assert_int_eq(write(sockets[1], stream, VMIBUS_FRAME_SIZE + 1), VMIBUS_FRAME_SIZE + 1);
    ck_assert_int_eq(receiver_read(&receiver, 100, 1000, &events, &heard), 0);
    ck_assert(!receiver.filled);
    ck_assert_int_eq(write(sockets[1], stream + VMIBUS_FRAME_SIZE + 1, length - VMIBUS_FRAME_SIZE - 1),
                     (ssize_t)(length - VMIBUS_FRAME_SIZE - 1));
    for (; left > 1000; left -= 1000) {
        ck_assert_int_eq(receiver_read(&receiver, 100, 1000, &events, &heard), 0);
        ck_assert_uint_eq(receiver.n_tail, BOUND - left + 1000);
        ck_assert(receiver.filled);
    }
    ck_assert_uint_eq(heard.n_frames, 0);
    ck_assert_int_eq(receiver_read(&receiver, 100, 1000, &events, &heard), 0);
    ck_assert(!receiver.filled);
    ck_assert_uint_eq(heard.n_frames, 2);
    end();
}

TEST(test_stopping_leaves_the_rest) {
    uint8_t stream[3 * VMIBUS_FRAME_SIZE + 10];

    begin();
    heard.stop_at_once = true;
    put_frame(stream, 0, 10);
    put_frame(stream + VMIBUS_FRAME_SIZE + 10, 1, 0);
    put_frame(stream + 2 * VMIBUS_FRAME_SIZE + 10, 2, 0);
    ck_assert_int_eq(write(sockets[1], stream, sizeof(stream)), sizeof(stream));
    ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), -ECANCELED);
    ck_assert_uint_eq(heard.n_frames, 1);
    end();
    /* The same at the end of a tail that was gathered. */
    begin();
    heard.stop_at_once = true;
    ck_assert_int_eq(write(sockets[1], stream, VMIBUS_FRAME_SIZE + 5), VMIBUS_FRAME_SIZE + 5);
    ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), 0);
    ck_assert(receiver_is_halfway(&receiver));
    ck_assert_int_eq(write(sockets[1], stream + VMIBUS_FRAME_SIZE + 5, 5 + VMIBUS_FRAME_SIZE), 5 + VMIBUS_FRAME_SIZE);
    ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), -ECANCELED);
    ck_assert_uint_eq(heard.n_frames, 1);
    end();
}

TEST(test_framing_violation_stops_before_the_tail) {
    uint8_t stream[2 * VMIBUS_FRAME_SIZE];

    begin();
    put_frame(stream, 0, 0);
    put_frame(stream + VMIBUS_FRAME_SIZE, 1, 0);
    memset(stream + VMIBUS_FRAME_SIZE + offsetof(struct vmibus_header, tail_length), 0xff, 4);
    ck_assert_int_eq(write(sockets[1], stream, sizeof(stream)), sizeof(stream));
    ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), -ECANCELED);
    ck_assert_uint_eq(heard.n_frames, 1);
    ck_assert_uint_eq(heard.n_violations, 1);
    ck_assert_uint_eq(heard.fault.reason, VMIBUS_REASON_BAD_LENGTH);
    ck_assert_uint_eq(heard.fault.value, UINT32_MAX);
    ck_assert_uint_eq(heard.fault.bound, BOUND);
    end();
}

/* Without a place for it a tail is skipped, and the stream stays in step. */
TEST(test_p08_tail_without_a_place_is_skipped) {
    static const uint32_t tails[] = {BOUND, 0, 20, 0};
    static uint8_t stream[STREAM];
    struct charge taken = {};
    void *block, *keepable;
    size_t length;

    begin();
    length = put_frames(stream, tails, 4);
    /* Charged to somebody who has used up the limit. */
    ck_assert_int_eq(charge_take(&taken, heard.account, RESOURCE_TAILS, 1), 0);
    for (size_t i = 0; i < length; i += 1000)
        feed(stream + i, length - i < 1000 ? length - i : 1000, 2);
    ck_assert_uint_eq(heard.n_skipped, 1);
    ck_assert_uint_eq(heard.n_frames, 3);
    ck_assert_int_eq(heard.refusal, CHARGE_QUOTA);
    charge_release(&taken);
    /* Nobody to charge: even a small one. */
    account_unref(heard.account);
    heard.account = NULL;
    heard.next = heard.n_skipped = heard.n_frames = 0;
    for (size_t i = 0; i < length; i += 10)
        feed(stream + i, length - i < 10 ? length - i : 10, 2);
    ck_assert_uint_eq(heard.n_skipped, 2);
    ck_assert_uint_eq(heard.n_frames, 2);
    /* All buffers are somebody else's. */
    ck_assert_int_eq(ledger_ref_account(&ledger, 1000, limits, &heard.account), 0);
    block = pool_take(&pool.large);
    keepable = tails_take(pool.keepable);
    heard.next = heard.n_skipped = heard.n_frames = 0;
    for (size_t i = 0; i < length; i += 1000)
        feed(stream + i, length - i < 1000 ? length - i : 1000, 2);
    ck_assert_uint_eq(heard.n_skipped, 1);
    ck_assert_int_eq(heard.refusal, CHARGE_PRESSURE);
    tails_give(pool.keepable, keepable);
    /* And it has one again. */
    heard.next = heard.n_skipped = heard.n_frames = 0;
    for (size_t i = 0; i < length; i += 1000)
        feed(stream + i, length - i < 1000 ? length - i : 1000, 2);
    ck_assert_uint_eq(heard.n_frames, 4);
    pool_give(&pool.large, block);
    end();
}

/* --- tails that are kept -------------------------------------------------------------------------- */

#define LARGE (RECEIVER_SMALL_TAIL + 1000)

static struct kept_tail kept[3];
static bool was_kept[3];

static bool keep_tail(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds, uint64_t received) {
    (void)context;
    (void)fds;
    (void)received;
    was_kept[heard.n_frames] = kept_tail_take(&kept[heard.n_frames], (const uint8_t *)tail + frame->header.tail_length - 1);
    heard.n_frames++;
    return !heard.stop_at_once;
}

static const struct receiver_events keeping = {keep_tail, hear_skipped, hear_violation, tell_account};

static void feed_keeping(const uint8_t *stream, size_t length) {
    int r = 0;

    for (size_t i = 0, n; i < length; i += n) {
        n = length - i < 1000 ? length - i : 1000;
        ck_assert_int_eq(write(sockets[1], stream + i, n), (ssize_t)n);
        do
            r = receiver_read(&receiver, 2, SIZE_MAX, &keeping, &heard);
        while (r == 0);
    }
    ck_assert_int_eq(r, heard.stop_at_once ? -ECANCELED : -EAGAIN);
}

static void assert_kept(size_t index) {
    for (size_t i = 0; i < LARGE; i++)
        if (((const uint8_t *)kept[index].octets)[i] != tail_octet(index, i))
            ck_abort_msg("octet %zu of kept tail %zu is wrong", i, index);
}

/* There is one that can be kept: the next tail is gathered elsewhere and has to be copied, until that one is back. */
TEST(test_p09_kept_tail_takes_nothing_from_those_that_are_gathered) {
    static const uint32_t tails[] = {LARGE, LARGE, LARGE};
    static uint8_t stream[STREAM];
    const size_t each = VMIBUS_FRAME_SIZE + LARGE;

    begin();
    put_frames(stream, tails, 3);
    feed_keeping(stream, 2 * each);
    ck_assert(was_kept[0]);
    ck_assert(!was_kept[1]);
    ck_assert_uint_eq(heard.n_skipped, 0);
    ck_assert_uint_eq(ledger.used[RESOURCE_TAILS], 0); /* nothing is being gathered */
    assert_kept(0);
    kept_tail_give(&kept[0]);
    feed_keeping(stream + 2 * each, each);
    ck_assert(was_kept[2]);
    assert_kept(2);
    kept_tail_give(&kept[2]);
    end();
}

/* A tail that came with its frame lies where the next read goes, and a short one is not worth it. */
TEST(test_tail_that_was_not_gathered_cannot_be_kept) {
    static const uint32_t tails[] = {LARGE, 2000};
    static uint8_t stream[STREAM];
    size_t length;

    begin();
    length = put_frames(stream, tails, 2);
    ck_assert_int_eq(write(sockets[1], stream, length - 2000 - VMIBUS_FRAME_SIZE),
                     (ssize_t)(length - 2000 - VMIBUS_FRAME_SIZE));
    ck_assert_int_eq(receiver_read(&receiver, 1000, SIZE_MAX, &keeping, &heard), 0);
    feed_keeping(stream + length - 2000 - VMIBUS_FRAME_SIZE, 2000 + VMIBUS_FRAME_SIZE);
    ck_assert_uint_eq(heard.n_frames, 2);
    ck_assert(!was_kept[0]);
    ck_assert(!was_kept[1]);
    end();
}

/* Whoever keeps one may do so for longer than there are receivers; and a connection may end as it is handed on. */
TEST(test_p08_kept_tail_outlives_the_receivers, .iterations = 2) {
    static const uint32_t tails[] = {LARGE};
    static uint8_t stream[STREAM];

    begin();
    heard.stop_at_once = _i;
    feed_keeping(stream, put_frames(stream, tails, 1));
    ck_assert(was_kept[0]);
    receiver_deinit(&receiver);
    receiver_pool_deinit(&pool);
    assert_kept(0);
    kept_tail_give(&kept[0]);
    ck_assert_uint_eq(arena.used, 0);
    ck_assert(list_is_empty(&arena.pools));
    end();
}

TEST(test_p08_end_in_the_middle_gives_everything_back) {
    static uint8_t stream[STREAM];
    size_t length;

    for (size_t cut = 0; cut < 10000; cut += 997) {
        begin();
        length = put_frame(stream, 0, 9000);
        if (cut < length) {
            feed(stream, cut, 1);
            ck_assert_int_eq(receiver_is_halfway(&receiver), cut > 0);
        }
        shutdown(sockets[1], SHUT_WR);
        ck_assert_int_eq(read_all(1), -ECONNRESET);
        end();
    }
}

TEST(test_descriptors_are_a_violation) {
    struct vmibus_frame frame;
    struct iovec piece = {.iov_base = &frame, .iov_len = sizeof(frame)};
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(sizeof(int))];
    } control = {};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    begin();
    put_frame((uint8_t *)&frame, 0, 0);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(sockets[1], &message, 0), sizeof(frame));
    close(fd);
    ck_assert_int_eq(receiver_read(&receiver, 1, SIZE_MAX, &events, &heard), -ECANCELED);
    ck_assert_uint_eq(heard.n_violations, 1);
    ck_assert_uint_eq(heard.fault.reason, VMIBUS_REASON_BAD_FDS);
    ck_assert_uint_eq(heard.n_frames, 0);
    end(); /* and the harness sees that none stayed open */
}

/* --- from whom descriptors are taken ----------------------------------------------------------- */

static void send_with_fds(const void *data, size_t length, size_t n_fds) {
    struct iovec piece = {.iov_base = (void *)data, .iov_len = length};
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(32 * sizeof(int))];
    } control = {};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    struct cmsghdr *header;
    int fds[32];

    if (n_fds) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        for (size_t i = 0; i < n_fds; i++)
            fds[i] = sockets[0];
        memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    }
    ck_assert_int_eq(sendmsg(sockets[1], &message, 0), (ssize_t)length);
}

static void send_frame_with_fds(uint64_t correlation, uint32_t tail_length, uint8_t told, size_t n_fds) {
    uint8_t octets[sizeof(struct vmibus_frame) + 64];
    size_t length = put_frame(octets, correlation, tail_length);

    ((struct vmibus_frame *)(void *)octets)->header.fd_count = told;
    send_with_fds(octets, length, n_fds);
}

TEST(test_descriptors_come_with_their_frames) {
    begin();
    receiver.gives_fds = true;
    send_frame_with_fds(0, 0, 0, 0);
    send_frame_with_fds(1, 0, 3, 3);
    send_frame_with_fds(2, 40, 0, 0);
    send_frame_with_fds(3, 40, VMIBUS_FDS_PER_FRAME, VMIBUS_FDS_PER_FRAME);
    send_frame_with_fds(4, 0, 1, 1);
    while (receiver_read(&receiver, 100, SIZE_MAX, &events, &heard) == 0)
        continue;
    ck_assert_uint_eq(heard.n_frames, 5);
    ck_assert_uint_eq(heard.n_fds, 3 + VMIBUS_FDS_PER_FRAME + 1);
    ck_assert_uint_eq(heard.account->used[RESOURCE_FDS], 0);
    end();
}

/* The frame comes octet by octet, its tail later; the descriptors are there with the first. */
TEST(test_descriptors_wait_for_their_frame) {
    uint8_t octets[sizeof(struct vmibus_frame) + 64];
    size_t length = put_frame(octets, 0, 64);

    begin();
    receiver.gives_fds = true;
    ((struct vmibus_frame *)(void *)octets)->header.fd_count = 2;
    send_with_fds(octets, 1, 2);
    ck_assert_int_eq(receiver_read(&receiver, 1, SIZE_MAX, &events, &heard), 0);
    ck_assert_uint_eq(heard.account->used[RESOURCE_FDS], 2);
    for (size_t i = 1; i < length; i++) {
        send_with_fds(octets + i, 1, 0);
        ck_assert_int_eq(receiver_read(&receiver, 1, SIZE_MAX, &events, &heard), 0);
    }
    ck_assert_uint_eq(heard.n_frames, 1);
    ck_assert_uint_eq(heard.n_fds, 2);
    end();
}

TEST(test_p09_descriptors_that_no_frame_claims_are_bounded) {
    begin();
    receiver.gives_fds = true;
    for (unsigned i = 0; i < VMIBUS_FDS_PER_FRAME; i++)
        send_frame_with_fds(i, 0, 0, 1);
    for (unsigned i = 0; i < VMIBUS_FDS_PER_FRAME; i++)
        ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), 0);
    ck_assert_uint_eq(heard.account->used[RESOURCE_FDS], VMIBUS_FDS_PER_FRAME);
    send_frame_with_fds(VMIBUS_FDS_PER_FRAME, 0, 0, 1);
    ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), -ECANCELED);
    ck_assert_uint_eq(heard.n_violations, 1);
    end(); /* and the harness sees that none stayed open */
}

TEST(test_p09_more_descriptors_than_a_frame_may_have_are_a_violation) {
    begin();
    receiver.gives_fds = true;
    send_frame_with_fds(0, 0, 20, 20);
    ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), -ECANCELED);
    ck_assert_uint_eq(heard.n_violations, 1);
    end();
}

TEST(test_p08_descriptors_beyond_the_account_are_a_violation) {
    begin();
    receiver.gives_fds = true;
    heard.account->limit[RESOURCE_FDS] = 2;
    send_frame_with_fds(0, 0, 3, 3);
    ck_assert_int_eq(receiver_read(&receiver, 100, SIZE_MAX, &events, &heard), -ECANCELED);
    ck_assert_uint_eq(heard.n_violations, 1);
    end();
}

HARNESS_SUITE("receiver", HARNESS_QUICK)
