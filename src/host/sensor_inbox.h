/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What comes in for a module from the bus and from the memory authority.  The authority's answers are
 * given to the module from the loop, never from inside one of its own calls, so that a module sees the
 * same order in one process as in two; only what the bus sends is handed on at once.
 */
#ifndef HOST_SENSOR_INBOX_H
#define HOST_SENSOR_INBOX_H

#include <vmibus/protocol.h>

struct vmibus_sensor_host;

/** Prepares a host for what comes in. */
void sensor_inbox_init(struct vmibus_sensor_host *host);

/** Drops what was not handed on. */
void sensor_inbox_deinit(struct vmibus_sensor_host *host);

/** The bus sends: commands, cancellations, demand, answers to offers. @param tail header.tail_length octets, borrowed */
void sensor_inbox_hear_bus(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail);

/** The authority says something, which is handed on later. @param fds header.fd_count descriptors, duplicated */
void sensor_inbox_hear_memory(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds);

#endif
