/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a sensor module gave to be kept (save() of its module) for the instance that follows: in this process, when a connection was
 * lost, or in the next one, through the service manager's fd store.  The store's is taken out at the next start, whatever that
 * makes of it.
 */
#ifndef DAEMON_SENSOR_KEEPING_H
#define DAEMON_SENSOR_KEEPING_H

#include <stdint.h>

#include <vmibus/sensor.h>

#include "daemon/service.h"

struct vmibus_sensor_host;

/** Octets and descriptors are its own. All zeros: nothing is kept. */
struct sensor_keeping {
    struct vmibus_sensor_saved state;
    bool has_state;
};

/** Copies what the module of a host gives, in the place of what was kept; nothing, where it gives nothing. 0 or -ENOMEM. */
int sensor_keeping_take(struct sensor_keeping *keeping, struct vmibus_sensor_host *host);

/** What is kept; NULL: nothing. */
const struct vmibus_sensor_saved *sensor_keeping_state(const struct sensor_keeping *keeping);

/** Hands it to the service manager. 0, also if there is nothing, or a negative errno: the next process has nothing. */
int sensor_keeping_give(const struct sensor_keeping *keeping, const char *product, uint32_t timeout_ms);

/**
 * Takes what the process before handed to the manager.
 * @param given its state and descriptors are taken
 * @return 0, -ENOENT: there is nothing, or what was wrong with it
 */
int sensor_keeping_restore(struct sensor_keeping *keeping, struct service_fds *given);

/** Forgets it. Harmless on zeros. */
void sensor_keeping_deinit(struct sensor_keeping *keeping);

#endif
