/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/event.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/fds.h"

struct tail *tail_new(const void *data, size_t length) {
    struct tail *tail = malloc(sizeof(*tail) + length);

    if (!tail)
        return NULL;
    tail->refs = 1;
    tail->length = (uint32_t)length;
    memcpy(tail->data, data, length);
    return tail;
}

struct tail *tail_ref(struct tail *tail) {
    if (tail)
        tail->refs++;
    return tail;
}

struct tail *tail_unref(struct tail *tail) {
    if (tail && --tail->refs == 0)
        free(tail);
    return NULL;
}

int event_pool_init(struct event_pool *pool, size_t live, size_t answers) {
    *pool = (struct event_pool){.live_capacity = live};
    return pool_init(&pool->blocks, sizeof(struct event), live + answers);
}

void event_pool_deinit(struct event_pool *pool) {
    pool_deinit(&pool->blocks);
}

struct event *event_new(struct event_pool *pool, enum event_purpose purpose, const struct vmibus_frame *frame) {
    struct event *event;

    if (purpose == EVENT_LIVE && pool->blocks.in_use >= pool->live_capacity)
        return NULL;
    event = pool_take(&pool->blocks);
    if (!event)
        return NULL;
    event->pool = pool;
    event->refs = 1;
    event->withdrawn = false;
    event->tail = NULL;
    event->fds = NULL;
    event->frame = *frame;
    event->frame.header.tail_length = 0;
    event->frame.header.fd_count = 0;
    return event;
}

struct event *event_ref(struct event *event) {
    event->refs++;
    return event;
}

struct event *event_unref(struct event *event) {
    if (!event || --event->refs > 0)
        return NULL;
    tail_unref(event->tail);
    event_fds_free(event->fds);
    pool_give(&event->pool->blocks, event);
    return NULL;
}

int event_set_tail(struct event *event, const void *data, size_t length) {
    assert(!event->tail);
    if (length == 0)
        return 0;
    event->tail = tail_new(data, length);
    if (!event->tail)
        return -ENOMEM;
    event->frame.header.tail_length = event->tail->length;
    return 0;
}

int event_dup_fds(struct event *event, struct account *account, const int *fds, size_t n_fds) {
    struct event_fds *copies;
    int r;

    assert(!event->fds && n_fds <= VMIBUS_FDS_PER_FRAME);
    if (n_fds == 0)
        return 0;
    copies = calloc(1, sizeof(*copies));
    if (!copies)
        return -ENOMEM;
    r = charge_take(&copies->charge, account, RESOURCE_FDS, n_fds);
    for (size_t i = 0; r == 0 && i < n_fds; i++) {
        int fd = fd_dup(fds[i]);

        if (fd < 0)
            r = fd;
        else
            copies->fds[copies->n_fds++] = fd;
    }
    if (r) {
        event_fds_free(copies);
        return r;
    }
    event->fds = copies;
    event->frame.header.fd_count = copies->n_fds;
    return 0;
}

struct event_fds *event_fds_free(struct event_fds *fds) {
    if (!fds)
        return NULL;
    fds_close(fds->fds, fds->n_fds);
    charge_release(&fds->charge);
    free(fds);
    return NULL;
}
