/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sensor behind a socket: what it says goes to the bus (bus/sensor.h) or to the memory authority, by the
 * channel of its kind; what both tell it, and what it sees of the bus as a control does, leaves through one
 * outbox.  All that is sent to the sensor itself stays in one order: answers, commands, demand.
 *
 * It is believed in what it says of VMs, and trusted with nothing else:
 *   - a frame that the definition of the wire, or sensor_check.h, does not allow ends the connection;
 *   - what it has not read yet is bounded: beyond `commands` a command is answered PRESSURE in its name, beyond twice
 *     that the connection ends.  Demand that waits is brought up to date where it stands, so that no control can flood it;
 *   - a command that it has not answered within sensor_answer_ms ends the connection, and with it that command;
 *   - the endpoints that it offers are bounded, its octets and descriptors charged to its uid.
 * When the connection ends, its VMs lose their provider, and their commands are answered GONE.
 */
#ifndef TRANSPORT_SENSOR_SESSION_H
#define TRANSPORT_SENSOR_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/control.h"
#include "bus/sensor.h"
#include "transport/bus_home.h"
#include "transport/session.h"
#include "util/list.h"
#include "util/loop.h"
#include "util/slot_table.h"

struct authority_client;

struct sensor_session {
    struct session session;
    struct control control;         /**< its outbox, and what it observes */
    struct sensor sensor;           /**< from its first SENSOR_ANNOUNCE on */
    bool announced;
    struct bus_home *home;
    struct authority_client *memory; /**< NULL: it has a process of its own, or there is none */
    uint32_t n_memory;              /**< of its frames at the authority */
    struct loop_timer answer;       /**< for the oldest command that it has not answered */
    struct slot_table states;       /**< what it was told last of each endpoint and may not have taken */
    struct list waiting;            /**< those of them that may still wait */
};

/**
 * Opens a session, its WELCOME queued; its random name is made here.
 * @param principal one that the policy's sensor_users have
 * @param refusal says which limit was hit, if one was
 * @return 0, an enum vmibus_error (QUOTA, PRESSURE) or a negative errno
 */
int sensor_session_init(struct sensor_session *session, struct bus_home *home, const struct session_request *request,
                        struct vmibus_ack *refusal);

#endif
