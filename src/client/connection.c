/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sending, calling, dispatching, waiting.
 *
 * What arrives while a call waits for its ACK is put aside and dispatched first, so that the handler
 * sees the order of delivery.  A message is checked here whatever link it came by: a peer that breaks
 * the protocol ends the connection before its words are believed.
 */
#include "client/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

#include "client/attachment.h"
#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("epoll_ctl")

/* A dispatch ends after so many messages, so that a busy bus leaves its caller time for other work. */
#define DISPATCH_BOUND 4096

/* One message put aside. */
struct kept {
    struct list link;
    struct vmibus_message message;
};

/* --- messages ----------------------------------------------------------------------------------- */

void vmibus_message_deinit(struct vmibus_message *message) {
    size_t n = message->frame.header.fd_count;

    fds_close(message->fds, n < VMIBUS_FDS_PER_FRAME ? n : VMIBUS_FDS_PER_FRAME);
    free((void *)message->tail);
    message->tail = NULL;
    message->frame.header.fd_count = 0;
    message->frame.header.tail_length = 0;
}

/* Nothing comes any more: whoever relies on being told has to know. */
static int fail(struct vmibus *bus, int error) {
    bus->error = error;
    attachments_end(bus);
    return error;
}

static bool is_lawful(const struct channel *channel, const struct vmibus_message *message) {
    const struct vmibus_header *header = &message->frame.header;
    const struct vmibus_frame_description *description;

    if (header->direction != VMIBUS_DIRECTION_UP || header->version != channel->bounds.version)
        return false;
    if (header->tail_length == 0 && header->fd_count == 0)
        return header->kind != VMIBUS_KIND_WELCOME;
    if (header->tail_length > channel->bounds.tail_bound || header->fd_count > channel->bounds.fds_per_frame)
        return false;
    description = vmibus_frame_describe(header->kind);
    if (!description)
        return true;
    return header->kind != VMIBUS_KIND_WELCOME && (description->tail_allowed || !header->tail_length) &&
           (description->fds_allowed || !header->fd_count);
}

static int receive(struct vmibus *bus, const struct channel *channel, struct vmibus_message *message) {
    int r;

    if (bus->error)
        return bus->error;
    r = channel->ops->receive(channel->context, message);
    if (r == 1 && !is_lawful(channel, message)) {
        vmibus_message_deinit(message);
        r = -EPROTO;
    }
    return r < 0 ? fail(bus, r) : r;
}

static int keep(struct vmibus *bus, struct vmibus_message *message) {
    struct kept *kept = malloc(sizeof(*kept));

    if (!kept) {
        /* What is lost now could not be told as lost: the connection has no meaning any more. */
        vmibus_message_deinit(message);
        return fail(bus, -ENOMEM);
    }
    kept->message = *message;
    list_append(&bus->kept, &kept->link);
    return 0;
}

static bool take_kept(struct vmibus *bus, struct vmibus_message *message) {
    struct kept *kept = list_first(&bus->kept, struct kept, link);

    if (!kept)
        return false;
    *message = kept->message;
    list_unlink(&kept->link);
    free(kept);
    return true;
}

void connection_drop_kept(struct vmibus *bus) {
    struct vmibus_message message;

    while (take_kept(bus, &message))
        vmibus_message_deinit(&message);
}

/* --- what to wait for ----------------------------------------------------------------------------- */

/* What was put aside is no event of the kernel: asking for POLLOUT makes a poll return at once. */
static short poll_events(const struct vmibus *bus, const struct channel *channel) {
    short events = channel->ops->get_poll_events(channel->context);

    return (short)(channel == &bus->bus && !list_is_empty(&bus->kept) ? events | POLLOUT : events);
}

static void arm_channel(struct vmibus *bus, struct channel *channel) {
    struct epoll_event event = {};

    if (!channel->ops)
        return;
    event.events = (uint32_t)poll_events(bus, channel);
    if (event.events == channel->armed)
        return;
    epoll_ctl(bus->epoll_fd, EPOLL_CTL_MOD, channel->ops->get_fd(channel->context), &event);
    channel->armed = event.events;
}

void connection_arm(struct vmibus *bus) {
    if (bus->epoll_fd < 0)
        return;
    arm_channel(bus, &bus->bus);
    arm_channel(bus, &bus->memory);
}

int vmibus_get_fd(const struct vmibus *bus) {
    return bus->epoll_fd >= 0 ? bus->epoll_fd : bus->bus.ops->get_fd(bus->bus.context);
}

short vmibus_get_poll_events(const struct vmibus *bus) {
    return bus->epoll_fd >= 0 ? POLLIN : poll_events(bus, &bus->bus);
}

static int wait_both(struct vmibus *bus, int timeout_ms) {
    struct pollfd poll_fds[2];
    struct channel *channels[] = {&bus->bus, &bus->memory};
    int n;

    for (size_t i = 0; i < 2; i++) {
        poll_fds[i].fd = channels[i]->ops->get_fd(channels[i]->context);
        poll_fds[i].events = poll_events(bus, channels[i]);
    }
    n = poll(poll_fds, 2, timeout_ms);
    if (n < 0)
        return -errno;
    return n == 0 ? -ETIMEDOUT : 0;
}

/* --- dispatching ---------------------------------------------------------------------------------- */

static void deliver(struct vmibus *bus, struct vmibus_message *message) {
    if (bus->handler)
        bus->handler(bus, message, bus->userdata);
    vmibus_message_deinit(message);
}

/* The next message of a channel, behind what was put aside. 1, 0: nothing there, or a negative errno. */
static int next_message(struct vmibus *bus, const struct channel *channel, struct vmibus_message *message) {
    return take_kept(bus, message) ? 1 : receive(bus, channel, message);
}

static int dispatch_channel(struct vmibus *bus, const struct channel *channel) {
    struct vmibus_message message;
    int r = 0;

    for (size_t n = 0; n < DISPATCH_BOUND; n++) {
        r = next_message(bus, channel, &message);
        /* A link may say "nothing" once for what it saw during a call: ask again before believing it. */
        if (r == 0 && n == 0)
            r = next_message(bus, channel, &message);
        if (r <= 0)
            return r;
        deliver(bus, &message);
    }
    return 0;
}

int vmibus_dispatch(struct vmibus *bus) {
    int r;

    if (bus->dispatching)
        return -EDEADLK;
    bus->dispatching = true;
    r = dispatch_channel(bus, &bus->bus);
    if (r == 0 && bus->memory.ops)
        r = dispatch_channel(bus, &bus->memory);
    connection_arm(bus);
    bus->dispatching = false;
    return r;
}

int vmibus_wait(struct vmibus *bus, int timeout_ms) {
    int r;

    if (bus->dispatching)
        return -EDEADLK;
    if (bus->error || !list_is_empty(&bus->kept))
        r = 0;
    else if (bus->memory.ops)
        r = wait_both(bus, timeout_ms);
    else
        r = bus->bus.ops->wait(bus->bus.context, timeout_ms);
    return r < 0 ? r : vmibus_dispatch(bus);
}

void vmibus_set_handler(struct vmibus *bus, vmibus_handler handler, void *userdata) {
    bus->handler = handler;
    bus->userdata = userdata;
}

const struct vmibus_welcome *vmibus_get_welcome(const struct vmibus *bus) {
    return &bus->welcome;
}

/* --- commanding ----------------------------------------------------------------------------------- */

uint64_t connection_next_correlation(struct vmibus *bus) {
    return ++bus->correlation;
}

void vmibus_command_init(struct vmibus_frame *frame, enum vmibus_kind kind, const struct vmibus_endpoint *endpoint) {
    memset(frame, 0, sizeof(*frame));
    frame->header.kind = (uint16_t)kind;
    frame->header.direction = VMIBUS_DIRECTION_DOWN;
    frame->header.priority = VMIBUS_PRIORITY_NORMAL;
    if (endpoint) {
        frame->header.slot = endpoint->slot;
        frame->header.generation = endpoint->generation;
    }
}

/* The channel that a kind travels on. */
static int route(struct vmibus *bus, uint16_t kind, struct channel **channelp) {
    const struct vmibus_frame_description *description;
    int r;

    *channelp = &bus->bus;
    if (bus->epoll_fd < 0)
        return 0;
    description = vmibus_frame_describe(kind);
    if (!description || description->channels != VMIBUS_ON_MEMORY)
        return 0;
    r = connection_open_memory(bus);
    *channelp = &bus->memory;
    return r;
}

static int prepare(struct vmibus *bus, struct vmibus_frame *frame, size_t tail_length, struct channel **channelp) {
    int r;

    if (bus->error)
        return bus->error;
    r = route(bus, frame->header.kind, channelp);
    if (r)
        return r;
    if (tail_length > (*channelp)->bounds.tail_bound)
        return -EMSGSIZE;
    frame->header.version = (uint8_t)(*channelp)->bounds.version;
    frame->header.correlation = connection_next_correlation(bus);
    frame->header.timestamp = clock_now();
    frame->header.tail_length = (uint32_t)tail_length;
    frame->header.fd_count = 0;
    return 0;
}

int vmibus_send(struct vmibus *bus, struct vmibus_frame *frame, const void *tail, size_t tail_length, uint64_t *correlation) {
    struct channel *channel;
    int r = prepare(bus, frame, tail_length, &channel);

    if (r == 0)
        r = channel->ops->send(channel->context, frame, tail, NULL);
    if (r == -ECONNRESET)
        attachments_end(bus);
    connection_arm(bus);
    if (r == 0 && correlation)
        *correlation = frame->header.correlation;
    return r;
}

/* Waits on the channel until something came or went. */
static int wait_channel(const struct channel *channel) {
    int r;

    do
        r = channel->ops->wait(channel->context, -1);
    while (r == -EINTR);
    return r;
}

/* Sends, if need be once there is room for it; what arrives until then is put aside. */
static int send_waiting(struct vmibus *bus, const struct channel *channel, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_message message;
    int r;

    while ((r = channel->ops->send(channel->context, frame, tail, NULL)) == -ENOBUFS) {
        r = wait_channel(channel);
        if (r < 0)
            return r;
        while ((r = receive(bus, channel, &message)) == 1)
            if (keep(bus, &message) < 0)
                return bus->error;
        if (r < 0)
            return r;
    }
    return r;
}

/* Waits for the ACK of a command; all else is put aside. */
static int await_ack(struct vmibus *bus, const struct channel *channel, uint64_t correlation, struct vmibus_message *reply) {
    int r;

    for (;;) {
        r = wait_channel(channel);
        if (r < 0)
            return r;
        while ((r = receive(bus, channel, reply)) == 1) {
            if (reply->frame.header.kind == VMIBUS_KIND_ACK && reply->frame.header.correlation == correlation)
                return 0;
            if (keep(bus, reply) < 0)
                return bus->error;
        }
        if (r < 0)
            return r;
    }
}

int vmibus_call(struct vmibus *bus, struct vmibus_frame *frame, const void *tail, size_t tail_length,
                struct vmibus_message *reply) {
    struct vmibus_message answer = {};
    struct channel *channel;
    int r;

    if (reply)
        memset(reply, 0, sizeof(*reply));
    if (frame->header.flags & VMIBUS_FRAME_NO_ACK)
        return -EINVAL;
    r = prepare(bus, frame, tail_length, &channel);
    if (r == 0)
        r = send_waiting(bus, channel, frame, tail);
    if (r == -ECONNRESET)
        attachments_end(bus);
    if (r == 0)
        r = await_ack(bus, channel, frame->header.correlation, &answer);
    connection_arm(bus);
    if (r)
        return r;
    r = answer.frame.ack.error;
    if (reply)
        *reply = answer;
    else
        vmibus_message_deinit(&answer);
    return r;
}
