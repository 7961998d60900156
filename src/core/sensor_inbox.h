/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What comes in for a module from the bus and from the memory authority.  The authority's answers are
 * given to the module from the loop, never from inside one of its own calls, so that a module sees the
 * same order in one process as in two; only what the bus sends is handed on at once.
 */
#ifndef CORE_SENSOR_INBOX_H
#define CORE_SENSOR_INBOX_H

#include <vmibus/protocol.h>

#include "bus/sensor.h"
#include "memory/authority.h"

struct loop;
struct vmibus_sensor_host;

/** How the bus speaks to the sensor of a host: commands, cancellations, demand, answers to offers. */
extern const struct sensor_ops sensor_inbox_ops;

/** Prepares a host for what comes in, before there is a channel to hear from. @param loop borrowed */
void sensor_inbox_init(struct vmibus_sensor_host *host, struct loop *loop);

/** Drops what was not handed on; both channels are closed by then. */
void sensor_inbox_deinit(struct vmibus_sensor_host *host);

/**
 * How the authority speaks to the sensor of a host, the context: what it says is handed on later.  A sensor in this process cannot
 * be disconnected.
 */
extern const struct authority_client_ops sensor_inbox_memory_ops;

#endif
