/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "events.h"

#include <stdlib.h>

struct event *events_add(struct events *events, enum vmibus_kind kind) {
    struct event *event;

    if (events->n == EVENTS_MAX)
        return NULL;
    if (events->n == events->room) {
        size_t room = events->room ? 2 * events->room : 16;
        struct event *items = realloc(events->items, room * sizeof(*items));

        if (!items)
            return NULL;
        events->items = items;
        events->room = room;
    }
    event = &events->items[events->n++];
    *event = (struct event){.frame = {.header = {.kind = (uint16_t)kind}}};
    return event;
}

void events_clear(struct events *events) {
    free(events->items);
    *events = (struct events){};
}
