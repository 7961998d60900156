/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensors that the configuration names: loaded by their manifests, and their state told to the
 * administrator as it changes.  A sensor that cannot be had is told and left out: it never stops the
 * bus.
 */
#ifndef DAEMON_SENSORS_H
#define DAEMON_SENSORS_H

#include "core/core.h"
#include "daemon/config.h"
#include "util/loop.h"

/** Tells what sensors announce: a control of the bus like any other. */
struct sensor_watch {
    struct vmibus *bus;
    struct loop_source source;
};

/** Begins to tell. 0 or a negative errno. */
int sensor_watch_init(struct sensor_watch *watch, struct vmibus_core *core);

/** Ends it, before the core is freed. */
void sensor_watch_deinit(struct sensor_watch *watch);

/** Loads all sensors but those that run apart. Returns how many could not be had. */
unsigned sensors_load(struct vmibus_core *core, const struct config *config);

#endif
