/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/receiver.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fault.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("recvmsg")

/* What a read yields that is to be cut short: less than a frame. */
#define CUT_READ 60u

int receiver_pool_init(struct receiver_pool *pool, struct arena *arena, uint32_t tail_bound, size_t n_small, size_t n_large) {
    int r;

    *pool = (struct receiver_pool){.tail_bound = tail_bound};
    r = pool_init(&pool->areas, arena, RECEIVER_AREA, 1);
    if (r == 0)
        r = pool_init(&pool->small, arena, RECEIVER_SMALL_TAIL, n_small);
    if (r == 0)
        r = pool_init(&pool->large, arena, tail_bound, n_large);
    if (r == 0)
        r = tails_new(&pool->keepable, arena, tail_bound, n_large);
    if (r < 0)
        receiver_pool_deinit(pool);
    else
        pool->area = pool_take(&pool->areas);
    return r;
}

size_t receiver_pool_cost(uint32_t tail_bound, size_t n_small, size_t n_large) {
    return arena_cost(RECEIVER_AREA, 1) + arena_cost(RECEIVER_SMALL_TAIL, n_small) + 2 * arena_cost(tail_bound, n_large);
}

void receiver_pool_deinit(struct receiver_pool *pool) {
    pool_deinit(&pool->small);
    pool_deinit(&pool->large);
    pool->keepable = tails_free(pool->keepable);
    if (pool->area)
        pool_give(&pool->areas, pool->area);
    pool->area = NULL;
    pool_deinit(&pool->areas);
}

void receiver_init(struct receiver *receiver, struct receiver_pool *pool, int fd) {
    *receiver = (struct receiver){.pool = pool, .fd = fd};
}

static void tail_give(struct receiver *receiver) {
    if (receiver->tail && receiver->tail_is_keepable)
        tails_give(receiver->pool->keepable, receiver->tail);
    else if (receiver->tail)
        pool_give(receiver->tail_is_large ? &receiver->pool->large : &receiver->pool->small, receiver->tail);
    receiver->tail = NULL;
    charge_release(&receiver->charge);
}

void receiver_deinit(struct receiver *receiver) {
    tail_give(receiver);
    fds_close(receiver->fds, receiver->n_fds);
    receiver->n_fds = 0;
    charge_release(&receiver->fds_charge);
}

/* --- descriptors ------------------------------------------------------------------------------- */

/* Those of one frame, taken out of the queue: a callback may end the receiver. */
struct claimed {
    int fds[VMIBUS_FDS_PER_FRAME];
    uint8_t n_fds;
};

static void claim(struct receiver *receiver, const struct vmibus_frame *frame, struct claimed *claimed) {
    uint8_t n = frame->header.fd_count < receiver->n_fds ? frame->header.fd_count : receiver->n_fds;

    claimed->n_fds = n;
    if (n == 0)
        return;
    memcpy(claimed->fds, receiver->fds, n * sizeof(int));
    receiver->n_fds -= n;
    memmove(receiver->fds, receiver->fds + n, receiver->n_fds * sizeof(int));
    charge_lower(&receiver->fds_charge, n);
}

static bool hand_on(struct receiver *receiver, const struct vmibus_frame *frame, const void *tail, uint64_t received,
                    const struct receiver_events *events, void *context) {
    struct claimed claimed;
    bool more;

    claim(receiver, frame, &claimed);
    /* Fewer than announced are none: whoever looks at them goes by the header. */
    more = events->frame(context, frame, tail, claimed.n_fds && claimed.n_fds == frame->header.fd_count ? claimed.fds : NULL,
                         received);
    fds_close(claimed.fds, claimed.n_fds);
    return more;
}

/* What a message brought goes to the end of the queue. False: more than there is room for, or than its account has. */
static bool take_fds(struct receiver *receiver, const struct msghdr *message, struct account *account) {
    bool good = !(message->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control;
         control = CMSG_NXTHDR((struct msghdr *)message, control)) {
        size_t n = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(control) + i * sizeof(fd), sizeof(fd));
            if (good && !receiver->fds_charge.account)
                good = account && charge_take(&receiver->fds_charge, account, RESOURCE_FDS, 0) == 0;
            good = good && receiver->n_fds < VMIBUS_FDS_PER_FRAME && charge_raise(&receiver->fds_charge, 1) == 0;
            if (good)
                receiver->fds[receiver->n_fds++] = fd;
            else
                fd_close(fd);
        }
    }
    return good;
}

/* --- tails ------------------------------------------------------------------------------------- */

bool receiver_is_halfway(const struct receiver *receiver) {
    return receiver->n_partial > 0 || receiver->in_tail;
}

static void buffer_take(struct receiver *receiver) {
    struct receiver_pool *pool = receiver->pool;

    receiver->tail = receiver->tail_is_large ? tails_take(pool->keepable) : NULL;
    receiver->tail_is_keepable = receiver->tail;
    if (!receiver->tail)
        receiver->tail = pool_take(receiver->tail_is_large ? &pool->large : &pool->small);
}

/* Finds a buffer for the tail of receiver->frame, or notes why there is none. */
static void tail_take(struct receiver *receiver, struct account *account) {
    receiver->tail_is_large = receiver->frame.header.tail_length > RECEIVER_SMALL_TAIL;
    receiver->refusal = 0;
    if (!account) {
        receiver->refusal = CHARGE_QUOTA;
        return;
    }
    if (receiver->tail_is_large)
        receiver->refusal = charge_take(&receiver->charge, account, RESOURCE_TAILS, 1);
    if (receiver->refusal)
        return;
    if (fault_hit(FAULT_ALLOCATION) == 0)
        buffer_take(receiver);
    if (!receiver->tail) {
        receiver->refusal = CHARGE_PRESSURE;
        charge_release(&receiver->charge);
    }
}

void receiver_take_over_tail(struct receiver *receiver, const struct vmibus_frame *frame, const uint8_t *octets, size_t n_tail,
                             int refusal, struct account *account) {
    receiver->frame = *frame;
    receiver->in_tail = true;
    receiver->n_tail = n_tail;
    receiver->refusal = refusal;
    if (refusal)
        return;
    tail_take(receiver, account);
    if (receiver->tail && n_tail)
        memcpy(receiver->tail, octets, n_tail);
}

/* The tail is whole, or past. */
static bool tail_end(struct receiver *receiver, uint64_t received, const struct receiver_events *events, void *context) {
    struct vmibus_frame frame = receiver->frame;
    struct receiver taken = *receiver;
    struct claimed unused;
    bool more;

    /* The buffer is detached meanwhile: a callback may end the receiver. */
    receiver->n_whole++;
    receiver->in_tail = false;
    receiver->tail = NULL;
    receiver->charge = (struct charge){};
    if (taken.tail) {
        if (taken.tail_is_keepable)
            tails_offer(taken.pool->keepable, taken.tail);
        more = hand_on(receiver, &frame, taken.tail, received, events, context);
        if (taken.tail_is_keepable && tails_withdraw())
            taken.tail = NULL;
    } else {
        claim(receiver, &frame, &unused);
        fds_close(unused.fds, unused.n_fds);
        more = events->skipped(context, &frame, taken.refusal, received);
    }
    tail_give(&taken);
    return more;
}

/* Consumes octets of a tail. Returns how many. */
static size_t tail_feed(struct receiver *receiver, const uint8_t *data, size_t length) {
    size_t missing = receiver->frame.header.tail_length - receiver->n_tail;
    size_t n = length < missing ? length : missing;

    if (receiver->tail)
        memcpy(receiver->tail + receiver->n_tail, data, n);
    receiver->n_tail += n;
    return n;
}

/* A frame stands alone; its tail, if any, begins at @a data. Returns octets of the tail consumed, or negative to stop. */
static ssize_t frame_feed(struct receiver *receiver, const struct vmibus_frame *frame, const uint8_t *data, size_t length,
                          uint64_t received, const struct receiver_events *events, void *context) {
    uint32_t tail_length = frame->header.tail_length;
    struct frame_fault fault;

    if (frame_check_framing(frame, receiver->pool->tail_bound, &fault) != FRAME_OK) {
        events->violation(context, frame, &fault);
        return -ECANCELED;
    }
    if (tail_length <= length) {
        receiver->n_whole++;
        return hand_on(receiver, frame, tail_length ? data : NULL, received, events, context) ? (ssize_t)tail_length : -ECANCELED;
    }
    receiver->frame = *frame;
    receiver->in_tail = true;
    receiver->n_tail = 0;
    tail_take(receiver, events->account(context));
    return (ssize_t)tail_feed(receiver, data, length);
}

static int feed(struct receiver *receiver, const uint8_t *data, size_t length, uint64_t received,
                const struct receiver_events *events, void *context) {
    while (length > 0 || (receiver->in_tail && receiver->n_tail == receiver->frame.header.tail_length)) {
        struct vmibus_frame frame;
        size_t missing;
        ssize_t n;

        if (receiver->in_tail) {
            n = (ssize_t)tail_feed(receiver, data, length);
            data += n;
            length -= (size_t)n;
            if (receiver->n_tail < receiver->frame.header.tail_length)
                break;
            if (!tail_end(receiver, received, events, context))
                return -ECANCELED;
            continue;
        }
        missing = VMIBUS_FRAME_SIZE - receiver->n_partial;
        if (length < missing) {
            memcpy(receiver->partial + receiver->n_partial, data, length);
            receiver->n_partial += length;
            break;
        }
        memcpy(&frame, receiver->partial, receiver->n_partial);
        memcpy((uint8_t *)&frame + receiver->n_partial, data, missing);
        receiver->n_partial = 0;
        data += missing;
        length -= missing;
        n = frame_feed(receiver, &frame, data, length, received, events, context);
        if (n < 0)
            return (int)n;
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

/* Where a read goes: into the tail that is being gathered, then into the area. No frame follows a tail that is taken in parts. */
struct aim {
    struct iovec pieces[2];
    struct msghdr message;
    size_t missing;     /* octets of the tail */
    size_t asked;       /* octets in all */
    bool gathering;
};

static void take_aim(struct aim *aim, const struct receiver *receiver, size_t n_frames, size_t n_octets) {
    size_t room = n_frames * VMIBUS_FRAME_SIZE < RECEIVER_AREA ? n_frames * VMIBUS_FRAME_SIZE : RECEIVER_AREA;
    struct iovec *pieces = aim->pieces;
    size_t of_tail;

    aim->gathering = receiver->in_tail && receiver->tail;
    aim->missing = aim->gathering ? receiver->frame.header.tail_length - receiver->n_tail : 0;
    of_tail = aim->missing < n_octets ? aim->missing : n_octets;
    if (of_tail < aim->missing)
        room = 0;
    aim->message = (struct msghdr){.msg_iov = pieces};
    if (aim->gathering)
        pieces[aim->message.msg_iovlen++] = (struct iovec){receiver->tail + receiver->n_tail, of_tail};
    if (room)
        pieces[aim->message.msg_iovlen++] = (struct iovec){receiver->pool->area, room};
    aim->asked = of_tail + room;
}

int receiver_read(struct receiver *receiver, size_t n_frames, size_t n_octets, const struct receiver_events *events,
                  void *context) {
    int injected = fault_hit(FAULT_SOCKET_RECEIVE);
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(VMIBUS_FDS_PER_FRAME * sizeof(int))];
    } control;
    struct aim aim;
    uint64_t received;
    size_t in_place;
    bool good;
    ssize_t n;

    if (injected < 0 && injected != -EAGAIN)
        return injected;
    take_aim(&aim, receiver, n_frames, n_octets);
    if (injected == -EAGAIN) {
        aim.message.msg_iovlen = 1;
        if (aim.pieces->iov_len > CUT_READ)
            aim.pieces->iov_len = CUT_READ;
    }
    if (receiver->gives_fds) {
        aim.message.msg_control = &control;
        aim.message.msg_controllen = sizeof(control);
    }
    n = recvmsg(receiver->fd, &aim.message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    good = receiver->gives_fds ? take_fds(receiver, &aim.message, events->account(context)) : !(aim.message.msg_flags & MSG_CTRUNC);
    if (n == 0)
        return -ECONNRESET;
    received = clock_now();
    receiver->filled = (size_t)n == aim.asked;
    if (!good) {
        /* With no room for them the kernel, or take_fds(), has closed whatever descriptors were sent. */
        const struct frame_fault fault = {.error = VMIBUS_ERROR_VALIDATION, .reason = VMIBUS_REASON_BAD_FDS, .value = 1};

        events->violation(context, NULL, &fault);
        return -ECANCELED;
    }
    in_place = (size_t)n < aim.missing ? (size_t)n : aim.missing;
    receiver->n_tail += in_place;
    return feed(receiver, receiver->pool->area, (size_t)n - in_place, received, events, context);
}
