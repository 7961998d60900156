/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a bus hands over: its numbers, its endpoints with what is retained of them, leases, and, control by control, grants and
 * subscriptions, what each holds, waits for and watches, and what waits to be delivered to it, with the numbers of delivery.
 *
 * Before: whoever owns the bus stops reading from its controls, has bus_settle_begin() end what no restart survives, dispatches
 * until bus_is_settled() or patience runs out, has bus_settle() answer what is left, and writes.  After: it makes a bus with the
 * same incarnation, reads the bus's record, then each control's into a control_take_over() of its own, calls bus_handover_check()
 * and bus_handover_go_on(); until then nobody has been told anything, so that the whole can still be thrown away.
 *
 * An event that waits for several controls is one event again.  Both sides need one struct bus_handover for all records.
 */
#ifndef BUS_HANDOVER_H
#define BUS_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/handover.h"

struct account;
struct bus;
struct control;
struct control_item;
struct event;
struct event_pool;

struct bus_handover {
    struct bus *bus;                /**< borrowed */
    struct event **events;          /**< read: each referenced once */
    size_t n_events, events_capacity;
    uint32_t n_places;              /**< written */
};

/** Ends what cannot go on elsewhere: holds at sensors that keep nothing. */
void bus_settle_begin(struct bus *bus);

/** Whether nothing is under way at a sensor, or waits for its record (util/audit.h). */
bool bus_is_settled(const struct bus *bus);

/** Answers what is under way yet GONE, RESTARTED: nobody knows what a sensor did of it, and no other process asks for a record. */
void bus_settle(struct bus *bus);

/** Begins either side. */
void bus_handover_init(struct bus_handover *handover, struct bus *bus);

/** Ends it. */
void bus_handover_deinit(struct bus_handover *handover);

/** Writes numbers and endpoints, into a record that the caller has begun. */
void bus_handover_save(struct bus_handover *handover, struct handover_writer *writer);

/** Writes a control, into a record that the caller has begun; the bus must have been written before. */
void control_handover_save(struct bus_handover *handover, struct handover_writer *writer, const struct control *control);

/** Writes a frame on its way out with what it brings along, into a record that the caller has begun. */
void control_item_handover_save(struct handover_writer *writer, const struct control_item *item);

/** The incarnation that a bus's record tells. 0: none. */
uint32_t bus_handover_incarnation(struct handover_records records);

/** Reads what bus_handover_save() wrote into a bus that has no endpoints yet. False: something was wrong. */
bool bus_handover_restore(struct bus_handover *handover, struct handover_records records);

/** Reads a control, after control_take_over(). False: something was wrong, and the control is to be taken away. */
bool control_handover_restore(struct bus_handover *handover, struct control *control, struct handover_records records);

/** Where an event is restored: from which pool, with a tail of so many octets at most, and who pays for what it brings along. */
struct event_handover {
    struct event_pool *pool;
    uint32_t tail_bound;
    struct account *account;
};

/** Reads a frame on its way out. False: something was wrong; @a item is empty. */
bool control_item_handover_restore(const struct event_handover *where, struct control_item *item, struct handover_records records);

/** Writes an answer that waits to be taken, into a record that the caller has begun. */
void answer_handover_save(struct handover_writer *writer, const struct event *event);

/** Reads one. NULL: something was wrong. */
struct event *answer_handover_restore(const struct event_handover *where, struct handover_records records);

/** Whether all is there: each lease has its holder. Notes it in @a whole if not. */
bool bus_handover_check(const struct bus_handover *handover, struct handover *whole);

/** Everybody is there: timers run, sensors are waited for, and the policy of now is applied. */
void bus_handover_go_on(struct bus *bus);

#endif
