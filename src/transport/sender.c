/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/sender.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <vmibus/syscalls.h>

#include "util/fault.h"

VMIBUS_SYSCALLS("ioctl sendmsg sendto")

void sender_init(struct sender *sender, struct pool *buffers, int fd, struct account *account) {
    *sender = (struct sender){.buffers = buffers, .fd = fd};
    (void)charge_take(&sender->in_flight, account, RESOURCE_FDS, 0); /* nothing is always had */
    charge_set_away(&sender->in_flight);
}

/* The buffer goes to whoever sends next, while it is still in the cache. */
static void buffer_give(struct sender *sender) {
    if (sender->buffer)
        pool_give(sender->buffers, sender->buffer);
    sender->buffer = NULL;
    sender->begin = sender->end = 0;
}

void sender_deinit(struct sender *sender) {
    if (sender->has_item)
        control_item_deinit(&sender->item);
    buffer_give(sender);
    charge_release(&sender->in_flight);
    *sender = (struct sender){};
}

void sender_reclaim(struct sender *sender) {
    int unread;

    if (sender->in_flight.amount && ioctl(sender->fd, SIOCOUTQ, &unread) == 0 && unread == 0)
        charge_lower(&sender->in_flight, sender->in_flight.amount);
}

static size_t room(const struct sender *sender) {
    return SENDER_BUFFER - sender->end;
}

static void put(struct sender *sender, const void *data, size_t length) {
    memcpy(sender->buffer + sender->end, data, length);
    sender->end += length;
}

/* Puts the item into the buffer, wholly or (a long tail) only its frame. False: there is no room. */
static bool put_item(struct sender *sender) {
    struct control_item *item = &sender->item;
    size_t tail_length = item->tail ? item->tail->length : 0;

    if (item->fds && sender->end > sender->begin)
        return false;
    if (room(sender) < sizeof(item->frame))
        return false;
    if (!item->fds && tail_length <= room(sender) - sizeof(item->frame)) {
        put(sender, &item->frame, sizeof(item->frame));
        sender->has_item = false;
        if (!item->tail)
            return true; /* nearly always, and there is nothing to release */
        put(sender, item->tail->data, tail_length);
        control_item_deinit(item);
        return true;
    }
    if (sender->end > sender->begin && !item->fds && tail_length <= SENDER_BUFFER - sizeof(item->frame))
        return false; /* it fits once the buffer is empty */
    put(sender, &item->frame, sizeof(item->frame));
    sender->item_is_framed = true;
    sender->tail_sent = 0;
    return true;
}

/* Fills the buffer with what waits. True: nothing more does. */
static bool fill(struct sender *sender, sender_take_fn take, void *context) {
    if (sender->begin == sender->end)
        sender->begin = sender->end = 0;
    while (!sender->item_is_framed) {
        if (!sender->has_item && room(sender) < VMIBUS_FRAME_SIZE)
            return false;
        if (!sender->has_item)
            sender->has_item = take(context, &sender->item);
        if (!sender->has_item)
            return true;
        if (!put_item(sender))
            return false;
    }
    return false;
}

/* Adds the item's descriptors to a message that begins with its frame. */
static void attach_fds(const struct event_fds *fds, struct msghdr *message, void *control, size_t size) {
    struct cmsghdr *header;

    memset(control, 0, size);
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(fds->n_fds * sizeof(int));
    header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds->n_fds * sizeof(int));
    memcpy(CMSG_DATA(header), fds->fds, fds->n_fds * sizeof(int));
}

/* The descriptors are the kernel's now; the charge stays until the peer has read them. */
static void fds_sent(struct sender *sender) {
    uint64_t n = sender->item.fds->n_fds;

    sender->item.fds = event_fds_free(sender->item.fds);
    (void)charge_raise(&sender->in_flight, n);
}

static void advance(struct sender *sender, size_t sent) {
    size_t of_buffer = sender->end - sender->begin < sent ? sender->end - sender->begin : sent;

    sender->n_sent += sent;
    sender->begin += of_buffer;
    if (!sender->item_is_framed)
        return;
    sender->tail_sent += sent - of_buffer;
    if (sender->begin == sender->end && sender->tail_sent == (sender->item.tail ? sender->item.tail->length : 0)) {
        control_item_deinit(&sender->item);
        sender->has_item = sender->item_is_framed = false;
    }
}

/* What a full socket would take: the first half of what is to be sent. */
static void cut(struct msghdr *message) {
    struct iovec *first = message->msg_iov;

    if (first->iov_len == 0 && message->msg_iovlen > 1)
        first = ++message->msg_iov;
    first->iov_len = (first->iov_len + 1) / 2;
    message->msg_iovlen = 1;
}

static int send_once(struct sender *sender) {
    struct iovec pieces[2] = {{.iov_base = sender->buffer + sender->begin, .iov_len = sender->end - sender->begin}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 1};
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(VMIBUS_FDS_PER_FRAME * sizeof(int))];
    } control;
    int injected = fault_hit(FAULT_SOCKET_SEND);
    ssize_t n;

    if (injected < 0 && injected != -EAGAIN)
        return injected;
    if (sender->item_is_framed && sender->item.tail) {
        pieces[1] = (struct iovec){.iov_base = sender->item.tail->data + sender->tail_sent,
                                   .iov_len = sender->item.tail->length - sender->tail_sent};
        message.msg_iovlen = 2;
    }
    if (injected == -EAGAIN)
        cut(&message);
    if (sender->item_is_framed && sender->item.fds) {
        if (fault_hit(FAULT_FD_PASSING) < 0)
            return -ETOOMANYREFS;
        attach_fds(sender->item.fds, &message, &control, sizeof(control));
    }
    if (message.msg_iovlen == 1 && !message.msg_control) /* nearly always, and it costs less */
        n = send(sender->fd, message.msg_iov->iov_base, message.msg_iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        n = sendmsg(sender->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return -errno;
    if (sender->item_is_framed && sender->item.fds)
        fds_sent(sender);
    advance(sender, (size_t)n);
    return injected;
}

static bool is_empty(const struct sender *sender) {
    return sender->begin == sender->end && !sender->item_is_framed;
}

int sender_flush(struct sender *sender, sender_take_fn take, void *context) {
    uint64_t enough = sender->n_sent + SENDER_BUFFER;

    if (!sender->buffer)
        sender->buffer = pool_take(sender->buffers);
    if (!sender->buffer)
        return -ENOBUFS;
    do {
        bool is_last = fill(sender, take, context);
        int r = is_empty(sender) ? 0 : send_once(sender);

        if (r < 0)
            return r;
        if (is_last && is_empty(sender)) {
            buffer_give(sender);
            return 0;
        }
    } while (sender->n_sent < enough);
    return SENDER_MORE;
}
