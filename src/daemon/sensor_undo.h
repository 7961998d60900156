/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sensor whose bus does not come back: a guest that it held still for that bus goes on, and keys are released.
 *
 * For this its module is started, with what it kept, on a host that has no bus: whatever it offers is taken, as an endpoint that
 * was not there before, so that it undoes by itself what nobody wants any more.  What it could not undo meanwhile it goes on
 * keeping.
 */
#ifndef DAEMON_SENSOR_UNDO_H
#define DAEMON_SENSOR_UNDO_H

#include <stdbool.h>

#include <vmibus/sensor.h>

#include "daemon/sensor_keeping.h"
#include "host/sensor_host.h"
#include "util/loop.h"

/** How long a bus may be away before it is not waited for: as long as it would wait for the sensor (bus/claim.h). */
#define SENSOR_UNDO_AFTER_MS UINT64_C(10000)

/** How long the module has for it. */
#define SENSOR_UNDO_MS UINT64_C(3000)

/** Embedded; all zeros: nothing is being undone. */
struct sensor_undo {
    struct vmibus_sensor_host host;
    uint32_t last_slot;
    bool is_running;
};

/**
 * Starts the module.
 * @param loop, module, options, keeping borrowed; @a keeping while this runs
 * @return 0 or what start() said
 */
int sensor_undo_begin(struct sensor_undo *undo, struct loop *loop, const struct vmibus_sensor_module *module,
                      const struct vmibus_sensor_option *options, size_t n_options, const struct sensor_keeping *keeping);

/** Stops it; @a keeping has what it knows by now. Harmless if it does not run. */
void sensor_undo_end(struct sensor_undo *undo, struct sensor_keeping *keeping);

#endif
