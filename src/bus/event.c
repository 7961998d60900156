/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/event.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/retained.h"
#include "util/fault.h"
#include "util/fds.h"

static void tail_fill(struct tail *tail, struct pool *pool, const void *data, size_t length) {
    tail->refs = 1;
    tail->length = (uint32_t)length;
    tail->pool = pool;
    tail->charge = (struct charge){};
    memcpy(tail->data, data, length);
}

int tail_new(struct tail **tailp, struct store *store, struct account *account, const void *data, size_t length) {
    struct pool *pool;
    struct tail *tail = store_take(store, sizeof(*tail) + length, account != NULL, &pool);
    int r;

    if (!tail)
        return REGION_FULL;
    tail_fill(tail, pool, data, length);
    r = account ? charge_take(&tail->charge, account, RESOURCE_ANSWERS, pool->block_size) : 0;
    *tailp = r ? tail_unref(tail) : tail;
    return r;
}

struct tail *tail_new_retained(const void *data, size_t length) {
    struct tail *tail = malloc(sizeof(*tail) + length);

    if (tail)
        tail_fill(tail, NULL, data, length);
    return tail;
}

struct tail *tail_unref(struct tail *tail) {
    if (!tail || --tail->refs > 0)
        return NULL;
    charge_release(&tail->charge);
    if (tail->pool)
        pool_give(tail->pool, tail);
    else
        free(tail);
    return NULL;
}

/* The largest tail with what it is counted by. */
static size_t largest_tail(size_t tail_bound) {
    return sizeof(struct tail) + tail_bound;
}

/* One more than can be charged: it is taken before it is known whether it can be paid. */
static size_t n_event_fds(const struct event_room *room) {
    return room->fds + 1;
}

int event_pool_init(struct event_pool *pool, struct arena *arena, const struct event_room *room) {
    int r;

    *pool = (struct event_pool){.live_capacity = room->live};
    r = pool_init(&pool->blocks, arena, sizeof(struct event), room->live + room->answers);
    if (r == 0)
        r = pool_init(&pool->fds, arena, sizeof(struct event_fds), n_event_fds(room));
    if (r == 0)
        r = store_init(&pool->tails, arena, room->tail_octets, largest_tail(room->tail_bound));
    if (r < 0)
        event_pool_deinit(pool);
    return r;
}

size_t event_pool_cost(const struct event_room *room) {
    return arena_cost(sizeof(struct event), room->live + room->answers) +
           arena_cost(sizeof(struct event_fds), n_event_fds(room)) +
           store_cost(room->tail_octets, largest_tail(room->tail_bound));
}

void event_pool_deinit(struct event_pool *pool) {
    pool_deinit(&pool->blocks);
    pool_deinit(&pool->fds);
    store_deinit(&pool->tails);
}

struct event *event_new(struct event_pool *pool, enum event_purpose purpose, const struct vmibus_frame *frame) {
    struct event *event;

    /* Blocks for answers are kept back, and so are always there. */
    if (purpose == EVENT_LIVE && (pool->n_live >= pool->live_capacity || fault_hit(FAULT_ALLOCATION) < 0))
        return NULL;
    event = pool_take(&pool->blocks);
    if (!event)
        return NULL;
    event->pool = pool;
    event->refs = 1;
    event->withdrawn = false;
    event->live = purpose == EVENT_LIVE;
    event->place = 0;
    pool->n_live += event->live;
    event->tail = NULL;
    event->fds = NULL;
    event->frame = *frame;
    event->retained = (int8_t)retained_kind_of(frame);
    event->frame.header.tail_length = 0;
    event->frame.header.fd_count = 0;
    return event;
}

struct event *event_unref(struct event *event) {
    if (!event || --event->refs > 0)
        return NULL;
    if (event->tail || event->fds) { /* seldom */
        tail_unref(event->tail);
        event_fds_free(event->fds);
    }
    event->pool->n_live -= event->live;
    pool_give(&event->pool->blocks, event);
    return NULL;
}

int event_set_tail(struct event *event, struct account *account, const void *data, size_t length) {
    int r;

    assert(!event->tail);
    if (length == 0)
        return 0;
    r = tail_new(&event->tail, &event->pool->tails, account, data, length);
    if (r)
        return r;
    event->frame.header.tail_length = event->tail->length;
    return 0;
}

int event_dup_fds(struct event *event, struct account *account, const int *fds, size_t n_fds) {
    struct event_fds *copies;
    int r;

    assert(!event->fds && n_fds <= VMIBUS_FDS_PER_FRAME);
    if (n_fds == 0)
        return 0;
    copies = pool_take(&event->pool->fds);
    if (!copies)
        return -ENOBUFS;
    *copies = (struct event_fds){.pool = &event->pool->fds};
    r = charge_take(&copies->charge, account, RESOURCE_FDS, n_fds);
    if (r == 0)
        r = fault_hit(FAULT_FD_PASSING);
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
    pool_give(fds->pool, fds);
    return NULL;
}
