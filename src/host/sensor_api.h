/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a module may call: the table of functions it lives on, and the handles that it gets from them
 * (endpoints, watched descriptors, timers).  Turns every call into the frame that it stands for, which
 * goes to the bus, or to the memory authority, by the channel of its kind.  Called from the loop's
 * thread only.
 */
#ifndef HOST_SENSOR_API_H
#define HOST_SENSOR_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "util/list.h"

struct vmibus_sensor_host;

/** A module's handle on an endpoint: one that it offered, or another sensor's that it joined. */
struct vmibus_sensor_endpoint {
    struct vmibus_sensor_host *host;
    struct list link;
    void *userdata;
    uint64_t offer;                 /**< correlation of its ENDPOINT_OFFER */
    bool answered;                  /**< the bus has answered the first one */
    char name[VMIBUS_NAME_BOUND + 1]; /**< which VM it is, as the sensor knows it */
    uint8_t uuid[16];
    uint32_t pid;
    uint64_t start_time;
    uint32_t slot;                  /**< 0: not answered yet, or not accepted by the bus */
    uint64_t generation;
    uint32_t groups;                /**< 0: another sensor's endpoint */
    bool withdrawn;                 /**< on its way out; it stays until its offer is answered */
    enum vmibus_reason why;         /**< ... and this is why it was withdrawn */
    struct list unsaid;             /**< until the offer is answered: sensor_unsaid.h */
    size_t n_unsaid;
    bool appearing;                 /**< the module has not heard of it yet, so it is told no demand */
    uint64_t demand;                /**< ... kept until then */
    uint64_t attached;              /**< epoch of ram; 0: none */
    struct vmibus_ram_range *ranges;
    size_t n_ranges;
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n_fds;
};

/** The table that every module is started with. */
extern const struct vmibus_sensor_api sensor_api;

/** Prepares the handles of a host; none yet. */
void sensor_api_init(struct vmibus_sensor_host *host);

/** Takes all handles back, for a module that has stopped: endpoints are withdrawn, watches and timers end. */
void sensor_api_deinit(struct vmibus_sensor_host *host);

/**
 * Makes a handle; the bus is not told, and slot is 0 until it or the caller sets it.
 * @param userdata the module's, borrowed
 * @param groups   what the module offers there; 0: the endpoint is another sensor's
 * @return owned by the host until sensor_endpoint_free(); NULL: no memory
 */
struct vmibus_sensor_endpoint *sensor_endpoint_new(struct vmibus_sensor_host *host, void *userdata, uint32_t groups);

/** Which VM a handle is for; the authority is told so with each layout. The offer's name has VMIBUS_NAME_BOUND octets at most. */
void sensor_endpoint_identify(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_offer *offer);

/** Frees a handle, after releasing the RAM attached through it; the bus is not told. */
void sensor_endpoint_free(struct vmibus_sensor_endpoint *endpoint);

/**
 * The bus has answered an offer: what was to be said about the VM is said, or dropped if there is an error.  The handle ends if
 * it was withdrawn meanwhile.
 * @param answer names slot and generation
 */
void sensor_endpoint_answered(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_header *answer, enum vmibus_error error);

/** The handle on the endpoint that a frame names, in the generation that it names; NULL: none, perhaps no more. */
struct vmibus_sensor_endpoint *sensor_endpoint_find(struct vmibus_sensor_host *host, const struct vmibus_header *header);

/** Tells the authority that an epoch is held no more. @param of names the endpoint: slot and generation */
void sensor_release(struct vmibus_sensor_host *host, const struct vmibus_header *of, uint64_t epoch);

/** Closes and releases the RAM attached through a handle, if any. */
void sensor_endpoint_detach_ram(struct vmibus_sensor_endpoint *endpoint);

/**
 * Says something about an endpoint to the bus, now or once it has answered the offer.
 * @param frame complete but for direction, version, endpoint and length of the tail, which are filled in; so is a
 *              timestamp of 0, with now
 * @param tail  @a tail_length octets, borrowed; NULL if 0
 * @return 0, or why it could not be kept for later: as sensor_unsaid_add()
 */
int sensor_endpoint_say(struct vmibus_sensor_endpoint *endpoint, struct vmibus_frame *frame, const void *tail,
                        size_t tail_length);

#endif
