/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The epochs of a VM's memory: proposing layouts, comparing them with what was accepted, ending
 * epochs.
 *
 * Rules: a layout is proposed when there is no epoch, or in place of one that differs from what the
 * monitor shows now; it is read again and compared before a root is proposed (firmware turns shadow
 * RAM into ROM without an event, so what was read at reset does not hold), and after the events that
 * may mean hotplug.  An epoch is ended at once when the guest goes on after a stop that the bus did not
 * cause, and when the monitor is lost: what happened meanwhile nobody would know.
 */
#ifndef SENSORS_QEMU_MEMORY_H
#define SENSORS_QEMU_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "layout.h"

struct vm;

/** Readings in a row that may fail before only an event starts another. */
#define MEMORY_ATTEMPTS_BOUND 10

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
};

/** Prepares. Returns 0 or a negative errno. */
int memory_init(struct vm *vm);

/** Frees. */
void memory_deinit(struct vm *vm);

/**
 * Reads the layout now; proposes it, or confirms the epoch. @a recheck: and finds the root anew.
 */
void memory_read(struct vm *vm, bool recheck);

/** RAM may hold the octets of another moment: ends the epoch as RELOADED, and reads the layout for another. */
void memory_reloaded(struct vm *vm);

/** Ends the epoch, if there is one. Nothing follows by itself. */
void memory_end(struct vm *vm, enum vmibus_reason reason);

/** The connection is gone: a reading in progress has ended. */
void memory_lost(struct vm *vm);

/** The VM's process is gone, and the connection to it freed: forgets everything. */
void memory_forget(struct vm *vm);

/** The authority's verdict on a layout. */
void memory_verdict(struct vm *vm, uint64_t epoch, enum vmibus_error error,
                    enum vmibus_reason reason);

/** The authority ended an epoch of its own accord. */
void memory_ended(struct vm *vm, uint64_t epoch);

#endif
