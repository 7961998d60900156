/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The epochs of a VM's memory: proposing layouts, comparing them with what was accepted, ending
 * epochs.
 *
 * Rules: a layout is proposed when there is no epoch, or in place of one that differs from what the
 * monitor shows now; it is read again and compared before a root is proposed (firmware turns shadow
 * RAM into ROM without an event, so what was read at reset does not hold), and after the events that
 * may mean hotplug.  What is plugged in has no event until the guest takes it, and none if it does
 * not, and shadow RAM and system management RAM come and go by the guest's own hand: while somebody
 * subscribes to memory contexts, the flat view is compared each MEMORY_WATCH_NS.  An epoch is ended
 * at once when the guest goes on after a stop that the bus did not cause, when RAM of it is gone from
 * the flat view, and when the monitor is lost: what happened meanwhile nobody would know.
 */
#ifndef SENSORS_MACHINE_MEMORY_H
#define SENSORS_MACHINE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "layout.h"

struct machine;

/** Readings in a row that may fail before only an event starts another. */
#define MEMORY_ATTEMPTS_BOUND 10

/** How often the flat view is compared. */
#define MEMORY_WATCH_NS (UINT64_C(1000) * 1000 * 1000)

/** Memory of one VM. */
struct memory {
    struct layout layout;
    struct layout_ranges accepted; /* of the epoch */
    struct layout_ranges proposed; /* waiting for the verdict */
    uint64_t epoch;                /**< 0: none */
    bool proposing;                /* a verdict is awaited */
    bool outdated;                 /* ... on something that does not hold any more */
    bool again;                    /* something happened during the reading */
    bool recheck;                  /* the root is to be found anew even if the layout is the same */
    unsigned int attempts;
    struct vmibus_sensor_timer *timer;
    bool standby;  /* another sensor provides the VM's memory */
    bool demanded; /* somebody subscribes to memory contexts */
    bool watching; /* the flat view was asked for */
    struct vmibus_sensor_timer *watch_timer;
    char refusal[512]; /**< why there is no layout, for people; empty: nothing to say */
};

/** Prepares. Returns 0 or a negative errno. */
int memory_init(struct machine *machine);

/** Frees. */
void memory_deinit(struct machine *machine);

/**
 * Reads the layout now; proposes it, or confirms the epoch. @a recheck: and finds the root anew.
 */
void memory_read(struct machine *machine, bool recheck);

/**
 * Memory may have been plugged in or taken away: looks at the flat view once, which ends the epoch if its RAM is
 * not there any more, and then reads the layout.
 */
void memory_suspect(struct machine *machine);

/** RAM may hold the octets of another moment: ends the epoch as RELOADED, and reads the layout for another. */
void memory_reloaded(struct machine *machine);

/** Ends the epoch, if there is one. Nothing follows by itself. */
void memory_end(struct machine *machine, enum vmibus_reason reason);

/** The connection is gone: a reading in progress has ended. */
void memory_lost(struct machine *machine);

/** The VM's process is gone, and the connection to it freed: forgets everything. */
void memory_forget(struct machine *machine);

/** Which kinds somebody wants. */
void memory_demand(struct machine *machine, uint64_t kinds);

/** Whether this sensor provides the VM's memory from now on, or another one does. Epochs known so far are not this one's. */
void memory_set_active(struct machine *machine, bool active);

/** The authority's verdict on a layout. */
void memory_verdict(struct machine *machine, uint64_t epoch, enum vmibus_error error,
                    enum vmibus_reason reason);

/** The authority ended an epoch of its own accord. */
void memory_ended(struct machine *machine, uint64_t epoch);

#endif
