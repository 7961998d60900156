/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sensor as the bus sees it: someone who is sent commands and is heard, in frames only, so that it
 * can be in this process or in one of its own.
 */
#ifndef BUS_SENSOR_H
#define BUS_SENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/list.h"

struct bus;
struct endpoint;
struct provider;
struct sensor;

struct sensor_ops {
    /** Sends the sensor a frame: a command (header.correlation is its id), CANCEL, DEMAND, INPUT_RELEASE, or an ACK. */
    void (*send)(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail);
};

struct sensor {
    struct bus *bus;
    const struct sensor_ops *ops;
    struct list link;           /**< bus->sensors */
    struct list providers;      /**< what it offers */
    uint16_t id;
    uint32_t preference;        /**< of equals the lowest is the active provider; see sensor_place.h */
    uint8_t session[16];        /**< by which the memory authority knows it; zeros: not at all */
    enum vmibus_sensor_state state;
    uint32_t groups;
    uint32_t fallback;
    uint32_t n_endpoints;
    uint32_t max_endpoints;     /**< VMs that it may offer; 0: no bound of its own */
    bool keeps;                 /**< hands its state over when it is started anew: what it holds still stays so */
    char name[32];
};

/** Adds a sensor; it is heard of once it announced itself. 0, or VMIBUS_ERROR_PRESSURE: too many sensors. */
int sensor_init(struct sensor *sensor, struct bus *bus, const struct sensor_ops *ops);

/** Takes it away: its endpoints lose their provider, its commands are answered GONE. */
void sensor_deinit(struct sensor *sensor);

/**
 * The one sensor of a name.
 * @param refusal filled if it is NULL: UNSUPPORTED, NO_PROVIDER (nobody has it) or VALIDATION, SENSOR_NAME (several have)
 */
struct sensor *sensor_named(struct bus *bus, const char *name, struct vmibus_ack *refusal);

/**
 * Hears a sensor: SENSOR_ANNOUNCE, ENDPOINT_OFFER, ENDPOINT_WITHDRAW, published events, and ACKs to commands.  What makes no sense
 * is ignored: a sensor may speak of an endpoint that has just gone.
 * @param tail header.tail_length octets, borrowed; NULL although there are some: they were lost, and an event is a gap
 * @param fds header.fd_count of them, borrowed: an ACK's; NULL: none
 */
void sensor_hear(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail, const int *fds);

#endif
