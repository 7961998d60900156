/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/handover_stream.h"

#include <errno.h>
#include <string.h>

#include "transport/frame_check.h"
#include "transport/receiver.h"
#include "util/fds.h"

/* Never reused. */
enum {
    RECEIVER_PARTIAL = 1,
    RECEIVER_WHOLE = 2,
    RECEIVER_FRAME = 3,
    RECEIVER_TAIL = 4,
    RECEIVER_N_TAIL = 5,
    RECEIVER_REFUSAL = 6,
    RECEIVER_FD = 7, /* in their order */
};

void receiver_handover_save(struct handover_writer *writer, uint16_t tag, const struct receiver *receiver) {
    handover_begin(writer, tag);
    if (receiver->n_partial)
        handover_put(writer, RECEIVER_PARTIAL, receiver->partial, receiver->n_partial);
    handover_put_number(writer, RECEIVER_WHOLE, receiver->n_whole);
    if (receiver->in_tail) {
        handover_put(writer, RECEIVER_FRAME, &receiver->frame, sizeof(receiver->frame));
        handover_put_number(writer, RECEIVER_N_TAIL, receiver->n_tail);
        if (receiver->tail)
            handover_put(writer, RECEIVER_TAIL, receiver->tail, receiver->n_tail);
        else
            handover_put_number(writer, RECEIVER_REFUSAL, (uint64_t)receiver->refusal);
    }
    for (size_t i = 0; i < receiver->n_fds; i++)
        handover_put_fd(writer, RECEIVER_FD, receiver->fds[i]);
    handover_end(writer);
}

/* As take_fds() of receiver.c: a queue whose order is that of the frames. */
static void take_fd(struct receiver *receiver, const struct handover_record *record, struct account *account) {
    int fd = handover_take_fd(record), r = 0;

    if (fd < 0)
        return;
    if (!receiver->gives_fds || receiver->n_fds == VMIBUS_FDS_PER_FRAME)
        r = -EBADMSG;
    if (r == 0 && !receiver->fds_charge.account)
        r = charge_take(&receiver->fds_charge, account, RESOURCE_FDS, 0);
    if (r == 0)
        r = charge_raise(&receiver->fds_charge, 1);
    if (r == 0) {
        receiver->fds[receiver->n_fds++] = fd;
        return;
    }
    fd_close(fd);
    handover_wrong(record->handover, r < 0 ? r : -ENOBUFS);
}

/* What is read of it besides what goes where it belongs at once. */
struct rest {
    struct handover_record tail, frame;
    uint64_t n_tail, refusal;
};

static void take_member(struct receiver *receiver, const struct handover_record *member, struct rest *rest,
                        struct account *account) {
    switch (member->tag) {
    case RECEIVER_PARTIAL:
        if (member->length >= sizeof(receiver->partial)) {
            handover_wrong(member->handover, -EBADMSG);
            return;
        }
        memcpy(receiver->partial, member->octets, member->length);
        receiver->n_partial = member->length;
        break;
    case RECEIVER_WHOLE:
        receiver->n_whole = handover_number(member);
        break;
    case RECEIVER_FRAME:
        rest->frame = *member;
        break;
    case RECEIVER_TAIL:
        rest->tail = *member;
        break;
    case RECEIVER_N_TAIL:
        rest->n_tail = handover_number(member);
        break;
    case RECEIVER_REFUSAL:
        rest->refusal = handover_number_below(member, CHARGE_PRESSURE);
        break;
    case RECEIVER_FD:
        take_fd(receiver, member, account);
        break;
    default:
        break;
    }
}

void receiver_handover_restore(struct receiver *receiver, const struct handover_record *record, bool may_have_tail,
                               struct account *account) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct vmibus_frame whose;
    struct frame_fault fault;
    struct rest rest = {};

    while (handover_next(&records, &member))
        take_member(receiver, &member, &rest, account);
    if (!rest.frame.octets || record->handover->error)
        return;
    handover_copy(&rest.frame, &whose, sizeof(whose));
    if (!may_have_tail || receiver->n_partial ||
        frame_check_framing(&whose, receiver->pool->tail_bound, &fault) != FRAME_OK ||
        rest.n_tail >= whose.header.tail_length || (!rest.refusal && rest.tail.length != rest.n_tail))
        handover_wrong(record->handover, -EBADMSG);
    else
        receiver_take_over_tail(receiver, &whose, rest.tail.octets, rest.n_tail, (int)rest.refusal, account);
}
