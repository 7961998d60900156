/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which module a sensor of the configuration is, by its manifest; and what is told of one that cannot be had. */
#ifndef DAEMON_SENSOR_MODULE_H
#define DAEMON_SENSOR_MODULE_H

#include <limits.h>

#include "daemon/config.h"
#include "daemon/manifest.h"
#include "host/sensor_host.h"

struct sensor_module {
    struct manifest manifest;
    struct sensor_expectation expected; /**< points into the manifest */
    char path[PATH_MAX];
};

/**
 * Reads the manifest, and gives a sensor that keeps state a folder of its own in the state directory, by its option
 * state-directory, unless the configuration names another.
 * @return 0, or a negative errno; what is wrong has been told
 */
int sensor_module_find(struct sensor_module *module, const struct config *config, struct config_sensor *sensor);

/** Tells why a module was not loaded, or its start failed. @param r what sensor_library_load() or the start returned */
void sensor_module_tell(const struct config_sensor *sensor, const struct sensor_module *module, int r);

#endif
