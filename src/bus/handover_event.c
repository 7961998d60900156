/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "bus/control.h"
#include "bus/lease.h"
#include "util/fds.h"

/* Never reused. */
enum {
    EVENT_PLACE = 1,
    EVENT_FRAME = 2,
    EVENT_TAIL = 3,
    EVENT_FD = 4,
    EVENT_IS_LIVE = 5,
    EVENT_WITHDRAWN = 6,
    EVENT_TAIL_CHARGED = 7,
};

/* --- written ----------------------------------------------------------------------------------- */

static void put_fds(struct handover_writer *writer, const struct event_fds *fds) {
    for (size_t i = 0; fds && i < fds->n_fds; i++)
        handover_put_fd(writer, EVENT_FD, fds->fds[i]);
}

void handover_put_frame(struct handover_writer *writer, const struct vmibus_frame *frame, const struct tail *tail) {
    handover_put(writer, EVENT_FRAME, frame, sizeof(*frame));
    if (!tail)
        return;
    handover_put(writer, EVENT_TAIL, tail->data, tail->length);
    handover_put_number(writer, EVENT_TAIL_CHARGED, tail->charge.account != NULL);
}

void handover_put_event(struct bus_handover *handover, struct handover_writer *writer, uint16_t tag, struct event *event) {
    handover_begin(writer, tag);
    if (event->place) {
        handover_put_number(writer, EVENT_PLACE, event->place);
    } else {
        event->place = ++handover->n_places;
        handover_put_frame(writer, &event->frame, event->tail);
        put_fds(writer, event->fds);
        handover_put_number(writer, EVENT_IS_LIVE, event->live);
        handover_put_number(writer, EVENT_WITHDRAWN, event->withdrawn);
    }
    handover_end(writer);
}

void answer_handover_save(struct handover_writer *writer, const struct event *event) {
    handover_put_frame(writer, &event->frame, event->tail);
    put_fds(writer, event->fds);
}

void control_item_handover_save(struct handover_writer *writer, const struct control_item *item) {
    handover_put_frame(writer, &item->frame, item->tail);
    put_fds(writer, item->fds);
}

/* --- read -------------------------------------------------------------------------------------- */

static bool take_fd(const struct handover_record *record, struct event_parts *parts) {
    int fd;

    if (parts->n_fds == VMIBUS_FDS_PER_FRAME)
        return handover_wrong(record->handover, -EBADMSG);
    fd = handover_take_fd(record);
    if (fd >= 0)
        parts->fds[parts->n_fds++] = fd;
    return fd >= 0;
}

/* What indexes anything is checked here, and what every frame is. */
static bool is_sound(const struct event_parts *parts, uint32_t tail_bound) {
    const struct vmibus_frame *frame = &parts->frame;
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);

    if (!description || frame->header.direction != description->direction || frame->header.version != VMIBUS_PROTOCOL_VERSION)
        return false;
    if (frame->header.priority > VMIBUS_PRIORITY_URGENT || parts->tail_length > tail_bound ||
        frame->header.tail_length != parts->tail_length || frame->header.fd_count != parts->n_fds)
        return false;
    return frame->header.kind != VMIBUS_KIND_LEASE ||
           (frame->lease.lease_class >= VMIBUS_LEASE_CLASS_INPUT &&
            frame->lease.lease_class < VMIBUS_LEASE_CLASS_INPUT + LEASE_CLASSES);
}

/* Descriptors that were taken are the caller's, also if this fails. */
bool event_parts_take(struct handover_records records, uint32_t tail_bound, struct event_parts *parts) {
    struct handover *whole = records.handover;
    struct handover_record record;

    *parts = (struct event_parts){};
    while (handover_next(&records, &record))
        switch (record.tag) {
        case EVENT_FRAME:
            handover_copy(&record, &parts->frame, sizeof(parts->frame));
            break;
        case EVENT_TAIL:
            parts->tail = record.octets;
            parts->tail_length = record.length;
            break;
        case EVENT_FD:
            take_fd(&record, parts);
            break;
        case EVENT_PLACE:
            parts->place = handover_number(&record);
            break;
        case EVENT_IS_LIVE:
            parts->is_live = handover_number(&record);
            break;
        case EVENT_WITHDRAWN:
            parts->withdrawn = handover_number(&record);
            break;
        case EVENT_TAIL_CHARGED:
            parts->tail_charged = handover_number(&record);
            break;
        default:
            break;
        }
    if (!whole->error && !parts->place && !is_sound(parts, tail_bound))
        handover_wrong(whole, -EBADMSG);
    return !whole->error;
}

/* Without room for what was there before nothing can go on as it was. */
int handover_outcome(int r) {
    return r < 0 ? r : r > 0 ? -ENOBUFS : 0;
}

static struct event *event_from(const struct event_handover *where, const struct event_parts *parts, struct handover *whole) {
    struct account *account = where->account;
    struct event *event = event_new(where->pool, parts->is_live ? EVENT_LIVE : EVENT_ANSWER, &parts->frame);
    int r = event ? 0 : -ENOBUFS;

    if (r == 0)
        r = handover_outcome(event_set_tail(event, parts->tail_charged ? account : NULL, parts->tail, parts->tail_length));
    if (r == 0 && parts->n_fds && !account)
        r = -EBADMSG;
    if (r == 0)
        r = handover_outcome(event_dup_fds(event, account, parts->fds, parts->n_fds));
    if (r < 0) {
        handover_wrong(whole, r);
        return event_unref(event);
    }
    event->withdrawn = parts->withdrawn;
    return event;
}

static bool remember(struct bus_handover *handover, struct event *event) {
    if (handover->n_events == handover->events_capacity) {
        size_t capacity = 2 * handover->events_capacity + 64;
        struct event **events = reallocarray(handover->events, capacity, sizeof(*events));

        if (!events)
            return false;
        handover->events = events;
        handover->events_capacity = capacity;
    }
    handover->events[handover->n_events++] = event;
    return true;
}

/* Borrowed from the handover. NULL: something was wrong. */
struct event *handover_take_event(struct bus_handover *handover, const struct handover_record *record, struct account *account) {
    const struct event_handover where = {
        .pool = &handover->bus->events, .tail_bound = handover->bus->options.tail_bound, .account = account};
    struct handover *whole = record->handover;
    struct event *event = NULL;
    struct event_parts parts;

    if (event_parts_take(handover_in(record), where.tail_bound, &parts) && !parts.place) {
        event = event_from(&where, &parts, whole);
        if (event && !remember(handover, event)) {
            event = event_unref(event);
            handover_wrong(whole, -ENOMEM);
        }
    } else if (!whole->error && parts.place <= handover->n_events) {
        event = handover->events[parts.place - 1];
    } else {
        handover_wrong(whole, -EBADMSG);
    }
    fds_close(parts.fds, parts.n_fds);
    return event;
}

struct event *answer_handover_restore(const struct event_handover *where, struct handover_records records) {
    struct handover *whole = records.handover;
    struct event *event = NULL;
    struct event_parts parts;

    if (event_parts_take(records, where->tail_bound, &parts) && !parts.place)
        event = event_from(where, &parts, whole);
    else
        handover_wrong(whole, -EBADMSG);
    fds_close(parts.fds, parts.n_fds);
    return event;
}

bool control_item_handover_restore(const struct event_handover *where, struct control_item *item, struct handover_records records) {
    struct event *event = answer_handover_restore(where, records);

    *item = (struct control_item){};
    if (!event)
        return false;
    item->frame = event->frame;
    item->tail = tail_ref(event->tail);
    item->fds = event->fds;
    event->fds = NULL;
    event_unref(event);
    return true;
}
