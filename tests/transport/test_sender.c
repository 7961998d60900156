/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frames into a socket that takes little: every octet in order, descriptors with the begin of their frame. */
#include "transport/sender.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

#define ITEMS 64
#define LONG_TAIL (1u << 20)

static uint64_t limits[N_RESOURCES] = {[RESOURCE_FDS] = 1000};

static struct ledger ledger;
static struct account *account;
static struct arena arena;
static struct pool buffers, fd_blocks;
static struct sender sender;
static int sockets[2];

/* What the outbox holds: tails and descriptors of each item. */
static struct script {
    uint32_t tails[ITEMS];
    uint8_t n_fds[ITEMS];
    size_t n, taken;
    size_t tails_lent, tails_returned;
} script;

/* --- instead of the bus ------------------------------------------------------------------------ */

static uint8_t octet(size_t item, size_t i) {
    return (uint8_t)(item * 131 + i * 7);
}

static bool take(void *context, struct control_item *item) {
    size_t n = script.taken;
    uint8_t *data;

    (void)context;
    if (n == script.n)
        return false;
    script.taken++;
    *item = (struct control_item){.frame = {.header = {.kind = VMIBUS_KIND_ACK,
                                                       .correlation = n,
                                                       .tail_length = script.tails[n],
                                                       .fd_count = script.n_fds[n]}}};
    if (script.tails[n]) {
        data = malloc(script.tails[n]);
        for (size_t i = 0; i < script.tails[n]; i++)
            data[i] = octet(n, i);
        item->tail = tail_new_retained(data, script.tails[n]);
        script.tails_lent++;
        free(data);
    }
    if (script.n_fds[n]) {
        item->fds = pool_take(&fd_blocks);
        *item->fds = (struct event_fds){.pool = &fd_blocks};
        ck_assert_int_eq(charge_take(&item->fds->charge, account, RESOURCE_FDS, script.n_fds[n]), 0);
        for (item->fds->n_fds = 0; item->fds->n_fds < script.n_fds[n]; item->fds->n_fds++)
            item->fds->fds[item->fds->n_fds] = dup(sockets[0]);
    }
    return true;
}

void control_item_deinit(struct control_item *item) {
    script.tails_returned += item->tail != NULL;
    item->tail = tail_unref(item->tail);
    item->fds = event_fds_free(item->fds);
}

/* --- the other end ----------------------------------------------------------------------------- */

struct reader {
    size_t item, offset; /* where in the stream */
    size_t begun;        /* the last item that began */
};

static size_t item_size(size_t item) {
    return VMIBUS_FRAME_SIZE + script.tails[item];
}

/* An assertion for each octet would take long: libcheck notes every one. */
static void check_octets(struct reader *reader, const uint8_t *data, size_t length) {
    for (size_t i = 0; i < length; i++) {
        uint8_t expected = data[i];

        if (reader->item >= script.n)
            ck_abort_msg("more came than was sent");
        reader->begun = reader->item;
        if (reader->offset >= VMIBUS_FRAME_SIZE)
            expected = octet(reader->item, reader->offset - VMIBUS_FRAME_SIZE);
        else if (reader->offset == offsetof(struct vmibus_header, correlation))
            expected = (uint8_t)reader->item;
        if (data[i] != expected)
            ck_abort_msg("octet %zu of item %zu is %u, not %u", reader->offset, reader->item, data[i], expected);
        if (++reader->offset == item_size(reader->item)) {
            reader->item++;
            reader->offset = 0;
        }
    }
}

/*
 * Reads at most so much.  The kernel may put octets sent before in front of those that have descriptors, but puts none
 * behind them that were sent after: they belong to the last frame that began.
 */
static bool read_some(struct reader *reader, size_t bound) {
    static uint8_t data[1 << 18];
    struct iovec piece = {.iov_base = data, .iov_len = bound < sizeof(data) ? bound : sizeof(data)};
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(32 * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(sockets[1], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *header;
    size_t before;

    if (n < 0) {
        ck_assert_int_eq(errno, EAGAIN);
        return false;
    }
    before = reader->item + (reader->offset != 0);
    check_octets(reader, data, (size_t)n);
    header = CMSG_FIRSTHDR(&message);
    if (header) {
        size_t n_fds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        ck_assert_uint_ge(reader->begun, before); /* it began in this very read */
        ck_assert_uint_eq(n_fds, script.n_fds[reader->begun]);
        for (size_t i = 0; i < n_fds; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
            close(fd);
        }
        script.n_fds[reader->begun] = 0; /* they have come */
    }
    return true;
}

static void begin(int send_buffer) {
    memset(&script, 0, sizeof(script));
    ledger_init(&ledger, limits);
    ck_assert_int_eq(ledger_ref_account(&ledger, 1000, limits, &account), 0);
    ck_assert_int_eq(arena_init(&arena, 1 << 20), 0);
    ck_assert_int_eq(pool_init(&fd_blocks, &arena, sizeof(struct event_fds), 64), 0);
    ck_assert_int_eq(pool_init(&buffers, &arena, SENDER_BUFFER, 1), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets), 0);
    if (send_buffer)
        ck_assert_int_eq(setsockopt(sockets[0], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer)), 0);
    sender_init(&sender, &buffers, sockets[0], account);
}

static void end(void) {
    sender_deinit(&sender);
    ck_assert_uint_eq(script.tails_returned, script.tails_lent);
    pool_deinit(&buffers);
    pool_deinit(&fd_blocks);
    arena_deinit(&arena);
    account_unref(account);
    ledger_deinit(&ledger);
    close(sockets[0]);
    close(sockets[1]);
}

static void send_all(size_t read_bound) {
    struct reader reader = {};
    int r;

    do {
        r = sender_flush(&sender, take, NULL);
        ck_assert_msg(r == 0 || r == SENDER_MORE || r == -EAGAIN, "%d", r);
        /* Whoever must wait must have something to wait for. */
        ck_assert(read_some(&reader, read_bound) || r >= 0);
    } while (r);
    while (read_some(&reader, read_bound))
        ;
    ck_assert_uint_eq(reader.item, script.n);
    ck_assert_uint_eq(reader.offset, 0);
    for (size_t i = 0; i < script.n; i++)
        ck_assert_uint_eq(script.n_fds[i], 0);
    sender_reclaim(&sender);
    ck_assert_uint_eq(ledger.used[RESOURCE_FDS], 0);
}

/* --- tests ------------------------------------------------------------------------------------- */

TEST(test_tails_around_every_bound) {
    static const uint32_t tails[] = {0, 1, 127, 128, 4096, 65407, 65408, 65409, 65535, 65536, 65537, 131072, LONG_TAIL, 0, 5};

    for (unsigned with_fds = 0; with_fds < 3; with_fds++) {
        begin(0);
        script.n = sizeof(tails) / sizeof(tails[0]);
        memcpy(script.tails, tails, sizeof(tails));
        for (size_t i = 0; i < script.n; i++)
            script.n_fds[i] = with_fds == 2 || (with_fds == 1 && i % 3 == 0) ? (uint8_t)(1 + i % VMIBUS_FDS_PER_FRAME) : 0;
        send_all(70000);
        end();
    }
}

TEST(test_random_items_into_a_socket_that_takes_little, .iterations = 12) {
    unsigned seed = (unsigned)_i + 5;

    begin(_i % 3 == 0 ? 0 : 4608);
    script.n = ITEMS;
    for (size_t i = 0; i < ITEMS; i++) {
        script.tails[i] = i % 3 ? (uint32_t)rand_r(&seed) % 300 : (uint32_t)rand_r(&seed) % 100000;
        script.n_fds[i] = rand_r(&seed) % 4 ? 0 : (uint8_t)(1 + (unsigned)rand_r(&seed) % VMIBUS_FDS_PER_FRAME);
    }
    send_all(1 + (size_t)rand_r(&seed) % 5000);
    end();
}

/* What has not been sent stays in the outbox, where it can still be superseded. */
TEST(test_p07_takes_no_more_than_there_is_room_for) {
    begin(4608);
    script.n = ITEMS;
    for (size_t i = 0; i < ITEMS; i++)
        script.tails[i] = 60000;
    ck_assert_int_eq(sender_flush(&sender, take, NULL), -EAGAIN);
    ck_assert_uint_le(script.taken, 3);
    end();
}

TEST(test_p08_descriptors_stay_charged_until_they_are_read) {
    struct reader reader = {};

    begin(0);
    script.n = 2;
    script.n_fds[0] = script.n_fds[1] = 3;
    ck_assert_int_eq(sender_flush(&sender, take, NULL), 0);
    sender_reclaim(&sender);
    ck_assert_uint_eq(ledger.used[RESOURCE_FDS], 6);
    while (read_some(&reader, 1000))
        ;
    sender_reclaim(&sender);
    ck_assert_uint_eq(ledger.used[RESOURCE_FDS], 0);
    end();
}

TEST(test_p08_unsent_items_are_given_back) {
    for (uint32_t tail = 0; tail < 300000; tail += 60000) {
        begin(4608);
        script.n = 4;
        for (size_t i = 0; i < script.n; i++) {
            script.tails[i] = tail;
            script.n_fds[i] = 2;
        }
        (void)sender_flush(&sender, take, NULL);
        close(sockets[1]); /* what is in flight is closed by the kernel */
        sockets[1] = dup(sockets[0]);
        end();
    }
}

TEST(test_lost_peer_is_an_error) {
    begin(0);
    script.n = 3;
    close(sockets[1]);
    ck_assert_int_eq(sender_flush(&sender, take, NULL), -EPIPE);
    sockets[1] = dup(sockets[0]);
    end();
}

HARNESS_SUITE("sender", HARNESS_QUICK)
