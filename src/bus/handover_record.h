/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of handover.c and what they share: each file saves and restores the objects of one subject, and has the numbers
 * of their records.  A function that takes a record notes in its handover what is wrong with it.
 */
#ifndef BUS_HANDOVER_RECORD_H
#define BUS_HANDOVER_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/handover.h"

struct account;
struct control;
struct endpoint;
struct event;
struct lease;
struct outbox;
struct tail;

/** Records of a control; never reused. */
enum handover_control_record {
    CONTROL_SUBSCRIPTION = 1,
    CONTROL_BINDING = 2,
    CONTROL_LEASE = 3,
    CONTROL_WAITER = 4,
    CONTROL_HOLD = 5,
    CONTROL_WATCH = 6,
    CONTROL_COMMAND = 7,
    CONTROL_OUTBOX = 8,
};

#define PUT(writer, table, object) handover_put_members((writer), (table), HANDOVER_N(table), (object))
#define TAKE(record, table, object) handover_take_member((record), (table), HANDOVER_N(table), (object))

/** An endpoint as something of a control's names it, and what belongs there. */
struct place {
    uint32_t slot;
    uint64_t generation;
    uint32_t lease_class;
};

/** Writes it into a record that has been begun. */
void handover_put_place(struct handover_writer *writer, const struct endpoint *endpoint, uint32_t lease_class);

/** The endpoint that a record names. NULL: something was wrong. */
struct endpoint *handover_take_place(const struct bus_handover *handover, const struct handover_record *record,
                                     struct place *place);

/** What is read of an event, or of a frame on its way out. */
struct event_parts {
    struct vmibus_frame frame;
    const uint8_t *tail;
    size_t tail_length;
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n_fds;
    uint64_t place;
    bool is_live, withdrawn, tail_charged;
};

/** Writes a frame and its tail; NULL: it has none. */
void handover_put_frame(struct handover_writer *writer, const struct vmibus_frame *frame, const struct tail *tail);

/** Writes an event, or its place if it was written before. */
void handover_put_event(struct bus_handover *handover, struct handover_writer *writer, uint16_t tag, struct event *event);

/** Reads parts; descriptors that were taken are the caller's, also if this fails. */
bool event_parts_take(struct handover_records records, uint32_t tail_bound, struct event_parts *parts);

/** Reads an event, borrowed from the handover. @param account who pays what it brings along. NULL: something was wrong */
struct event *handover_take_event(struct bus_handover *handover, const struct handover_record *record, struct account *account);

/** A result of a charge or a region as a negative errno: without room for what was there before nothing goes on as it was. */
int handover_outcome(int r);

/** Whether a number was given out already, in this incarnation or one before. @param last the last one of this that was */
bool handover_was_given(const struct bus *bus, uint64_t number, uint32_t last);

/** An endpoint with leases, retained state and who provides it; a lease of its. */
void handover_put_endpoint(struct bus_handover *handover, struct handover_writer *writer, uint16_t tag,
                           const struct endpoint *endpoint);
bool handover_take_endpoint(struct bus_handover *handover, const struct handover_record *record);

void handover_put_lease(struct handover_writer *writer, uint16_t tag, const struct lease *lease);
bool handover_take_lease(struct endpoint *endpoint, const struct handover_record *record);

/* What a control has: one record for each. */
void handover_put_leases(struct handover_writer *writer, const struct control *control);
void handover_put_holds(struct handover_writer *writer, const struct control *control);
void handover_put_watches(struct handover_writer *writer, const struct control *control);
void handover_put_commands(struct handover_writer *writer, const struct control *control);
void handover_put_outbox(struct bus_handover *handover, struct handover_writer *writer, const struct outbox *outbox);
void handover_take_waiter(struct bus_handover *handover, struct control *control, const struct handover_record *record);
void handover_take_held_lease(struct bus_handover *handover, struct control *control, const struct handover_record *record);
void handover_take_hold(struct bus_handover *handover, struct control *control, const struct handover_record *record);
void handover_take_watch(struct bus_handover *handover, struct control *control, const struct handover_record *record);
void handover_take_command(struct bus_handover *handover, struct control *control, const struct handover_record *record);
void handover_take_outbox(struct bus_handover *handover, struct control *control, const struct handover_record *record);

#endif
