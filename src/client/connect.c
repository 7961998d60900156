/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a connection begins, is lent, comes back and ends.
 *
 * A lent connection is a socket that the parent process opened: the borrower says HELLO again on it and
 * has its session, thus its leases.  Only one process at a time may speak on it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "client/attachment.h"
#include "client/buffer.h"
#include "client/connection.h"
#include "client/socket_link.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("epoll_create1 epoll_ctl")

/* The lent descriptor is taken by whoever connects first: a second connection over it would garble both. */
static bool lent_fd_taken;

static int lent_fd(void) {
    const char *text = getenv("VMIBUS_LENT_FD");
    char *end;
    long fd;

    if (!text || __atomic_load_n(&lent_fd_taken, __ATOMIC_RELAXED))
        return -1;
    errno = 0;
    fd = strtol(text, &end, 10);
    if (errno || end == text || *end || fd < 0 || fd > INT32_MAX)
        return -EBADF;
    if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return __atomic_exchange_n(&lent_fd_taken, true, __ATOMIC_RELAXED) ? -1 : (int)fd;
}

static void close_channel(struct channel *channel) {
    if (channel->ops)
        channel->ops->close(channel->context);
    channel->ops = NULL;
}

static int new_connection(struct vmibus **busp, const struct vmibus_link_ops *ops, void *context, const char *name) {
    struct vmibus *bus = calloc(1, sizeof(*bus));

    if (!bus) {
        ops->close(context);
        return -ENOMEM;
    }
    bus->bus.ops = ops;
    bus->bus.context = context;
    bus->epoll_fd = -1;
    /* Distinct between the processes that a lent connection goes through. */
    bus->correlation = (uint64_t)getpid() << 32;
    strncpy(bus->name, name ? name : "", sizeof(bus->name) - 1);
    list_init(&bus->kept);
    list_init(&bus->attachments);
    list_init(&bus->buffers);
    *busp = bus;
    return 0;
}

static void bound_channel(struct channel *channel, const struct hello_bounds *bounds) {
    channel->bounds = *bounds;
    if (channel->ops == &socket_link_ops)
        socket_link_set_bounds(channel->context, bounds->tail_bound, bounds->fds_per_frame);
}

/* With two sockets, a third descriptor speaks for both; its caller sees the same one all along. */
static int join_channel(struct vmibus *bus, struct channel *channel) {
    struct epoll_event event = {.events = EPOLLIN};

    if (bus->epoll_fd < 0)
        bus->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (bus->epoll_fd < 0)
        return -errno;
    if (epoll_ctl(bus->epoll_fd, EPOLL_CTL_ADD, channel->ops->get_fd(channel->context), &event) < 0)
        return -errno;
    channel->armed = event.events;
    return 0;
}

/* The refusal may be NULL; it is written where an enum vmibus_error is returned. */
static int say_hello(struct vmibus *bus, bool established, int timeout_ms, struct vmibus_error_body *refusal) {
    const struct hello hello = {
        .role = VMIBUS_ROLE_CONTROL,
        .channel = VMIBUS_CHANNEL_BUS,
        .name = bus->name,
        .correlation = connection_next_correlation(bus),
        .established = established,
        .timeout_ms = timeout_ms,
    };
    struct hello_answer answer;
    int r = hello_exchange(bus->bus.ops, bus->bus.context, &hello, &answer);

    if (r > 0 && refusal)
        *refusal = answer.refusal;
    if (r)
        return r;
    bus->welcome = answer.welcome;
    memcpy(bus->memory_path, answer.memory_path, sizeof(bus->memory_path));
    bound_channel(&bus->bus, &answer.bounds);
    return 0;
}

static int open_connection(struct vmibus **busp, const struct vmibus_link_ops *ops, void *context, const char *name, bool lent,
                           struct vmibus_error_body *refusal) {
    struct vmibus *bus;
    int r = new_connection(&bus, ops, context, name);

    if (r < 0)
        return r;
    bus->lent = lent;
    r = say_hello(bus, lent, HELLO_TIMEOUT_MS, refusal);
    if (r == 0 && bus->welcome.memory == VMIBUS_MEMORY_LOCATION_SOCKET)
        r = join_channel(bus, &bus->bus);
    if (r) {
        vmibus_free(bus);
        return r;
    }
    *busp = bus;
    return 0;
}

int vmibus_connect_link(struct vmibus **busp, const struct vmibus_link_ops *ops, void *context, const char *name) {
    return open_connection(busp, ops, context, name, false, NULL);
}

int vmibus_connect_consume_fd(struct vmibus **busp, int fd, const char *name) {
    struct socket_link *link;
    int r = socket_link_new_consume_fd(&link, fd);

    return r < 0 ? r : open_connection(busp, &socket_link_ops, link, name, false, NULL);
}

int vmibus_connect(struct vmibus **busp, const char *path, const char *name) {
    return vmibus_connect_explained(busp, path, name, NULL);
}

int vmibus_connect_explained(struct vmibus **busp, const char *path, const char *name, struct vmibus_error_body *refusal) {
    struct socket_link *link;
    int fd = -1, r;

    if (refusal)
        *refusal = (struct vmibus_error_body){};
    if (!path) {
        fd = lent_fd();
        if (fd < -1)
            return fd;
        path = getenv("VMIBUS_SOCKET");
    }
    if (fd >= 0)
        r = socket_link_new_consume_fd(&link, fd);
    else
        r = socket_link_connect(&link, path && *path ? path : VMIBUS_SOCKET_DEFAULT);
    return r < 0 ? r : open_connection(busp, &socket_link_ops, link, name, fd >= 0, refusal);
}

int connection_open_memory(struct vmibus *bus) {
    const struct hello hello = {
        .role = VMIBUS_ROLE_CONTROL,
        .channel = VMIBUS_CHANNEL_MEMORY,
        .session = bus->welcome.session,
        .name = bus->name,
        .correlation = connection_next_correlation(bus),
        .timeout_ms = HELLO_TIMEOUT_MS,
    };
    struct hello_answer answer;
    struct socket_link *link;
    int r;

    if (bus->memory.ops)
        return 0;
    r = socket_link_connect(&link, bus->memory_path);
    if (r < 0)
        return r;
    bus->memory = (struct channel){.ops = &socket_link_ops, .context = link};
    r = hello_exchange(&socket_link_ops, link, &hello, &answer);
    if (r == 0)
        r = join_channel(bus, &bus->memory);
    if (r)
        close_channel(&bus->memory);
    else
        bound_channel(&bus->memory, &answer.bounds);
    return r;
}

bool vmibus_is_lent(const struct vmibus *bus) {
    return bus->lent;
}

int vmibus_dup_fd(const struct vmibus *bus) {
    if (bus->bus.ops != &socket_link_ops)
        return -EOPNOTSUPP;
    return fd_dup(socket_link_get_fd(bus->bus.context));
}

int vmibus_reclaim(struct vmibus *bus, int timeout_ms) {
    int r;

    if (bus->error)
        return bus->error;
    connection_drop_kept(bus);
    r = say_hello(bus, true, timeout_ms, NULL);
    if (r)
        attachments_end(bus);
    return r;
}

struct vmibus *vmibus_free(struct vmibus *bus) {
    if (!bus)
        return NULL;
    attachments_orphan(bus);
    buffers_orphan(bus);
    connection_drop_kept(bus);
    close_channel(&bus->memory);
    close_channel(&bus->bus);
    fd_close(bus->epoll_fd);
    free(bus);
    return NULL;
}
