/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/handover.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <vmibus/syscalls.h>

#include "bus/handover.h"
#include "transport/handover_stream.h"
#include "transport/listener.h"
#include "transport/peer_state.h"
#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("getsockopt")

/* --- the format -------------------------------------------------------------------------------- */

/* Of each record its own numbers, never reused. */
enum {
    LISTENER_SOCKET = 1,
    LISTENER_PEER = 2,
};

enum {
    PEER_SOCKET = 1,
    PEER_PRINCIPAL = 2,
    PEER_SESSION = 3,
    PEER_RECEIVER = 4,
    PEER_SENDER = 5,
    PEER_DEADLINE = 6,
    PEER_HALFWAY = 7,
    PEER_HELLO_WAITS = 8, /* of one whose HELLO names what is not known yet */
};

enum {
    SENDER_OCTETS = 1,
    SENDER_ITEM = 2,
    SENDER_FRAMED = 3,
    SENDER_TAIL_SENT = 4,
    SENDER_IN_FLIGHT = 5,
};

static const struct handover_member principal_members[] = {
    HANDOVER_MEMBER(1, struct principal, uid),           HANDOVER_MEMBER(2, struct principal, gid),
    HANDOVER_MEMBER(3, struct principal, pid),           HANDOVER_MEMBER(4, struct principal, is_privileged),
    HANDOVER_MEMBER(5, struct principal, n_others),      HANDOVER_MEMBER(6, struct principal, others),
    HANDOVER_MEMBER(7, struct principal, n_groups),      HANDOVER_MEMBER(8, struct principal, groups),
};

/* --- written ----------------------------------------------------------------------------------- */

static void put_sender(struct handover_writer *writer, const struct sender *sender) {
    handover_begin(writer, PEER_SENDER);
    if (sender->end > sender->begin)
        handover_put(writer, SENDER_OCTETS, sender->buffer + sender->begin, sender->end - sender->begin);
    if (sender->has_item) {
        handover_begin(writer, SENDER_ITEM);
        control_item_handover_save(writer, &sender->item);
        handover_end(writer);
        handover_put_number(writer, SENDER_FRAMED, sender->item_is_framed);
        handover_put_number(writer, SENDER_TAIL_SENT, sender->tail_sent);
    }
    handover_put_number(writer, SENDER_IN_FLIGHT, sender->in_flight.amount);
    handover_end(writer);
}

static void put_peer(struct handover_writer *writer, const struct peer *peer) {
    struct session_home *home = peer->listener->options.home;

    handover_begin(writer, LISTENER_PEER);
    handover_put_fd(writer, PEER_SOCKET, peer->fd);
    handover_begin(writer, PEER_PRINCIPAL);
    handover_put_members(writer, principal_members, HANDOVER_N(principal_members), &peer->principal);
    handover_end(writer);
    receiver_handover_save(writer, PEER_RECEIVER, &peer->receiver);
    put_sender(writer, &peer->sender);
    if (loop_timer_is_armed(&peer->deadline))
        handover_put_number(writer, PEER_DEADLINE, peer->deadline.deadline);
    handover_put_number(writer, PEER_HALFWAY, peer->halfway);
    if (peer->state == PEER_WAITING)
        handover_put(writer, PEER_HELLO_WAITS, &peer->hello, sizeof(peer->hello));
    if (peer->session) {
        handover_begin(writer, PEER_SESSION);
        home->ops->save(home, peer->session, writer);
        handover_end(writer);
    }
    handover_end(writer);
}

/* What is written afterwards knows nothing of them any more. */
void listener_handover_end_others(struct listener *listener) {
    struct session_home *home = listener->options.home;
    struct peer *peer, *following;

    list_for_each_safe(peer, following, &listener->peers, link)
        if (peer->state == PEER_CLOSING || (peer->session && !(home->ops->keeps && home->ops->keeps(home, peer->session))))
            peer_free(peer);
}

void listener_handover_save(struct listener *listener, struct handover_writer *writer, bool with_socket) {
    const struct peer *peer;

    if (with_socket)
        handover_put_fd(writer, LISTENER_SOCKET, listener->fd);
    list_for_each(peer, &listener->peers, link)
        put_peer(writer, peer);
}

/* --- read -------------------------------------------------------------------------------------- */

int listener_handover_take_socket(struct handover_records records) {
    socklen_t length = sizeof(int);
    struct handover_record record;
    int fd, listens = 0;

    if (!handover_find(records, LISTENER_SOCKET, &record))
        return -1;
    fd = handover_take_fd(&record);
    if (fd >= 0 && (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) < 0 || !listens)) {
        handover_wrong(records.handover, -EBADMSG);
        fd = fd_close(fd);
    }
    return fd;
}

/* As the kernel said when it was accepted; what the kernel still says must not contradict it. */
static bool take_principal(struct peer *peer, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct principal *principal = &peer->principal;
    struct handover_record member;
    struct principal now;

    while (handover_next(&records, &member))
        (void)handover_take_member(&member, principal_members, HANDOVER_N(principal_members), principal);
    if (record->handover->error)
        return false;
    if (principal->n_groups > PRINCIPAL_GROUPS || principal->n_others > sizeof(principal->others) / sizeof(principal->others[0]) ||
        principal_from_socket(&now, peer->fd) < 0 || now.uid != principal->uid || now.gid != principal->gid)
        return handover_wrong(record->handover, -EBADMSG);
    return true;
}

static void take_item(struct peer *peer, const struct handover_record *record) {
    struct sender *sender = &peer->sender;

    if (sender->has_item || !peer->session || !peer->session->ops->restore_item)
        handover_wrong(record->handover, -EBADMSG);
    else
        sender->has_item = peer->session->ops->restore_item(peer->session, &sender->item, handover_in(record));
}

static bool sender_is_sound(const struct sender *sender) {
    size_t tail_length = sender->item.tail ? sender->item.tail->length : 0;

    if (!sender->has_item)
        return !sender->item_is_framed && !sender->tail_sent;
    return sender->tail_sent <= tail_length && (sender->item_is_framed || !sender->tail_sent);
}

static void take_sender(struct peer *peer, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct sender *sender = &peer->sender;
    struct handover_record member;

    while (handover_next(&records, &member))
        switch (member.tag) {
        case SENDER_OCTETS:
            if (!sender->buffer)
                sender->buffer = pool_take(sender->buffers);
            if (!sender->buffer || member.length > SENDER_BUFFER) {
                handover_wrong(record->handover, sender->buffer ? -EBADMSG : -ENOBUFS);
                return;
            }
            memcpy(sender->buffer, member.octets, member.length);
            sender->end = member.length;
            break;
        case SENDER_ITEM:
            take_item(peer, &member);
            break;
        case SENDER_FRAMED:
            sender->item_is_framed = handover_number(&member);
            break;
        case SENDER_TAIL_SENT:
            sender->tail_sent = handover_number(&member);
            break;
        case SENDER_IN_FLIGHT:
            /* Whoever has read them by now is seen by the next reclaim; what cannot be paid for any more is not held against it. */
            (void)charge_raise(&sender->in_flight, handover_number_below(&member, HANDOVER_FDS_MAX));
            break;
        default:
            break;
        }
    if (!record->handover->error && !sender_is_sound(sender))
        handover_wrong(record->handover, -EBADMSG);
}

static int pay_for(struct peer *peer) {
    const struct session_home *home = peer->listener->options.home;
    int r = ledger_ref_account(home->ledger, peer->principal.uid, home->ops->policy(home)->limits, &peer->account);

    if (r == 0)
        r = charge_take(&peer->charge, peer->account, RESOURCE_CONNECTIONS, 1);
    if (r == 0 && peer->listener->n_peers >= peer->listener->options.n_connections)
        r = CHARGE_PRESSURE;
    return r > 0 ? -ENOBUFS : r;
}

static bool take_session(struct peer *peer, const struct handover_record *record) {
    struct session_home *home = peer->listener->options.home;
    const struct session_request request = {
        .principal = &peer->principal,
        .account = peer->account,
        .session = (struct session *)(void *)peer->space,
        .owner = &peer_session_owner,
    };

    if (!home->ops->take_over)
        return handover_wrong(record->handover, -EBADMSG);
    if (!home->ops->take_over(home, &request, handover_in(record)))
        return false;
    peer_begin_session(peer, request.session);
    return true;
}

static void take_hello(struct peer *peer, const struct handover_record *record) {
    struct frame_fault fault;

    handover_copy(record, &peer->hello, sizeof(peer->hello));
    if (peer->session || peer->state != PEER_HELLO || frame_check_hello(&peer->hello, &fault) != FRAME_OK) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    peer->state = PEER_WAITING;
    list_append(&peer->listener->waiting, &peer->waiting_link);
}

/* The rest of a peer that is among the listener's already, so that closing it undoes everything. */
static void take_rest(struct peer *peer, struct handover_records records) {
    struct handover_records again = records;
    struct handover_record record;

    if (handover_find(records, PEER_SESSION, &record) && !take_session(peer, &record))
        return;
    while (handover_next(&again, &record))
        switch (record.tag) {
        case PEER_RECEIVER:
            receiver_handover_restore(&peer->receiver, &record, peer->session, peer->account);
            break;
        case PEER_SENDER:
            take_sender(peer, &record);
            break;
        case PEER_DEADLINE:
            (void)loop_timer_set(&peer->deadline, handover_number(&record));
            break;
        case PEER_HALFWAY:
            peer->halfway = handover_number(&record);
            break;
        case PEER_HELLO_WAITS:
            take_hello(peer, &record);
            break;
        default:
            break;
        }
}

/* The socket and whose it is. NULL: something was wrong. */
static struct peer *peer_from(struct listener *listener, const struct handover_record *record) {
    struct peer *peer = pool_take(&listener->peer_blocks);
    struct handover_record member;

    if (!peer) {
        handover_wrong(record->handover, -ENOBUFS);
        return NULL;
    }
    *peer = (struct peer){.listener = listener, .fd = -1, .state = PEER_HELLO};
    if (handover_find(handover_in(record), PEER_SOCKET, &member))
        peer->fd = handover_take_fd(&member);
    if (peer->fd < 0 || !handover_find(handover_in(record), PEER_PRINCIPAL, &member))
        handover_wrong(record->handover, -EBADMSG);
    else
        (void)take_principal(peer, &member);
    if (!record->handover->error) {
        int r = pay_for(peer);

        if (r < 0)
            handover_wrong(record->handover, r);
    }
    if (!record->handover->error)
        return peer;
    charge_release(&peer->charge);
    account_unref(peer->account);
    fd_close(peer->fd);
    pool_give(&listener->peer_blocks, peer);
    return NULL;
}

bool listener_handover_restore(struct listener *listener, struct handover_records records) {
    struct handover_record record;

    while (handover_next(&records, &record)) {
        struct peer *peer = record.tag == LISTENER_PEER ? peer_from(listener, &record) : NULL;

        if (!peer)
            continue;
        if (peer_begin(peer) < 0)
            handover_wrong(record.handover, -ENOBUFS);
        else
            take_rest(peer, handover_in(&record));
    }
    listener_hello_again(listener);
    return !records.handover->error;
}
