/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sensor in a process of its own: a host whose channels are connections, to the bus and, where WELCOME
 * names a socket for it, to the memory authority.
 *
 * Making the connections waits, some seconds at most; nothing does afterwards.  What a bus does not read
 * is kept up to REMOTE_SENSOR_UNSENT octets.  When a connection ends the module cannot go on as it is, because every
 * endpoint, epoch and command that it knows was the connection's: it is stopped, and started anew with the next one.
 */
#ifndef DAEMON_REMOTE_SENSOR_H
#define DAEMON_REMOTE_SENSOR_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/sensor.h>

#include "client/socket_link.h"
#include "host/sensor_host.h"
#include "util/loop.h"

#define REMOTE_SENSOR_UNSENT ((size_t)64 << 20)

struct remote_sensor;

/**
 * A connection ended, and the sensor is to be freed; not from inside of any function of the module.
 * @param error negative errno: -ECONNRESET the other end closed it, -ENOBUFS it does not read
 * @param why   what the bus said before it closed; error 0: nothing
 */
typedef void (*remote_sensor_lost_fn)(void *context, int error, const struct vmibus_error_body *why);

struct remote_channel {
    struct remote_sensor *remote;
    struct socket_link *link;       /**< NULL: not open */
    struct loop_source source;
    struct loop_deferred again;     /**< frames have been received that are not handed on yet */
};

struct remote_sensor {
    struct vmibus_sensor_host host;
    struct remote_channel bus;
    struct remote_channel memory;   /**< not open: its frames go by the bus's, if there is an authority at all */
    enum vmibus_memory_location location;
    struct remote_channel *dispatching;
    int error;                      /**< of a connection; 0: they are there */
    struct vmibus_error_body why;
    struct loop_deferred end;
    remote_sensor_lost_fn lost;
    void *context;
};

/** What a sensor is made of. */
struct remote_sensor_options {
    struct loop *loop;                              /**< borrowed */
    const struct vmibus_sensor_module *module;      /**< borrowed */
    const char *socket;                             /**< of the bus */
    const char *memory;                             /**< of the memory authority, the only one taken; NULL: as the bus says */
    const struct vmibus_sensor_saved *saved;        /**< of the instance before, borrowed while this one starts; NULL: none */
    const struct vmibus_sensor_option *options;     /**< of the module */
    size_t n_options;
    remote_sensor_lost_fn lost;
    void *context;
};

/** What came of connecting, beside the result. */
struct remote_sensor_failure {
    struct vmibus_error_body refusal;   /**< where an enum vmibus_error is returned */
    bool of_module;                     /**< the connections were there, but the module did not start */
    bool of_memory;                     /**< it was the memory authority's connection */
    bool of_another;                    /**< -EPERM: the bus names another memory authority than is wanted */
};

/**
 * Connects, announces the sensor and starts its module.
 * @return 0, an enum vmibus_error that the bus said, or a negative errno
 */
int remote_sensor_new(struct remote_sensor **remotep, const struct remote_sensor_options *options,
                      struct remote_sensor_failure *failure);

/** Stops the module, which withdraws what it offered, and closes the connections. Takes and returns NULL. */
struct remote_sensor *remote_sensor_free(struct remote_sensor *remote);

/**
 * The sensor is about to end and to be started anew: the bus is told, so that its VMs wait for it, and nothing is said any more.
 * remote_sensor_free() is what follows.
 */
void remote_sensor_restarts(struct remote_sensor *remote);

#endif
