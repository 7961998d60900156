/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a stream does not keep together is put together here: frame, tail, descriptors.
 *
 * Descriptors arrive with or before the first octet of their frame, in the order of the frames (the
 * kernel never joins two messages that both carry some), so a queue suffices: each frame takes as many
 * as it announces.  Those that no frame announces are an error, or a peer could fill our table.
 *
 * After a recvmsg that filled less than it could, the socket is taken to be empty: the next receive()
 * says "nothing" without asking the kernel.  A wakeup costs one recvmsg then, and so does the answer
 * that a call waits for.
 *
 * Whoever only listens waits in recvmsg(2), which is one system call less for each wakeup.  Whoever has asked something waits in
 * poll(2): who sleeps in recvmsg is also woken when the peer takes what was sent (Linux net/unix/af_unix.c, unix_write_space()),
 * for nothing, and takes the processor away from the peer that is about to answer (measured: 2 of 13 us).
 */
#include "client/socket_link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fds.h"
#include "util/list.h"

VMIBUS_SYSCALLS("connect getsockopt recvmsg sendmsg sendto setsockopt shutdown socket")

#define RECEIVE_SIZE 65536
#define CONNECT_SECONDS 5

/* Frames are taken for sending as long as less than this is unsent. */
#define UNSENT_BOUND (1024 * 1024)

/* What was too long to be sent at once is kept in memory that is used again, up to this. */
#define SPARE_BOUND (UNSENT_BOUND + VMIBUS_FRAME_SIZE)

/*
 * So large is the socket's own buffer made, as far as net.core.wmem_max lets it: the longest tail that is usual goes into it
 * whole. What does not fit is copied once more, and then goes in pieces, each of which costs the peer and us a wakeup: with
 * the buffer that a socket has by default, writes of 1 MiB take three times as long.
 */
#define SEND_BUFFER VMIBUS_TAIL_BOUND_DEFAULT

/* The kernel passes at most so many descriptors with one message (SCM_MAX_FD). */
#define FDS_PER_MESSAGE 253
#define FDS_QUEUED (FDS_PER_MESSAGE + VMIBUS_FDS_PER_FRAME)

/* A frame, or what is left of it, that the socket had no room for. */
struct unsent {
    struct list link;
    size_t capacity;
    size_t length;
    size_t sent;
    size_t n_fds;
    int fds[VMIBUS_FDS_PER_FRAME];
    uint8_t octets[];
};

struct socket_link {
    int fd;
    int error;                      /* what ended receiving, a negative errno */
    uint32_t tail_bound;
    uint8_t fds_per_frame;
    bool drained;                   /* the last recvmsg took all there was */
    bool asked;                     /* something was sent after the last octets came: the peer may not have taken it yet */

    uint8_t *buffer;                /* RECEIVE_SIZE */
    size_t start;                   /* first octet not consumed */
    size_t end;                     /* past the last octet received */

    uint8_t *tail;                  /* the tail being gathered, or NULL */
    size_t tail_have;
    struct vmibus_frame tail_frame; /* its frame */

    size_t n_fds;
    int fds[FDS_QUEUED];            /* received, not yet claimed by a frame */

    struct list unsent;
    size_t unsent_size;
    struct unsent *spare;           /* kept for the next one: fresh memory costs as much as copying into it */
    size_t unsent_bound;
};

/* --- receiving ---------------------------------------------------------------------------------- */

static int take_control_messages(struct socket_link *link, struct msghdr *message) {
    struct cmsghdr *control;
    int r = message->msg_flags & MSG_CTRUNC ? -EMFILE : 0;

    for (control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
        const unsigned char *data = CMSG_DATA(control);
        size_t n;

        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        n = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, data + i * sizeof(fd), sizeof(fd));
            if (link->n_fds < FDS_QUEUED) {
                link->fds[link->n_fds++] = fd;
            } else {
                fd_close(fd);
                r = -EPROTO;
            }
        }
    }
    return r;
}

/* One recvmsg into what is missing of the tail, then into the buffer. 1: something came; 0: nothing is there. */
static int receive_octets(struct socket_link *link, int flags) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
    struct iovec parts[2];
    struct msghdr message = {.msg_iov = parts, .msg_control = control, .msg_controllen = sizeof(control)};
    size_t tail_rest = link->tail ? link->tail_frame.header.tail_length - link->tail_have : 0;
    size_t room, n;
    ssize_t got;

    if (link->start > 0) {
        memmove(link->buffer, link->buffer + link->start, link->end - link->start);
        link->end -= link->start;
        link->start = 0;
    }
    if (tail_rest)
        parts[message.msg_iovlen++] = (struct iovec){.iov_base = link->tail + link->tail_have, .iov_len = tail_rest};
    parts[message.msg_iovlen++] = (struct iovec){.iov_base = link->buffer + link->end, .iov_len = RECEIVE_SIZE - link->end};
    room = tail_rest + RECEIVE_SIZE - link->end;
    got = recvmsg(link->fd, &message, flags | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (message.msg_controllen > 0 || message.msg_flags & MSG_CTRUNC) {
        int r = take_control_messages(link, &message);

        if (r < 0)
            return r;
    }
    if (got == 0)
        return -ECONNRESET;
    link->drained = (size_t)got < room;
    link->asked = false;
    n = (size_t)got < tail_rest ? (size_t)got : tail_rest;
    link->tail_have += n;
    link->end += (size_t)got - n;
    return 1;
}

/* As receive_octets(); @flags: MSG_DONTWAIT, or 0 to sleep until something comes. */
static int receive_more(struct socket_link *link, int flags) {
    int r;

    if (link->error)
        return link->error;
    r = receive_octets(link, flags);
    if (r < 0 && r != -EINTR)
        link->error = r;
    return r;
}

/* Whether a whole frame is at hand, or an end of it all, so that there is no need to wait. */
static bool has_frame(const struct socket_link *link) {
    struct vmibus_header header;

    if (link->error)
        return true;
    if (link->tail)
        return link->tail_have == link->tail_frame.header.tail_length;
    if (link->end - link->start < VMIBUS_FRAME_SIZE)
        return false;
    memcpy(&header, link->buffer + link->start, sizeof(header));
    return header.tail_length > link->tail_bound || header.fd_count > link->n_fds ||
           header.tail_length <= link->end - link->start - VMIBUS_FRAME_SIZE;
}

/* Hands a complete frame out, with its descriptors. */
static int deliver(struct socket_link *link, struct vmibus_message *message, void *tail) {
    size_t n = message->frame.header.fd_count;

    message->tail = tail;
    memset(message->fds, 0xff, sizeof(message->fds));
    if (n == 0)
        return 1;
    memcpy(message->fds, link->fds, n * sizeof(int));
    link->n_fds -= n;
    memmove(link->fds, link->fds + n, link->n_fds * sizeof(int));
    return 1;
}

/* Begins the tail of the frame at the start of the buffer, with what of it has come along. */
static int begin_tail(struct socket_link *link, const struct vmibus_frame *frame) {
    size_t n = link->end - link->start;

    link->tail = malloc(frame->header.tail_length);
    if (!link->tail)
        return -ENOMEM;
    if (n > frame->header.tail_length)
        n = frame->header.tail_length;
    memcpy(link->tail, link->buffer + link->start, n);
    link->start += n;
    link->tail_have = n;
    link->tail_frame = *frame;
    return 0;
}

/* Takes a frame from what has been received. 1: message is filled; 0: more octets are needed. */
static int parse(struct socket_link *link, struct vmibus_message *message) {
    if (!link->tail) {
        const struct vmibus_header *header = &message->frame.header;

        if (link->end - link->start < VMIBUS_FRAME_SIZE)
            return link->start == link->end && link->n_fds ? -EPROTO : 0;
        memcpy(&message->frame, link->buffer + link->start, VMIBUS_FRAME_SIZE);
        if (header->tail_length > link->tail_bound || header->fd_count > link->fds_per_frame ||
            header->fd_count > link->n_fds)
            return -EPROTO;
        link->start += VMIBUS_FRAME_SIZE;
        if (header->tail_length == 0)
            return deliver(link, message, NULL);
        int r = begin_tail(link, &message->frame);
        if (r < 0)
            return r;
    }
    if (link->tail_have < link->tail_frame.header.tail_length)
        return 0;
    message->frame = link->tail_frame;
    void *tail = link->tail;
    link->tail = NULL;
    return deliver(link, message, tail);
}

/* --- sending ------------------------------------------------------------------------------------ */

/* One send or sendmsg. How many octets went, 0 if there is no room, or a negative errno. */
static ssize_t send_octets(int fd, struct iovec *parts, size_t n_parts, const int *fds, size_t n_fds) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(VMIBUS_FDS_PER_FRAME * sizeof(int))];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = n_parts};
    ssize_t sent;

    if (n_fds) {
        struct cmsghdr *header;

        memset(control, 0, sizeof(control));
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    }
    do
        if (n_parts == 1 && !n_fds) /* nearly always, and it costs less */
            sent = send(fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    if (errno == EAGAIN)
        return 0;
    return errno == EPIPE ? -ECONNRESET : -errno;
}

static struct unsent *unsent_new(struct socket_link *link, size_t capacity) {
    struct unsent *unsent = link->spare;

    if (unsent && unsent->capacity >= capacity) {
        capacity = unsent->capacity;
        link->spare = NULL;
    } else {
        unsent = malloc(sizeof(*unsent) + capacity);
    }
    if (unsent)
        *unsent = (struct unsent){.link = LIST_INIT(unsent->link), .capacity = capacity};
    return unsent;
}

/* The largest one, of those that are not out of proportion, is kept. */
static struct unsent *unsent_free(struct socket_link *link, struct unsent *unsent) {
    fds_close(unsent->fds, unsent->n_fds);
    list_unlink(&unsent->link);
    if (unsent->capacity <= SPARE_BOUND && (!link->spare || link->spare->capacity < unsent->capacity)) {
        free(link->spare);
        link->spare = unsent;
    } else {
        free(unsent);
    }
    return NULL;
}

/* Keeps what was not sent: all but the first `sent` octets, and the descriptors if nothing went. */
static int keep_unsent(struct socket_link *link, const struct iovec *parts, size_t n_parts, size_t sent, const int *fds,
                       size_t n_fds) {
    struct unsent *unsent;
    size_t length = 0;

    for (size_t i = 0; i < n_parts; i++)
        length += parts[i].iov_len;
    unsent = unsent_new(link, length - sent);
    if (!unsent)
        return -ENOMEM;
    for (size_t i = 0; i < n_parts; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;

        memcpy(unsent->octets + unsent->length, (const uint8_t *)parts[i].iov_base + skip, parts[i].iov_len - skip);
        unsent->length += parts[i].iov_len - skip;
        sent -= skip;
    }
    for (; unsent->n_fds < n_fds; unsent->n_fds++) {
        int fd = fd_dup(fds[unsent->n_fds]);

        if (fd < 0) {
            unsent_free(link, unsent);
            return fd;
        }
        unsent->fds[unsent->n_fds] = fd;
    }
    list_append(&link->unsent, &unsent->link);
    link->unsent_size += unsent->length;
    return 0;
}

static int flush(struct socket_link *link) {
    struct unsent *unsent;

    while ((unsent = list_first(&link->unsent, struct unsent, link))) {
        struct iovec part = {.iov_base = unsent->octets + unsent->sent, .iov_len = unsent->length - unsent->sent};
        ssize_t sent = send_octets(link->fd, &part, 1, unsent->fds, unsent->n_fds);

        if (sent <= 0)
            return (int)sent;
        fds_close(unsent->fds, unsent->n_fds);
        unsent->n_fds = 0;
        unsent->sent += (size_t)sent;
        link->unsent_size -= (size_t)sent;
        if (unsent->sent == unsent->length)
            unsent_free(link, unsent);
    }
    return 0;
}

static void drop_unsent(struct socket_link *link) {
    struct unsent *unsent;

    while ((unsent = list_first(&link->unsent, struct unsent, link)))
        unsent_free(link, unsent);
    link->unsent_size = 0;
}

/* --- operations ---------------------------------------------------------------------------------- */

static int link_send(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct socket_link *link = context;
    struct iovec parts[2] = {
        {.iov_base = (void *)frame, .iov_len = sizeof(*frame)},
        {.iov_base = (void *)tail, .iov_len = frame->header.tail_length},
    };
    size_t n_parts = frame->header.tail_length ? 2 : 1;
    size_t n_fds = frame->header.fd_count;
    ssize_t sent = 0;
    int r;

    if (n_fds > VMIBUS_FDS_PER_FRAME)
        return -EINVAL;
    link->asked = true;
    if (!list_is_empty(&link->unsent)) {
        r = flush(link);
        if (r < 0)
            return r;
    }
    if (list_is_empty(&link->unsent))
        sent = send_octets(link->fd, parts, n_parts, fds, n_fds);
    else if (link->unsent_size >= link->unsent_bound)
        return -ENOBUFS;
    if (sent < 0)
        return (int)sent;
    if ((size_t)sent == sizeof(*frame) + frame->header.tail_length)
        return 0;
    r = keep_unsent(link, parts, n_parts, (size_t)sent, fds, sent ? 0 : n_fds);
    /* With half a frame gone and the rest lost, nothing sensible can follow it. */
    if (r < 0 && sent)
        shutdown(link->fd, SHUT_RDWR);
    return r;
}

static int link_receive(void *context, struct vmibus_message *message) {
    struct socket_link *link = context;
    int r;

    for (;;) {
        r = parse(link, message);
        if (r < 0 && !link->error)
            link->error = r;
        if (r != 0)
            return r < 0 ? link->error : r;
        if (!list_is_empty(&link->unsent)) {
            r = flush(link);
            /* The peer may have told why it closed: read on, the end will come. */
            if (r < 0)
                drop_unsent(link);
        }
        if (link->drained) {
            link->drained = false;
            return link->error;
        }
        do
            r = receive_more(link, MSG_DONTWAIT);
        while (r == -EINTR);
        if (r <= 0)
            return r;
    }
}

static int wait_poll(struct socket_link *link, int timeout_ms) {
    struct pollfd poll_fd = {.fd = link->fd, .events = POLLIN};
    int n;

    if (!list_is_empty(&link->unsent))
        poll_fd.events |= POLLOUT;
    n = poll(&poll_fd, 1, timeout_ms);
    if (n < 0)
        return -errno;
    link->drained = false;
    return n == 0 ? -ETIMEDOUT : 0;
}

/* What ends the connection is told by the next receive, after all that came before. */
static int wait_receiving(struct socket_link *link) {
    int r = receive_more(link, 0);

    if (r == 0) /* a socket that was given to us, and does not block */
        return wait_poll(link, -1);
    return r == -EINTR ? r : 0;
}

static int link_wait(void *context, int timeout_ms) {
    struct socket_link *link = context;

    if (has_frame(link))
        return 0;
    if (timeout_ms < 0 && list_is_empty(&link->unsent) && !link->asked)
        return wait_receiving(link);
    return wait_poll(link, timeout_ms);
}

static int link_get_fd(void *context) {
    return socket_link_get_fd(context);
}

/* A socket is writable nearly always: asking for that makes a poll return at once for what is buffered. */
static short link_get_poll_events(void *context) {
    const struct socket_link *link = context;

    return (short)(!list_is_empty(&link->unsent) || has_frame(link) ? POLLIN | POLLOUT : POLLIN);
}

static void link_close(void *context) {
    struct socket_link *link = context;

    if (!list_is_empty(&link->unsent))
        flush(link);
    drop_unsent(link);
    fds_close(link->fds, link->n_fds);
    fd_close(link->fd);
    free(link->spare);
    free(link->tail);
    free(link->buffer);
    free(link);
}

const struct vmibus_link_ops socket_link_ops = {
    .send = link_send,
    .receive = link_receive,
    .wait = link_wait,
    .get_fd = link_get_fd,
    .get_poll_events = link_get_poll_events,
    .close = link_close,
};

/* --- making -------------------------------------------------------------------------------------- */

static int check_socket(int fd) {
    int value;
    socklen_t length = sizeof(value);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length) < 0)
        return -errno;
    if (value != AF_UNIX)
        return -EPROTOTYPE;
    length = sizeof(value);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length) < 0)
        return -errno;
    return value == SOCK_STREAM ? 0 : -EPROTOTYPE;
}

/* Less than asked for is slower, and no error. */
static void enlarge_send_buffer(int fd) {
    int octets = SEND_BUFFER, has = 0;
    socklen_t length = sizeof(has);

    /* The kernel tells twice what was asked for (socket(7)). */
    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &has, &length) == 0 && has >= 2 * octets)
        return;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &octets, sizeof(octets));
}

int socket_link_new_consume_fd(struct socket_link **linkp, int fd) {
    struct socket_link *link;
    int r = check_socket(fd);

    if (r < 0) {
        fd_close(fd);
        return r;
    }
    link = calloc(1, sizeof(*link));
    if (link)
        link->buffer = malloc(RECEIVE_SIZE);
    if (!link || !link->buffer) {
        free(link);
        fd_close(fd);
        return -ENOMEM;
    }
    enlarge_send_buffer(fd);
    link->fd = fd;
    link->tail_bound = VMIBUS_TAIL_BOUND_DEFAULT;
    link->unsent_bound = UNSENT_BOUND;
    link->fds_per_frame = VMIBUS_FDS_PER_FRAME;
    list_init(&link->unsent);
    *linkp = link;
    return 0;
}

int socket_link_connect(struct socket_link **linkp, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = CONNECT_SECONDS};
    _cleanup_fd_ int fd = -1;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Bounds the wait for a place in the listener's queue. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    return socket_link_new_consume_fd(linkp, fd_steal(&fd));
}

void socket_link_set_bounds(struct socket_link *link, uint32_t tail_bound, uint8_t fds_per_frame) {
    link->tail_bound = tail_bound;
    link->fds_per_frame = fds_per_frame < VMIBUS_FDS_PER_FRAME ? fds_per_frame : VMIBUS_FDS_PER_FRAME;
}

void socket_link_set_unsent_bound(struct socket_link *link, size_t octets) {
    link->unsent_bound = octets;
}

int socket_link_get_fd(const struct socket_link *link) {
    return link->fd;
}
