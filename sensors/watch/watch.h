/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sensor's instance, and what guest.c does for each endpoint. */
#ifndef SENSORS_WATCH_WATCH_H
#define SENSORS_WATCH_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/guest.h>
#include <vmibus/sensor.h>

#include "range.h"

#define WATCH_NS_PER_MS UINT64_C(1000000)

/** The sensor as an embedder names it; loaded as a module it is found as vmibus_sensor_module. Options: vmibus-sensor-watch(7). */
extern const struct vmibus_sensor_module vmibus_watch_sensor;

/** Pages that are looked at on the loop's thread; more are the worker's. */
#define WATCH_PAGES_ON_LOOP 16

TAILQ_HEAD(ranges, range);
TAILQ_HEAD(guests, guest);

struct watch {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct guests guests;
    uint32_t interval_ms;   /**< the shortest */
    uint32_t octets;        /**< of all ranges of an endpoint */
    uint32_t pages;         /**< looked at in a second, of an endpoint */
};

/** An endpoint that ranges may be watched of. */
struct guest {
    TAILQ_ENTRY(guest) link;
    struct watch *watch;
    struct vmibus_sensor_endpoint *endpoint;    /**< NULL: it is gone, and a look under way keeps this here */
    struct vmibus_sensor_timer *timer;          /**< NULL until somebody watches */
    struct ranges ranges;
    uint32_t octets;        /**< of the ranges that go on */
    uint32_t pages;         /**< ... that they take each second */
    uint64_t epoch;         /**< the current one; 0: none */
    struct vmibus_guest_root root;  /**< levels 0: not known yet */
    uint64_t asked;         /**< epoch that attached() is to come for; 0: none */
    uint64_t attached;      /**< epoch of ram; 0: none */
    struct vmibus_guest_ram *ram;
    bool may_block;         /**< RAM is private to a process: it is read on the worker */
    uint8_t *scratch;       /**< RANGE_LEN_MAX octets; NULL until somebody watches */
    bool looking;           /**< a look is under way, which owns ram, scratch and the ranges in looks */
    struct ranges looks;
};

/** Begins with an endpoint; nothing is watched, nothing is waited for. NULL: no memory. */
struct guest *guest_new(struct watch *watch, struct vmibus_sensor_endpoint *endpoint);

/** Ends: everything is freed, nobody is told. No look may be on the worker. Takes and returns NULL. */
struct guest *guest_free(struct guest *guest);

/** The endpoint is gone; the guest goes with it, or with the look that is under way. */
void guest_vanish(struct guest *guest);

/** Executes WATCH. */
void guest_execute(struct guest *guest, const struct vmibus_sensor_command *command);

/** A command is not wanted any more. */
void guest_cancel(struct guest *guest, uint64_t id);

/** Its memory context was published, or ended. */
void guest_see_memctx(struct guest *guest, const struct vmibus_memctx *memctx);

/** RAM, or why not. */
void guest_attached(struct guest *guest, const struct vmibus_sensor_ram *ram, enum vmibus_error error, enum vmibus_reason reason);

#endif
