/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a look found, in the order in which it is to be told: made by the worker, published by the loop. */
#ifndef SENSORS_LINUX_EVENTS_H
#define SENSORS_LINUX_EVENTS_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/guest_linux.h>
#include <vmibus/protocol.h>

/** Events of one look at most: what is more, the next look finds again. A guest cannot make more of them than that. */
#define EVENTS_MAX 1024

struct event {
    struct vmibus_frame frame;
    size_t tail_length;
    char tail[VMIBUS_LINUX_MODULE_NAME_SIZE];
};

struct events {
    struct event *items;    /**< room for as many as there are, and some more */
    size_t n, room;
};

/** Room for one more, zeroed but for its kind; NULL: there may be no more, or there is no memory. */
struct event *events_add(struct events *events, enum vmibus_kind kind);

/** Forgets them, and frees what they held. */
void events_clear(struct events *events);

#endif
