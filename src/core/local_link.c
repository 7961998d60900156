/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection without a socket: libvmibus's link to a bus in this process.  Commands are executed in the
 * call that sends them; what is to be received waits in the session's outbox, and an eventfd tells of
 * it, so that a control polls the same way in both homes.  The connection is the process's own: it takes
 * no user's share of the connections, and the bus bounds it with all others.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <vmibus/client.h>
#include <vmibus/syscalls.h>

#include "bus/control.h"
#include "core/core.h"
#include "transport/frame_check.h"
#include "transport/control_session.h"
#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("eventfd2")

struct local_link {
    struct vmibus_core *core;
    struct control_session session;
    bool has_session;
    bool failed;
    bool signalled;
    int event_fd;
};

static struct local_link *link_of(struct session *session) {
    return container_of(container_of(session, struct control_session, session), struct local_link, session);
}

static void link_wake(struct session *session) {
    struct local_link *link = link_of(session);
    const uint64_t one = 1;

    if (link->signalled)
        return;
    if (write(link->event_fd, &one, sizeof(one)) == sizeof(one))
        link->signalled = true;
}

static void link_fail(struct session *session) {
    link_of(session)->failed = true;
    link_wake(session);
}

static const struct session_owner link_owner = {.wake = link_wake, .fail = link_fail};

static int link_send(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct local_link *link = context;
    struct vmibus_ack refusal = {};
    struct frame_fault fault;
    int r;

    (void)fds; /* header.fd_count of a control's frame is 0, or the frame is refused */
    if (link->failed)
        return -ECONNRESET;
    if (frame_check_framing(frame, link->core->home.home.tail_bound, &fault) != FRAME_OK)
        return -EPROTO;
    if (link->has_session) {
        if (!control_may_submit(&link->session.control))
            return -ENOBUFS;
        link->session.session.ops->submit(&link->session.session, frame, tail, NULL, clock_now());
        return 0;
    }
    if (frame_check_hello(frame, &fault) != FRAME_OK)
        return -EPROTO;
    r = control_session_init(&link->session, &link->core->home, &link->core->self, &link_owner, &refusal);
    if (r)
        return r < 0 ? r : -ENOBUFS;
    link->has_session = true;
    return control_session_welcome(&link->session, &frame->header);
}

static int message_from_item(struct vmibus_message *message, struct control_item *item) {
    message->frame = item->frame;
    message->tail = NULL;
    if (item->tail) {
        void *copy = malloc(item->tail->length);

        if (!copy)
            return -ENOMEM;
        memcpy(copy, item->tail->data, item->tail->length);
        message->tail = copy;
    }
    for (size_t i = 0; i < VMIBUS_FDS_PER_FRAME; i++) {
        message->fds[i] = -1;
        if (item->fds && i < item->fds->n_fds)
            message->fds[i] = fd_steal(&item->fds->fds[i]);
    }
    return 1;
}

static int link_receive(void *context, struct vmibus_message *message) {
    struct local_link *link = context;
    struct control_item item;
    uint64_t value;
    int r;

    if (!link->has_session)
        return 0;
    if (!control_take(&link->session.control, &item)) {
        if (link->signalled && read(link->event_fd, &value, sizeof(value)) > 0)
            link->signalled = false;
        return link->failed ? -ECONNRESET : 0;
    }
    r = message_from_item(message, &item);
    control_item_deinit(&item);
    return r;
}

/* The other side is in this process: it progresses only if it is dispatched here. */
static int link_wait(void *context, int timeout_ms) {
    struct local_link *link = context;
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : clock_now() + (uint64_t)timeout_ms * NS_PER_MS;

    while (!link->signalled) {
        uint64_t now = clock_now();
        int left = timeout_ms < 0 ? -1 : now >= until ? 0 : (int)((until - now + NS_PER_MS - 1) / NS_PER_MS);
        int r = loop_dispatch(link->core->loop, left);

        if (r < 0)
            return r;
        if (r == 0 && left == 0 && !link->signalled)
            return -ETIMEDOUT;
    }
    return 0;
}

static int link_get_fd(void *context) {
    const struct local_link *link = context;

    return link->event_fd;
}

static short link_get_poll_events(void *context) {
    (void)context;
    return POLLIN;
}

static void link_close(void *context) {
    struct local_link *link = context;

    if (link->has_session)
        link->session.session.ops->deinit(&link->session.session);
    link->core->n_links--;
    fd_close(link->event_fd);
    free(link);
}

static const struct vmibus_link_ops link_ops = {
    .send = link_send,
    .receive = link_receive,
    .wait = link_wait,
    .get_fd = link_get_fd,
    .get_poll_events = link_get_poll_events,
    .close = link_close,
};

int vmibus_core_connect(struct vmibus_core *core, struct vmibus **busp, const char *name) {
    struct local_link *link = calloc(1, sizeof(*link));
    int r;

    if (!link)
        return -ENOMEM;
    link->core = core;
    core->n_links++;
    link->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link->event_fd < 0) {
        r = -errno;
        link_close(link);
        return r;
    }
    return vmibus_connect_link(busp, &link_ops, link, name);
}
