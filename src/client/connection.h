/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection as the files of this folder share it: one or two channels, what a call put aside, and
 * the handler.  The memory channel of its own exists only where WELCOME says SOCKET, from the first
 * memory command on.
 */
#ifndef CLIENT_CONNECTION_H
#define CLIENT_CONNECTION_H

#include <vmibus/client.h>

#include "client/hello.h"
#include "util/list.h"

struct channel {
    const struct vmibus_link_ops *ops;  /* NULL: not open */
    void *context;
    struct hello_bounds bounds;
    uint32_t armed;                     /* epoll events asked for, where there is an epoll descriptor */
};

struct vmibus {
    struct channel bus;
    struct channel memory;
    int epoll_fd;                       /* -1: the memory authority is here, the bus channel's descriptor says all */
    char name[sizeof(((struct vmibus_hello *)0)->name)];
    struct vmibus_welcome welcome;
    char memory_path[HELLO_PATH_SIZE];
    bool lent;
    bool dispatching;
    int error;                          /* what ended the connection, a negative errno */
    uint64_t correlation;               /* of the last command */
    struct list kept;                   /* struct kept: what arrived during calls, oldest first */
    struct list attachments;            /* struct attachment, of attachment.c */
    struct list buffers;                /* struct buffer, of buffer.c */
    vmibus_handler handler;
    void *userdata;
};

/** Opens the memory channel of its own if it is not open. 0, an enum vmibus_error or a negative errno. */
int connection_open_memory(struct vmibus *bus);

/** Forgets what calls put aside. */
void connection_drop_kept(struct vmibus *bus);

/** Says anew what the epoll descriptor waits for. Harmless where there is none. */
void connection_arm(struct vmibus *bus);

/** A correlation id that the connection has not used. */
uint64_t connection_next_correlation(struct vmibus *bus);

#endif
