/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/peer.h"

#include <errno.h>
#include <sys/socket.h>

#include <vmibus/syscalls.h>

#include "transport/compromised.h"
#include "transport/frame_check.h"
#include "transport/listener.h"
#include "transport/peer_state.h"
#include "transport/receiver.h"
#include "transport/sender.h"
#include "transport/session.h"
#include "util/clock.h"
#include "util/fds.h"
#include "util/refusal.h"

VMIBUS_SYSCALLS("sendto")

/* How long a peer that was told to go may take to read why. */
#define FAREWELL_MS 1000

/* Frames read at once while others wait: as many as fit a turn, which is learnt. Of a tail, so many octets for each. */
#define PACE_FIRST 4
#define PACE_MAXIMUM 64
#define PACE_TAIL 1024

static struct peer *peer_of(struct session *session) {
    return (struct peer *)(void *)((char *)session - offsetof(struct peer, space));
}

static struct session_home *home_of(const struct peer *peer) {
    return peer->listener->options.home;
}

struct peer *peer_free(struct peer *peer) {
    struct listener *listener = peer->listener;

    /* First, because what ends with it may still wake the peer. */
    if (peer->session)
        peer->session->ops->deinit(peer->session);
    list_unlink(&peer->waiting_link);
    loop_deferred_cancel(&peer->flush);
    turn_deinit(&peer->turn);
    loop_timer_cancel(&peer->deadline);
    loop_source_deinit(&peer->source);
    receiver_deinit(&peer->receiver);
    sender_deinit(&peer->sender);
    list_unlink(&peer->link);
    listener->n_peers--;
    charge_release(&peer->charge);
    account_unref(peer->account);
    fd_close(peer->fd);
    pool_give(&listener->peer_blocks, peer);
    return NULL;
}

void peer_free_all(struct listener *listener) {
    while (!list_is_empty(&listener->peers))
        peer_free(list_first(&listener->peers, struct peer, link));
}

/* --- what is waited for ------------------------------------------------------------------------ */

static bool may_read(const struct peer *peer) {
    if (peer->listener->paused && !(peer->session && peer->session->is_read_to_the_end))
        return false;
    return peer->state == PEER_HELLO || (peer->state == PEER_OPEN && peer->session->ops->room(peer->session) > 0);
}

void peer_wait_for(struct peer *peer, bool writable) {
    /* EPOLLHUP and EPOLLERR are always told. EPOLLRDHUP ends a peer that is not being read. */
    uint32_t events = (may_read(peer) ? EPOLLIN : 0) | EPOLLRDHUP | (writable ? EPOLLOUT : 0);

    peer->writable = writable;
    (void)loop_source_modify(&peer->source, events);
}

static void set_deadline(struct peer *peer, uint32_t ms) {
    if (loop_timer_set(&peer->deadline, clock_now() + ms * NS_PER_MS) < 0)
        loop_timer_cancel(&peer->deadline);
}

void peer_renew_deadline(struct peer *peer) {
    const struct listener_options *options = &peer->listener->options;

    if (peer->state != PEER_CLOSING && loop_timer_is_armed(&peer->deadline))
        set_deadline(peer, peer->state == PEER_OPEN ? options->half_frame_ms : options->hello_ms);
}

/* --- sending ----------------------------------------------------------------------------------- */

static bool take_from_session(void *context, struct control_item *item) {
    struct session *session = context;

    return session->ops->take(session, item);
}

/* False: the peer is gone. */
static bool peer_send(struct peer *peer) {
    int r;

    loop_deferred_cancel(&peer->flush);
    r = sender_flush(&peer->sender, take_from_session, peer->session);
    if (r == SENDER_MORE) {
        turn_exhaust(&peer->turn);
        loop_defer(&peer->flush);
    } else if (r == -EAGAIN) {
        peer_wait_for(peer, true);
    } else if (r < 0 || peer->state == PEER_CLOSING) {
        peer_free(peer);
        return false;
    } else {
        peer_wait_for(peer, false);
    }
    return true;
}

static void peer_flush(struct loop_deferred *deferred) {
    struct peer *peer = container_of(deferred, struct peer, flush);

    peer->ready |= EPOLLOUT;
    (void)turn_want(&peer->turn);
}

static void session_wakes(struct session *session) {
    loop_defer(&peer_of(session)->flush);
}

static void session_fails(struct session *session) {
    struct peer *peer = peer_of(session);

    peer->state = PEER_CLOSING;
    set_deadline(peer, FAREWELL_MS);
    loop_defer(&peer->flush);
}

static void session_reclaims(struct session *session) {
    sender_reclaim(&peer_of(session)->sender);
}

const struct session_owner peer_session_owner = {
    .wake = session_wakes,
    .fail = session_fails,
    .reclaim = session_reclaims,
};

/* Before there is a session there is no queue: one ERROR goes out as it is, and the peer with it. */
static void send_error(int fd, const struct frame_fault *fault, uint16_t offender) {
    const struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ERROR,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .delivery = 1,
                   .timestamp = clock_now()},
        .error = {.error = (uint16_t)fault->error,
                  .reason = (uint16_t)fault->reason,
                  .offender = offender,
                  .closing = 1,
                  .value = fault->value,
                  .bound = fault->bound},
    };

    (void)!send(fd, &frame, sizeof(frame), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* --- receiving --------------------------------------------------------------------------------- */

static void peer_violation(void *context, const struct vmibus_frame *frame, const struct frame_fault *fault) {
    struct peer *peer = context;
    uint16_t offender = frame ? frame->header.kind : 0;

    if (peer->session)
        peer->session->ops->fail(peer->session, fault, offender);
    else
        send_error(peer->fd, fault, offender);
}

void peer_begin_session(struct peer *peer, struct session *session) {
    peer->session = session;
    peer->state = PEER_OPEN;
    peer->receiver.gives_fds = session->gives_fds;
    loop_timer_cancel(&peer->deadline);
    loop_defer(&peer->flush);
}

/* The deadline of HELLO is also that of waiting. */
static bool peer_wait(struct peer *peer, const struct vmibus_frame *hello) {
    peer->hello = *hello;
    if (peer->state == PEER_HELLO)
        list_append(&peer->listener->waiting, &peer->waiting_link);
    peer->state = PEER_WAITING;
    return true;
}

/* False: the peer is to be freed. */
static bool peer_open(struct peer *peer, const struct vmibus_frame *hello) {
    struct session_home *home = home_of(peer);
    const struct session_request request = {
        .hello = hello,
        .principal = &peer->principal,
        .account = peer->account,
        .session = (struct session *)(void *)peer->space,
        .owner = &peer_session_owner,
    };
    struct frame_fault fault = {};

    if (frame_check_hello(hello, &fault) != FRAME_OK) {
        peer_violation(peer, hello, &fault);
        return false;
    }
    switch (home->ops->open(home, &request, &fault)) {
    case SESSION_OPEN:
        list_unlink(&peer->waiting_link);
        peer_begin_session(peer, request.session);
        return true;
    case SESSION_WAIT:
        return peer_wait(peer, hello);
    case SESSION_ELSEWHERE:
        loop_source_deinit(&peer->source);
        home->ops->take_consume_fd(home, &request, peer->fd);
        peer->fd = -1;
        return false;
    case SESSION_REFUSED:
        break;
    }
    peer_violation(peer, hello, &fault);
    return false;
}

void peer_hello_again(struct listener *listener) {
    struct peer *peer, *following;

    list_for_each_safe(peer, following, &listener->waiting, waiting_link) {
        const struct vmibus_frame hello = peer->hello;

        if (!peer_open(peer, &hello))
            peer_free(peer);
        else if (peer->state == PEER_OPEN)
            peer_wait_for(peer, false);
    }
}

static bool peer_frame(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds, uint64_t received) {
    struct peer *peer = context;

    if (peer->state == PEER_HELLO)
        return peer_open(peer, frame);
    if (compromised_obey(peer->fd, frame, tail))
        return true;
    if (frame->header.fd_count && !fds) {
        const struct frame_fault fault = {
            .error = VMIBUS_ERROR_VALIDATION, .reason = VMIBUS_REASON_BAD_FDS, .value = frame->header.fd_count};

        if (peer->session->gives_fds) {
            peer_violation(peer, frame, &fault);
            return false;
        }
    }
    peer->session->ops->submit(peer->session, frame, tail, fds, received);
    return peer->state == PEER_OPEN;
}

static bool peer_skipped(void *context, const struct vmibus_frame *frame, int refusal, uint64_t received) {
    struct peer *peer = context;
    struct vmibus_ack ack = {};

    if (peer->state == PEER_HELLO)
        return peer_open(peer, frame); /* HELLO has no tail, and nothing else comes first: it tells which */
    (void)refusal_of_charge(&ack, refusal, peer->account, RESOURCE_TAILS);
    peer->session->ops->refuse(peer->session, frame, received, &ack);
    return peer->state == PEER_OPEN;
}

static struct account *peer_account(void *context) {
    struct peer *peer = context;

    return peer->state == PEER_HELLO ? NULL : peer->account;
}

static const struct receiver_events receiver_events = {
    .frame = peer_frame,
    .skipped = peer_skipped,
    .violation = peer_violation,
    .account = peer_account,
};

/* How many frames can be taken with room for all their answers. */
static size_t frames_allowed(const struct peer *peer) {
    size_t n = peer->state == PEER_HELLO ? 1 : peer->session->ops->room(peer->session);

    return n > peer->pace && !turn_is_alone(&peer->turn) ? peer->pace : n;
}

static size_t octets_allowed(const struct peer *peer) {
    return turn_is_alone(&peer->turn) ? SIZE_MAX : (size_t)peer->pace * PACE_TAIL;
}

/* A turn is short, whatever a frame of this peer costs. */
static void adapt_pace(struct peer *peer, size_t n_frames) {
    uint64_t elapsed;

    /* Less came than would have been read: nothing is left, and nothing is learnt. */
    if (!peer->receiver.filled || n_frames < peer->pace || turn_is_alone(&peer->turn))
        return;
    elapsed = turn_elapsed(&peer->turn);
    turn_exhaust(&peer->turn);
    if (elapsed > TURN_NS / 2 && peer->pace > 1)
        peer->pace /= 2;
    else if (elapsed < TURN_NS / 4 && peer->pace < PACE_MAXIMUM)
        peer->pace *= 2;
}

/* Each frame has a deadline of its own: a busy stream may well be amidst one whenever it is read. */
static void watch_half_frame(struct peer *peer) {
    if (peer->state != PEER_OPEN)
        return;
    if (!receiver_is_halfway(&peer->receiver)) {
        loop_timer_cancel(&peer->deadline);
    } else if (!loop_timer_is_armed(&peer->deadline) || peer->halfway != peer->receiver.n_whole) {
        peer->halfway = peer->receiver.n_whole;
        set_deadline(peer, peer->listener->options.half_frame_ms);
    }
}

/* False: the peer is gone. */
static bool peer_read(struct peer *peer) {
    struct session_home *home = home_of(peer);
    size_t n_frames;
    int r;

    if (home->ops->before_reading) {
        home->ops->before_reading(home);
        if (!may_read(peer)) {
            peer_wait_for(peer, peer->source.events & EPOLLOUT);
            return true;
        }
    }
    n_frames = frames_allowed(peer);
    r = receiver_read(&peer->receiver, n_frames, octets_allowed(peer), &receiver_events, peer);

    if (r == -EAGAIN)
        return true;
    /* Told to go: a session sends why first, a peer without one has been told. */
    if (r == -ECANCELED && peer->state == PEER_CLOSING)
        return true;
    if (r < 0) {
        peer_free(peer);
        return false;
    }
    watch_half_frame(peer);
    adapt_pace(peer, n_frames);
    if (!may_read(peer))
        peer_wait_for(peer, peer->source.events & EPOLLOUT);
    return true;
}

/* What is answered at once is sent at once; of whoever asks for much, what is to be sent has a turn of its own. */
static void peer_work(struct turn *turn) {
    struct peer *peer = container_of(turn, struct peer, turn);
    uint32_t ready = peer->ready;

    peer->ready = 0;
    if (peer->source.events == 0)
        peer_wait_for(peer, peer->writable);
    if (ready & EPOLLOUT && (!peer_send(peer) || turn_is_over(&peer->turn)))
        return; /* what is to be read is told of again */
    /* What was sent before the end is still taken: reading then tells of the end. */
    if (ready & EPOLLIN && may_read(peer)) {
        if (!peer_read(peer))
            return;
    } else if (ready & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        peer_free(peer);
        return;
    }
    if (list_is_linked(&peer->flush.link) && !turn_is_over(&peer->turn))
        (void)peer_send(peer);
}

static void peer_ready(struct loop_source *source, uint32_t events) {
    struct peer *peer = container_of(source, struct peer, source);

    peer->ready |= events;
    /* Once it is in line there is nothing more to be told of it. */
    if (turn_want(&peer->turn))
        (void)loop_source_modify(source, 0);
}

static void peer_deadline(struct loop_timer *timer) {
    struct peer *peer = container_of(timer, struct peer, deadline);
    struct frame_fault fault = {.error = VMIBUS_ERROR_EXPIRED};

    /* It may have said what is waited for: nobody reads now. */
    if (peer->listener->paused && peer->state != PEER_CLOSING) {
        set_deadline(peer, peer->listener->options.hello_ms);
        return;
    }
    switch (peer->state) {
    case PEER_WAITING:
        fault.error = VMIBUS_ERROR_DENIED;
        fault.reason = VMIBUS_REASON_BAD_SESSION;
        peer_violation(peer, &peer->hello, &fault);
        peer_free(peer);
        break;
    case PEER_HELLO:
        fault.reason = VMIBUS_REASON_NO_HELLO;
        fault.bound = peer->listener->options.hello_ms;
        peer_violation(peer, NULL, &fault);
        peer_free(peer);
        break;
    case PEER_OPEN:
        fault.reason = VMIBUS_REASON_HALF_FRAME;
        fault.bound = peer->listener->options.half_frame_ms;
        peer_violation(peer, NULL, &fault);
        break;
    case PEER_CLOSING:
        peer_free(peer);
        break;
    }
}

/* --- coming ------------------------------------------------------------------------------------ */

/* Whom the home does not want is not let in at all; everyone else pays for the connection. False: @a fault tells why not. */
static bool admit(struct peer *peer, struct frame_fault *fault) {
    const struct listener_options *options = &peer->listener->options;
    struct session_home *home = options->home;
    struct vmibus_ack refusal = {};
    int r;

    if (!home->ops->admit(home, &peer->principal, fault))
        return false;
    r = ledger_ref_account(home->ledger, peer->principal.uid, home->ops->policy(home)->limits, &peer->account);
    if (r == 0)
        r = charge_take(&peer->charge, peer->account, RESOURCE_CONNECTIONS, 1);
    if (r > 0)
        (void)refusal_of_charge(&refusal, r, peer->account, RESOURCE_CONNECTIONS);
    else if (r < 0 || peer->listener->n_peers >= options->n_connections)
        (void)refusal_of_bound(&refusal, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_CONNECTIONS, options->n_connections,
                               peer->listener->n_peers, peer->principal.uid);
    *fault = (struct frame_fault){
        .error = (enum vmibus_error)refusal.error,
        .reason = (enum vmibus_reason)refusal.reason,
        .value = refusal.count,
        .bound = refusal.value,
    };
    return !refusal.error;
}

static void refuse(struct peer *peer, const struct frame_fault *fault) {
    ++*home_of(peer)->n_refused;
    send_error(peer->fd, fault, 0);
    charge_release(&peer->charge);
    account_unref(peer->account);
    fd_close(peer->fd);
    pool_give(&peer->listener->peer_blocks, peer);
}

size_t peer_size(size_t session_octets) {
    return sizeof(struct peer) + session_octets;
}

int peer_begin(struct peer *peer) {
    struct listener *listener = peer->listener;
    int r;

    list_append(&listener->peers, &peer->link);
    list_init(&peer->waiting_link);
    listener->n_peers++;
    loop_deferred_init(&peer->flush, listener->loop, peer_flush);
    loop_timer_init(&peer->deadline, listener->loop, peer_deadline);
    receiver_init(&peer->receiver, &listener->receivers, peer->fd);
    peer->pace = PACE_FIRST;
    r = turn_init(&peer->turn, &listener->turns, peer->principal.uid, peer_work);
    if (r == 0) {
        sender_init(&peer->sender, &listener->senders, peer->fd, peer->account);
        r = loop_source_init(&peer->source, listener->loop, peer->fd, EPOLLIN | EPOLLRDHUP, peer_ready);
    }
    if (r < 0)
        peer_free(peer);
    return r;
}

void peer_new_consume_fd(struct listener *listener, int fd) {
    struct peer *peer = pool_take(&listener->peer_blocks);
    struct frame_fault fault;
    int r;

    if (!peer) {
        fd_close(fd);
        return;
    }
    *peer = (struct peer){.listener = listener, .fd = fd};
    r = principal_from_socket(&peer->principal, fd);
    if (r < 0) {
        fd_close(fd);
        pool_give(&listener->peer_blocks, peer);
        return;
    }
    if (!admit(peer, &fault)) {
        refuse(peer, &fault);
        return;
    }
    if (peer_begin(peer) == 0)
        set_deadline(peer, listener->options.hello_ms);
}
