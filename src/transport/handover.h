/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a listener hands over: its socket, and peer by peer the connection with what was received of a frame that is not
 * whole, what is not sent yet of the frames that were taken from the session, and the session, as its home writes it.
 *
 * A peer that is about to go, or whose session its home does not hand over, ends before anything is written
 * (listener_handover_end_others()).
 *
 * And what a link hands over (link.h), which knows no home: socket, queue, half a frame.
 */
#ifndef TRANSPORT_HANDOVER_H
#define TRANSPORT_HANDOVER_H

#include <stdbool.h>

#include "util/handover.h"

struct link;
struct listener;

/** Ends the peers that are not handed over, so that nothing of theirs is. The listener is paused. */
void listener_handover_end_others(struct listener *listener);

/**
 * Writes a paused listener, into a record that the caller has begun.
 * @param with_socket its socket too: nobody else gives it to the process that follows
 */
void listener_handover_save(struct listener *listener, struct handover_writer *writer, bool with_socket);

/** The listening socket, which is the caller's from then on; -1: there is none. */
int listener_handover_take_socket(struct handover_records records);

/** Makes the peers, of a listener that is paused and has none. False: something was wrong. */
bool listener_handover_restore(struct listener *listener, struct handover_records records);

/** Writes a link that is up, into a record that the caller has begun; nothing can be said on it from then on. */
void link_handover_save(struct link *link, struct handover_writer *writer);

/** Begins a link that is down with what was written. False: something was wrong, and it is to be ended. */
bool link_handover_restore(struct link *link, struct handover_records records);

#endif
