/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Actors that come, ask, subscribe and go; and what is done when one is lost. */
#ifndef TESTS_DIFFERENTIAL_CONNECTION_H
#define TESTS_DIFFERENTIAL_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/protocol.h>

/** Connects an actor that has no connection. */
void connection_make(int actor);

/** Ends an actor's connection, and makes it anew. */
void connection_renew(int actor);

/** An actor was found lost. Fails the test, except with faults. */
void connection_lost(int actor);

/** Sends a command and reads its answer. False: the actor is lost, and has been forgotten. */
bool connection_ask(int actor, struct vmibus_frame *frame, const void *tail, size_t length, struct vmibus_frame *answer);

/** Subscribes an actor to what is retained, or to nothing any more. */
void connection_change_subscription(int actor);

#endif
