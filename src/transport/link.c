/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("sendmsg sendto setsockopt shutdown")

/* What is read in one go: more than a socket holds, so that all that was there before is heard. */
#define CATCH_UP_READS 32
#define FRAMES_PER_READ (RECEIVER_AREA / VMIBUS_FRAME_SIZE)
#define FIRST_CAPACITY 16384u

/* The kernel gives no more than its own bound (socket(7), wmem_max). */
#define SOCKET_OCTETS (1 << 20)

/* --- ending ------------------------------------------------------------------------------------ */

/* Nothing is said or heard any more; the owner is told from the loop, as it may be amidst anything now. */
static void lose(struct link *link, enum link_loss loss) {
    if (!link->up)
        return;
    link->up = false;
    link->loss = loss;
    loop_source_deinit(&link->source);
    loop_timer_cancel(&link->deadline);
    /* The other end sees at once that what follows does not come. */
    (void)shutdown(link->fd, SHUT_RDWR);
    if (link->options.down)
        link->options.down(link->options.context);
    loop_defer(&link->ending);
}

static void link_ends(struct loop_deferred *deferred) {
    struct link *link = container_of(deferred, struct link, ending);

    link->options.lost(link->options.context, link->loss);
}

/* --- deadlines --------------------------------------------------------------------------------- */

static bool is_halfway(const struct link *link) {
    return receiver_is_halfway(&link->receiver);
}

static void set_deadline(struct link *link) {
    link->halfway = link->receiver.n_whole;
    link->stuck = link->sent;
    if (loop_timer_set(&link->deadline, clock_now() + link->options.half_frame_ms * NS_PER_MS) < 0)
        lose(link, LINK_SLOW);
}

static void watch_progress(struct link *link) {
    if (!is_halfway(link) && !link->queue)
        loop_timer_cancel(&link->deadline);
    else if (!loop_timer_is_armed(&link->deadline))
        set_deadline(link);
}

static void deadline_came(struct loop_timer *timer) {
    struct link *link = container_of(timer, struct link, deadline);

    if ((is_halfway(link) && link->halfway == link->receiver.n_whole) || (link->queue && link->stuck == link->sent))
        lose(link, LINK_SLOW);
    else
        watch_progress(link);
}

/* --- saying ------------------------------------------------------------------------------------ */

static void drop_queue(struct link *link) {
    free(link->queue);
    link->queue = NULL;
    link->begin = link->end = link->capacity = 0;
}

static bool reserve(struct link *link, size_t n) {
    size_t waits = link->end - link->begin, capacity = link->capacity ? link->capacity : FIRST_CAPACITY;
    uint8_t *queue;

    if (waits + n > link->options.queue_bound)
        return false;
    if (link->begin) {
        memmove(link->queue, link->queue + link->begin, waits);
        link->begin = 0;
        link->end = waits;
    }
    while (capacity < waits + n)
        capacity *= 2;
    if (capacity == link->capacity)
        return true;
    queue = realloc(link->queue, capacity);
    if (!queue)
        return false;
    link->queue = queue;
    link->capacity = capacity;
    return true;
}

static void put(struct link *link, const void *data, size_t n) {
    if (n)
        memcpy(link->queue + link->end, data, n);
    link->end += n;
}

/* False: it is lost. */
static bool flush(struct link *link) {
    while (link->begin < link->end) {
        ssize_t n = send(link->fd, link->queue + link->begin, link->end - link->begin, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            lose(link, LINK_CLOSED);
            return false;
        }
        link->begin += (size_t)n;
        link->sent += (size_t)n;
    }
    if (link->begin == link->end)
        drop_queue(link);
    (void)loop_source_modify(&link->source, EPOLLIN | (link->queue ? EPOLLOUT : 0u));
    watch_progress(link);
    return true;
}

/* What ends something has to be there before anybody is told of it otherwise. */
static bool may_wait(const struct link *link, const struct vmibus_frame *frame) {
    if (!link->synced || link->sent < link->synced)
        return true;
    switch (frame->header.kind) {
    case VMIBUS_KIND_FENCE_REVOKE:
    case VMIBUS_KIND_ENDPOINT_CLOSED:
    case VMIBUS_KIND_QUIESCE_STATE:
        return false;
    default:
        return true;
    }
}

/* Octets that went; a frame that did not go at all has not. */
static ssize_t send_now(struct link *link, const struct vmibus_frame *frame, const void *tail) {
    struct iovec parts[2] = {
        {.iov_base = (void *)frame, .iov_len = sizeof(*frame)},
        {.iov_base = (void *)tail, .iov_len = frame->header.tail_length},
    };
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = frame->header.tail_length ? 2 : 1};
    ssize_t n = sendmsg(link->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    link->sent += (size_t)n;
    return n;
}

void link_say(struct link *link, const struct vmibus_frame *frame, const void *tail) {
    size_t length = sizeof(*frame) + frame->header.tail_length, of_frame, of_tail;
    ssize_t n = 0;

    if (!link->up)
        return;
    if (frame->header.kind == VMIBUS_KIND_LINK_SYNCED)
        link->synced = link->sent + (link->end - link->begin) + length;
    if (!link->queue)
        n = send_now(link, frame, tail);
    if (n < 0 || (size_t)n == length) {
        if (n < 0)
            lose(link, LINK_CLOSED);
        return;
    }
    if (!may_wait(link, frame) || !reserve(link, length - (size_t)n)) {
        lose(link, LINK_SLOW);
        return;
    }
    of_frame = (size_t)n < sizeof(*frame) ? (size_t)n : sizeof(*frame);
    of_tail = (size_t)n - of_frame;
    put(link, (const uint8_t *)frame + of_frame, sizeof(*frame) - of_frame);
    put(link, (const uint8_t *)tail + of_tail, frame->header.tail_length - of_tail);
    (void)loop_source_modify(&link->source, EPOLLIN | EPOLLOUT);
    watch_progress(link);
}

/* --- hearing ----------------------------------------------------------------------------------- */

static bool hear_frame(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds, uint64_t received) {
    struct link *link = context;
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);
    struct frame_fault fault;

    (void)fds;
    (void)received;
    /* One that is unknown is of a newer kind of end: it is nothing that this one has to know. */
    if (!description)
        return true;
    if (frame_check_command(frame, link->options.sender, &fault) != FRAME_OK) {
        lose(link, LINK_GARBLED);
        return false;
    }
    link->options.hear(link->options.context, frame, tail);
    return link->up;
}

/* A tail is gathered always, or what it says would be missed: the pool is the link's own. */
static bool hear_skipped(void *context, const struct vmibus_frame *frame, int refusal, uint64_t received) {
    (void)frame;
    (void)refusal;
    (void)received;
    lose(context, LINK_SLOW);
    return false;
}

static void hear_violation(void *context, const struct vmibus_frame *frame, const struct frame_fault *fault) {
    (void)frame;
    (void)fault;
    lose(context, LINK_GARBLED);
}

static struct account *tell_account(void *context) {
    return ((struct link *)context)->account;
}

static const struct receiver_events receiver_events = {
    .frame = hear_frame,
    .skipped = hear_skipped,
    .violation = hear_violation,
    .account = tell_account,
};

void link_catch_up(struct link *link) {
    for (unsigned i = 0; link->up && i < CATCH_UP_READS; i++) {
        int r = receiver_read(&link->receiver, FRAMES_PER_READ, SIZE_MAX, &receiver_events, link);

        if (r == -EAGAIN || r == -ECANCELED)
            break;
        if (r < 0)
            lose(link, LINK_CLOSED);
        else if (!link->receiver.filled)
            break;
    }
    if (link->up)
        watch_progress(link);
}

void link_go_on(struct link *link) {
    (void)loop_source_modify(&link->source, EPOLLIN | (link->queue ? EPOLLOUT : 0u));
    watch_progress(link);
}

static void ready(struct loop_source *source, uint32_t events) {
    struct link *link = container_of(source, struct link, source);

    if (events & EPOLLOUT && !flush(link))
        return;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        link_catch_up(link);
}

/* --- coming and going -------------------------------------------------------------------------- */

size_t link_memory_needed(uint32_t tail_bound) {
    return receiver_pool_cost(tail_bound, 1, 1);
}

int link_init(struct link *link, const struct link_options *options) {
    static const uint64_t limits[N_RESOURCES] = {[RESOURCE_TAILS] = 1};
    int r;

    *link = (struct link){.options = *options, .fd = -1};
    loop_deferred_init(&link->ending, options->loop, link_ends);
    loop_timer_init(&link->deadline, options->loop, deadline_came);
    ledger_init(&link->ledger, limits);
    r = ledger_ref_account(&link->ledger, geteuid(), limits, &link->account);
    if (r == 0)
        r = receiver_pool_init(&link->pool, options->arena, options->tail_bound, 1, 1);
    if (r < 0)
        link_deinit(link);
    return r;
}

void link_deinit(struct link *link) {
    if (!link->options.loop)
        return;
    link_end(link);
    receiver_pool_deinit(&link->pool);
    account_unref(link->account);
    ledger_deinit(&link->ledger);
    *link = (struct link){.fd = -1};
}

int link_begin_consume_fd(struct link *link, int fd) {
    const int octets = SOCKET_OCTETS;
    int r;

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &octets, sizeof(octets)); /* as much as one may have */
    r = loop_source_init(&link->source, link->options.loop, fd, EPOLLIN, ready);
    if (r < 0) {
        fd_close(fd);
        return r;
    }
    link->fd = fd;
    link->up = true;
    link->synced = link->sent = 0;
    receiver_init(&link->receiver, &link->pool, fd);
    return 0;
}

void link_end(struct link *link) {
    if (link->fd < 0)
        return;
    link->up = false;
    loop_deferred_cancel(&link->ending);
    loop_timer_cancel(&link->deadline);
    loop_source_deinit(&link->source);
    receiver_deinit(&link->receiver);
    drop_queue(link);
    link->fd = fd_close(link->fd);
}
