/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A link is handed over with its socket: what the other end says meanwhile waits there, and is heard before any peer is.  Octets
 * that the socket had no room for, and those of a frame that is not whole, go along, so that the stream stays in step.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <vmibus/syscalls.h>

#include "transport/handover.h"
#include "transport/handover_stream.h"
#include "transport/link.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("getsockopt")

/* Never reused. */
enum {
    LINK_SOCKET = 1,
    LINK_RECEIVER = 2,
    LINK_QUEUE = 3,
    LINK_SENT = 4,
    LINK_SYNCED = 5,
};

void link_handover_save(struct link *link, struct handover_writer *writer) {
    handover_put_fd(writer, LINK_SOCKET, link->fd);
    receiver_handover_save(writer, LINK_RECEIVER, &link->receiver);
    if (link->end > link->begin)
        handover_put(writer, LINK_QUEUE, link->queue + link->begin, link->end - link->begin);
    handover_put_number(writer, LINK_SENT, link->sent);
    handover_put_number(writer, LINK_SYNCED, link->synced);
    /* What were said from here on would be said behind a queue that the next process has. */
    link->up = false;
}

static bool is_stream(int fd) {
    socklen_t length = sizeof(int);
    int type = 0;

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}

/* False: something was wrong, and the link is down. */
static bool begin(struct link *link, struct handover_records records) {
    struct handover_record record;
    int fd, r;

    if (!handover_find(records, LINK_SOCKET, &record))
        return handover_wrong(records.handover, -EBADMSG);
    fd = handover_take_fd(&record);
    if (fd < 0)
        return false;
    if (!is_stream(fd)) {
        fd_close(fd);
        return handover_wrong(records.handover, -EBADMSG);
    }
    r = link_begin_consume_fd(link, fd);
    return r == 0 || handover_wrong(records.handover, r);
}

static void take_queue(struct link *link, const struct handover_record *record) {
    uint8_t *queue = link->queue || !record->length || record->length > link->options.queue_bound ? NULL : malloc(record->length);

    if (!queue) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    link->queue = memcpy(queue, record->octets, record->length);
    link->end = link->capacity = record->length;
}

bool link_handover_restore(struct link *link, struct handover_records records) {
    struct handover *whole = records.handover;
    struct handover_record record;

    if (!begin(link, records))
        return false;
    while (handover_next(&records, &record))
        switch (record.tag) {
        case LINK_RECEIVER:
            receiver_handover_restore(&link->receiver, &record, true, link->account);
            break;
        case LINK_QUEUE:
            take_queue(link, &record);
            break;
        case LINK_SENT:
            link->sent = handover_number(&record);
            break;
        case LINK_SYNCED:
            link->synced = handover_number(&record);
            break;
        default:
            break;
        }
    if (!whole->error)
        link_go_on(link);
    return !whole->error;
}
