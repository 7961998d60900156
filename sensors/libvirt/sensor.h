/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An instance of the libvirt sensor: its options, its connection, and the domains that it follows.
 */
#ifndef SENSORS_LIBVIRT_SENSOR_H
#define SENSORS_LIBVIRT_SENSOR_H

#include <stdbool.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

#include "connection.h"
#include "domain.h"
#include "exchange.h"
#include "machine/machine.h"
#include "options.h"

/** What the sensor provides; MEMORY and REGISTERS not where the monitor is forbidden. */
#define LIBVIRT_GROUPS                                                                                                             \
    (VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT | VMIBUS_GROUP_MEMORY | VMIBUS_GROUP_REGISTERS)

/** An instance. */
struct libvirt {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct machine_sensor machines;
    struct options options;
    struct exchange *exchange;
    struct vmibus_sensor_source *source; /* of the exchange */
    struct connection connection;
    bool events_begun;
    struct domains domains;
    char message[512]; /* why the connection is not there; empty: it is */
    bool announced;
    enum vmibus_sensor_state announced_state;
    char announced_message[512];
};

/** Tells the host the state of the whole sensor, if it changed. */
void libvirt_announce(struct libvirt *libvirt);

#endif
