/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a module sees of the bus it learns as any control does: by a subscription, to the roster and to
 * memory contexts.  It hears of memory contexts, its own VMs' too: the authority may end one by itself.
 * Of others' VMs it is told only if it wants to add to them; each gets a handle, which lasts until the
 * VM goes.
 */
#ifndef CORE_SENSOR_OBSERVER_H
#define CORE_SENSOR_OBSERVER_H

#include <stdint.h>

struct loop;
struct vmibus_sensor_host;

/** Prepares it; nothing is observed yet. @param loop borrowed */
void sensor_observer_init(struct vmibus_sensor_host *host, struct loop *loop);

/**
 * Subscribes; what is there already follows from the loop, as all else.
 * @param session 16 octets, random
 * @return 0 or a negative errno: -EUSERS the bus takes no further control
 */
int sensor_observer_start(struct vmibus_sensor_host *host, const uint8_t *session);

/** Ends it: the module is told nothing any more. Harmless if it was never started. */
void sensor_observer_deinit(struct vmibus_sensor_host *host);

#endif
