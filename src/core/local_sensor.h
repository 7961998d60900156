/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sensor in the bus's own process: a host whose channels are direct calls into the bus and the memory
 * authority, and that sees the bus by a control of its own.
 */
#ifndef CORE_LOCAL_SENSOR_H
#define CORE_LOCAL_SENSOR_H

#include <vmibus/sensor.h>

#include "bus/control.h"
#include "bus/sensor.h"
#include "host/sensor_host.h"
#include "util/list.h"
#include "util/loop.h"
#include "util/region.h"

struct authority_client;
struct vmibus_core;

struct local_sensor {
    struct vmibus_sensor_host host;
    struct vmibus_core *core;
    struct list link;               /**< core->sensors */
    struct sensor_library library;
    struct sensor sensor;           /**< as the bus sees it */
    struct authority_client *memory;
    struct account *account;
    struct region region;           /**< what its client at the authority holds */
    bool handed_over;               /**< it speaks no more: another process goes on with what it had */
    bool observes;                  /**< by the control below */
    struct control observer;
    struct loop_deferred observe;
};

/**
 * Starts a sensor.
 * @param library its module; taken whatever the outcome
 * @return 0, or a negative errno: -ELIBBAD the module's ABI does not fit; else what its start() said
 */
int local_sensor_new(struct vmibus_core *core, struct sensor_library library, const struct vmibus_sensor_option *options,
                     size_t n_options);

/** Loads a sensor from a file and starts it. As sensor_library_load() and local_sensor_new(). */
int local_sensor_load(struct vmibus_core *core, const char *path, const struct sensor_expectation *expected,
                      const struct vmibus_sensor_option *options, size_t n_options);

/** Stops it, and nothing is withdrawn: it has been handed over. */
void local_sensor_stop_handed_over(struct local_sensor *local);

/** Stops it: everything it offered is withdrawn. Takes and returns NULL. */
struct local_sensor *local_sensor_free(struct local_sensor *local);

#endif
