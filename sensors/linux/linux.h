/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sensor's instance, and what observed.c does for each endpoint. */
#ifndef SENSORS_LINUX_LINUX_H
#define SENSORS_LINUX_LINUX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/guest_linux.h>
#include <vmibus/sensor.h>

#include "events.h"
#include "loaded.h"
#include "processes.h"

/** The sensor as an embedder names it; loaded as a module it is found as vmibus_sensor_module. Options: vmibus-sensor-linux(7). */
extern const struct vmibus_sensor_module vmibus_linux_sensor;

#define OBSERVED_NS_PER_MS UINT64_C(1000000)

/** What the sensor tells. */
#define OBSERVED_KINDS (VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS) | VMIBUS_KIND_BIT(VMIBUS_KIND_MODULE))

/** How long it waits after a look that failed, at most. */
#define OBSERVED_PAUSE_MAX_NS (60000 * OBSERVED_NS_PER_MS)

/** Reads of a guest that a look may take: all guests' looks share a thread. */
#define OBSERVED_READS_MAX (UINT64_C(2) << 20)

/** Octets of a sentence that says why nothing can be seen. */
#define OBSERVED_TROUBLE_BOUND 512

struct observer {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    TAILQ_HEAD(, observed) guests;
    uint32_t interval_ms;
    bool degraded;          /**< as announced */
};

/** What a look works on: the worker's while one is under way. */
struct inspection {
    struct vmibus_guest_ram *ram;
    struct vmibus_linux *kernel;    /**< NULL until the first look opened it */
    struct vmibus_guest_root root;
    uint64_t note;
    uint64_t kinds;         /**< that are looked for, VMIBUS_KIND_BIT */
    struct processes processes;
    struct loaded loaded;
    struct events events;
    int result;             /**< of the last look */
    char why[OBSERVED_TROUBLE_BOUND];   /**< ... unless it is 0 */
};

/** An endpoint whose inside somebody may ask for. */
struct observed {
    TAILQ_ENTRY(observed) link;
    struct observer *observer;
    struct vmibus_sensor_endpoint *endpoint;    /**< NULL: it is gone, and a look under way keeps this here */
    struct vmibus_sensor_timer *timer;          /**< NULL until somebody asks */
    char name[VMIBUS_NAME_BOUND + 1];
    uint64_t kinds;         /**< in demand */
    uint64_t epoch;         /**< the current one, if its root is that of a kernel with a note; 0: none */
    struct vmibus_guest_root root;
    uint64_t note;
    uint64_t asked;         /**< epoch that attached() is to come for; 0: none */
    uint64_t attached;      /**< epoch of inspection.ram; 0: none */
    bool looking;           /**< a look is on the worker */
    bool abandoned;         /**< ... and what it finds is of no use any more */
    uint64_t pause;         /**< nanoseconds to wait after the next failure */
    char trouble[OBSERVED_TROUBLE_BOUND];       /**< why nothing can be seen; "": nothing is wrong */
    struct inspection inspection;
};

/** Begins with an endpoint; nothing is looked at. NULL: no memory. */
struct observed *observed_new(struct observer *observer, struct vmibus_sensor_endpoint *endpoint, const char *name);

/** Ends: everything is freed. No look may be on the worker. Takes and returns NULL. */
struct observed *observed_free(struct observed *observed);

/** The endpoint is gone; so is this, at once or with the look that is under way. */
void observed_vanish(struct observed *observed);

/** Which kinds somebody subscribes to. */
void observed_demand(struct observed *observed, uint64_t kinds);

/** Its memory context was published, or ended. */
void observed_see_memctx(struct observed *observed, const struct vmibus_memctx *memctx);

/** RAM, or why not. */
void observed_attached(struct observed *observed, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                       enum vmibus_reason reason);

/** Tells the sensor's state, if it is another one than was told: the first trouble of a guest, or none. */
void observer_announce(struct observer *observer);

#endif
