/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine: what sensors of hosts have in common, whoever passes their commands on.  Its run state, its
 * power, the layout of its RAM, its kernel's root and its vCPUs are read and changed by a monitor.
 *
 * The sensor embeds a machine in what it knows of a VM, connects and introduces it, and tells what
 * happens to it; lifecycle, memory, root and power each own one aspect and speak to each other
 * through the functions of their headers.
 */
#ifndef SENSORS_MACHINE_MACHINE_H
#define SENSORS_MACHINE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "lifecycle.h"
#include "memory.h"
#include "monitor.h"
#include "power.h"
#include "process.h"
#include "root.h"
#include "saved.h"
#include "vcpus.h"

#define NANOSECONDS_PER_MS UINT64_C(1000000)

/** What the machines of a sensor share. */
struct machine_sensor {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct root_jobs jobs; /* searches on the worker, also those nobody waits for any more */
    char *state_directory; /**< where intents of pauses are kept; NULL: nowhere */
    struct saved_machines saved; /**< over a restart */
    const char *strange_process; /**< what to tell people where the process behind a monitor is not known */

    /** What the sensor says of itself may have changed. */
    void (*announce)(struct machine_sensor *sensor);
    /** The run state of a machine changed. May be NULL. */
    void (*run_state_changed)(struct machine *machine);
};

/** A machine. */
struct machine {
    struct machine_sensor *sensor;
    char *name;
    struct monitor *monitor;                 /**< NULL while there is none */
    struct vmibus_sensor_endpoint *endpoint; /**< NULL while there is none */
    struct process process;
    uint8_t uuid[16];
    bool is_kept; /**< the next instance goes on with it: the end of this one undoes nothing */

    struct lifecycle lifecycle;
    struct memory memory;
    struct root root;
    struct power power;
    struct vcpus vcpus;
};

/** Prepares what the machines of a sensor share; the caller sets the callbacks. */
void machine_sensor_init(struct machine_sensor *sensor, struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api);

/** Frees it; the machines, and the host's worker, have ended. */
void machine_sensor_deinit(struct machine_sensor *sensor);

/**
 * Prepares a machine. To be ended with machine_deinit(), also after a failure.
 * @param name copied
 * @return 0 or a negative errno
 */
int machine_init(struct machine *machine, struct machine_sensor *sensor, const char *name, size_t name_len);

/** Frees what it holds; its monitor was freed before. */
void machine_deinit(struct machine *machine);

/**
 * Before the machine in this process is offered: what the instance before knew of its power is so again.
 * @param saved receives the whole record, for what the sensor added
 * @return whether there was one
 */
bool machine_restore(struct machine *machine, const struct process *process, struct saved_machine *saved);

/** Its process is gone, and the monitor freed: nothing that was known of it holds. The endpoint is left to the caller. */
void machine_forget(struct machine *machine);

/**
 * The machine has an endpoint, and its monitor takes commands and told the run state: publishes what was observed, makes good
 * what a crash of ours left, and reads the layout.
 */
void machine_begin(struct machine *machine);

/** Tells the sensor that the run state changed, if it wants to know. */
void machine_run_state_changed(struct machine *machine);

/** Whether the monitor takes commands and the endpoint exists. */
bool machine_is_usable(const struct machine *machine);

/** Answers a command of kind @a kind. Stamps are the host's. */
void machine_complete(struct machine *machine, uint64_t id, uint16_t kind, enum vmibus_error error, enum vmibus_reason reason,
                      uint64_t value, uint64_t count);

/** Reads a UUID with or without dashes. */
bool machine_parse_uuid(const char *text, uint8_t *uuid);

#endif
