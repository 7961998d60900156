/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host of one sensor: loads a module, starts it on the channels to bus and memory authority, stops
 * it.  What the module calls is in sensor_api.h, what it is told in sensor_inbox.h, and what it sees of
 * the bus as a control does in sensor_observer.h.
 */
#ifndef CORE_SENSOR_HOST_H
#define CORE_SENSOR_HOST_H

#include <stddef.h>

#include <vmibus/sensor.h>

#include "bus/control.h"
#include "bus/sensor.h"
#include "core/sensor_worker.h"
#include "util/list.h"
#include "util/loop.h"

struct authority_client;
struct vmibus_core;

/** A module of this ABI has at least these members; each that was appended later is asked for by sensor_module_has(). */
#define SENSOR_MODULE_LEAST offsetof(struct vmibus_sensor_module, retired)

#define sensor_module_has(module, member) \
    ((module)->struct_size >= offsetof(struct vmibus_sensor_module, member) + sizeof((module)->member) && (module)->member)

struct vmibus_sensor_host {
    struct vmibus_core *core;
    struct list link;               /**< core->sensor_hosts */
    const struct vmibus_sensor_module *module;
    void *library;                  /**< of dlopen(3), or NULL */
    void *instance;
    bool started;
    struct sensor sensor;           /**< as the bus sees it */
    struct authority_client *memory;
    struct account *account;
    struct region region;           /**< what its client at the authority holds */
    struct list endpoints;
    struct list replies;            /**< from the authority, to be handed on */
    struct loop_deferred reply;
    struct list sources;
    struct list timers;
    struct sensor_worker worker;
    bool observes;                  /**< roster and memory contexts, by the control below */
    struct control observer;
    struct loop_deferred observe;
    struct list early;              /**< memory contexts of endpoints that the observer has not heard of yet */
};

/**
 * Starts a sensor.
 * @param library given to dlclose(3) at the end, taken whatever the outcome; NULL: none
 * @return 0, or a negative errno: -ELIBBAD the module's ABI does not fit; else what its start() said
 */
int sensor_host_new(struct vmibus_core *core, const struct vmibus_sensor_module *module, void *library,
                    const struct vmibus_sensor_option *options, size_t n_options);

/** What a manifest says of a module. */
struct sensor_expectation {
    const char *name;
    uint32_t groups;
    uint32_t fallback;
};

/**
 * Loads a sensor from a file.
 * @param expected what it must be; NULL: anything
 * @return as sensor_host_new(); -ELIBACC cannot be loaded, -ELIBBAD no sensor or of another ABI, -ENOTUNIQ something else than
 *         expected
 */
int sensor_host_load(struct vmibus_core *core, const char *path, const struct sensor_expectation *expected,
                     const struct vmibus_sensor_option *options, size_t n_options);

/** Stops it: everything it offered is withdrawn. Takes and returns NULL. */
struct vmibus_sensor_host *sensor_host_free(struct vmibus_sensor_host *host);

#endif
