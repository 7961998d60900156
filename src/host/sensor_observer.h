/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a module sees of the bus it learns as any control does: by a subscription, to the roster and to
 * memory contexts.  It hears of memory contexts, its own VMs' too: the authority may end one by itself.
 * Of others' VMs it is told only if it wants to add to them; each gets a handle, which lasts until the
 * VM goes.
 *
 * Which VMs are the module's own is known from the answers to its offers.  What is observed before such
 * an answer waits for it, or an own VM would be taken for another's.
 */
#ifndef HOST_SENSOR_OBSERVER_H
#define HOST_SENSOR_OBSERVER_H

#include <vmibus/protocol.h>

struct vmibus_sensor_host;

/** The pattern of what is subscribed. */
#define SENSOR_OBSERVER_PATTERN "*"

/** Prepares it; nothing is observed yet. */
void sensor_observer_init(struct vmibus_sensor_host *host);

/** Drops what waits. */
void sensor_observer_deinit(struct vmibus_sensor_host *host);

/** The SUBSCRIBE that begins it, with SENSOR_OBSERVER_PATTERN as its tail. */
void sensor_observer_subscribe(struct vmibus_frame *frame);

/** An event of the subscription. @param tail header.tail_length octets, borrowed */
void sensor_observer_hear(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail);

/** The last offer of an own VM was answered: what waited for that is observed. */
void sensor_observer_go_on(struct vmibus_sensor_host *host);

#endif
