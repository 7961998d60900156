/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a module says about a VM before the bus has answered its offer: kept in its order, and said once
 * slot and generation are known.  So a module need not know whether the bus is in its process, where
 * the answer comes at once, or in another one.
 */
#ifndef HOST_SENSOR_UNSAID_H
#define HOST_SENSOR_UNSAID_H

#include <vmibus/protocol.h>

struct vmibus_sensor_endpoint;

/** Frames about one VM that are kept at most. */
#define SENSOR_UNSAID_MAX 1024

/** Prepares a handle; nothing is kept yet. */
void sensor_unsaid_init(struct vmibus_sensor_endpoint *endpoint);

/**
 * Keeps a frame.
 * @param frame complete but for slot and generation
 * @param tail  header.tail_length octets, copied
 * @param fds   header.fd_count descriptors, duplicated
 * @return 0, -ENOBUFS (SENSOR_UNSAID_MAX are kept), -ENOMEM or what dup(2) says
 */
int sensor_unsaid_add(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame, const void *tail, const int *fds);

/** Says all of it by the channel of its kind. */
void sensor_unsaid_say(struct vmibus_sensor_endpoint *endpoint);

/** Drops all of it: there is no such endpoint, or the handle ends. */
void sensor_unsaid_drop(struct vmibus_sensor_endpoint *endpoint);

#endif
