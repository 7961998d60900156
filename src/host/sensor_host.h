/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host of one sensor: a module, its instance, and all that it is given to live on.  It is the same
 * in the bus's process and in one of its own: where bus and memory authority are is known to the
 * channel alone, which carries frames to them, and brings what they say to sensor_inbox.h (answers,
 * commands) and sensor_observer.h (what a control would see).  What the module calls is in
 * sensor_api.h.
 *
 * Whoever owns a host makes the channel: core/local_sensor.h in the bus's process, daemon/remote_sensor.h over sockets.
 */
#ifndef HOST_SENSOR_HOST_H
#define HOST_SENSOR_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "host/sensor_worker.h"
#include "util/list.h"
#include "util/loop.h"

/** A module of this ABI has at least these members; each that was appended later is asked for by sensor_module_has(). */
#define SENSOR_MODULE_LEAST offsetof(struct vmibus_sensor_module, retired)

#define sensor_module_has(module, member) \
    ((module)->struct_size >= offsetof(struct vmibus_sensor_module, member) + sizeof((module)->member) && (module)->member)

/** Where a host's frames go. What is answered may come from inside of either, or later. */
struct sensor_channel_ops {
    /** To the bus: what a sensor says, and ACKs, with header.fd_count descriptors (borrowed). */
    void (*say)(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds);
    /** To the memory authority. */
    void (*submit)(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds);
};

struct vmibus_sensor_host {
    struct loop *loop;                          /**< borrowed */
    const struct sensor_channel_ops *channel;
    const struct vmibus_sensor_module *module;
    void *instance;
    bool started;
    const struct vmibus_sensor_saved *saved; /**< of the instance before, while this one starts; NULL: none */
    bool has_pages;                 /**< the last descriptor of an answer to MEM_ATTACH is an epoch page */
    uint32_t tail_bound;            /**< octets of a tail, as WELCOME tells */
    uint64_t last_offer;            /**< correlation of the last ENDPOINT_OFFER */
    uint32_t n_unanswered;          /**< own VMs that were offered, and the bus has not answered */
    struct list endpoints;
    struct list replies;            /**< from the authority, to be handed on */
    struct loop_deferred reply;
    struct list sources;
    struct list timers;
    struct sensor_worker worker;
    struct list early;              /**< memory contexts of endpoints that the observer has not heard of yet */
    struct list withheld;           /**< what was observed while an own VM's offer was unanswered */
};

/** What a manifest says of a module. */
struct sensor_expectation {
    const char *name;
    uint32_t groups;
    uint32_t fallback;
};

/** A module, and the library that it came in. */
struct sensor_library {
    const struct vmibus_sensor_module *module;
    void *handle;                   /**< of dlopen(3); NULL: none */
};

/**
 * Loads a module from a file.
 * @param expected what it must be; NULL: anything
 * @return 0; -ELIBACC cannot be loaded (dlerror(3) knows why), -ELIBBAD no sensor or of another ABI, -ENOTUNIQ something else
 *         than expected
 */
int sensor_library_load(struct sensor_library *library, const char *path, const struct sensor_expectation *expected);

/** Unloads it, after all that came from it has ended. Harmless on zeros. */
void sensor_library_unload(struct sensor_library *library);

/** Whether a module is of this ABI: 0 or -ELIBBAD. */
int sensor_module_check(const struct vmibus_sensor_module *module);

/** Whether it wants to see the bus as a control does: the roster, and memory contexts. */
bool sensor_module_observes(const struct vmibus_sensor_module *module);

/**
 * Prepares a host, before there is a channel to hear from.
 * @param loop, module, channel borrowed
 */
void sensor_host_init(struct vmibus_sensor_host *host, struct loop *loop, const struct vmibus_sensor_module *module,
                      const struct sensor_channel_ops *channel, uint32_t tail_bound);

/** Starts the module, once its channel is open. 0 or what its start() said. */
int sensor_host_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_option *options, size_t n_options);

/** Asks the module what the next instance is to know; it stays the module's. 0, -ENOTSUP, or what it said. */
int sensor_host_save(struct vmibus_sensor_host *host, struct vmibus_sensor_saved *state);

/** Stops it, while the channel is still there: everything that it offered is withdrawn. Harmless if it never started. */
void sensor_host_stop(struct vmibus_sensor_host *host);

/** Drops what was not handed on; the channel is closed by then. */
void sensor_host_deinit(struct vmibus_sensor_host *host);

#endif
