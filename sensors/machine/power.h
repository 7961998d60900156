/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power and run state: CMD_POWER and CMD_VM.
 *
 * A stop is ours if our `stop` is what stopped the guest.  A guest that somebody else paused is
 * resumed only by the explicit RESUME of the holder of the POWER lease, never by anything else here.
 *
 * A hold (HOLD, LET_GO: the bus sends each once) lies over the run state.  Under it PAUSE and RESUME say
 * what the guest is left in; without either it is left as it was.  If it is stopped already the hold counts,
 * and LET_GO resumes nothing.  A RESUME that we did not cause ends the hold.
 *
 * A stop of ours outlives neither the sensor nor a crash of it, be it for a pause or a hold.  Before
 * `stop` is sent the intent is stored in the state directory, with the process it is for; after it,
 * the fingerprint of the vCPUs' registers; it is removed once the guest goes on.  An end in order
 * resumes the guest; a start that finds the intent of a paused guest whose registers have not moved
 * resumes it; if they have moved somebody else let it run in between and the pause is his.
 *
 * A restart (saved.h) is no end: the guest stays as it is, and the next instance goes on with what this one knew, if the registers
 * have not moved meanwhile and the bus still has the endpoint.  Otherwise it makes good what is left, as after a crash; and if they
 * have moved, or the guest runs, the epoch that was kept ends.
 *
 * Commands of CMD_VM, and what a start has to resume, are executed one after the other.
 */
#ifndef SENSORS_MACHINE_POWER_H
#define SENSORS_MACHINE_POWER_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/queue.h>

#include <vmibus/sensor.h>

struct power_command;
struct machine;
struct saved_machine;

TAILQ_HEAD(power_commands, power_command);

/** Run state of one VM, as far as it is of our making, and the commands being executed. */
struct power {
    struct power_commands commands;
    struct power_command *current; /* CMD_VM that is under way */
    bool stopped;                  /**< our stop is what stopped the guest */
    bool paused;                   /**< ... and a PAUSE wants it so */
    bool held;                     /**< a HOLD is in force, whoever stopped the guest */
    bool resume;                   /**< a RESUME came meanwhile */
    bool unproven;                 /**< the instance before said so; nobody has looked since */
    bool abandoned;                /**< ... and nobody wants it any more */
    uint64_t fingerprint;          /**< of the registers after our stop; 0: not known */
    uint64_t stops;                /* STOP events seen when ours was sent */
};

/** Prepares. */
void power_init(struct machine *machine);

/** Frees without answering; the client must have been freed before. */
void power_deinit(struct machine *machine);

/** Executes CMD_POWER or CMD_VM. Returns 0 or a negative errno. */
int power_execute(struct machine *machine, const struct vmibus_sensor_command *command);

/**
 * A VM was connected to, and its run state is known: ends a stop that a crash of ours left behind.
 */
void power_recover(struct machine *machine);

/** What the instance before knew, before the endpoint is offered. */
void power_restore(struct machine *machine, const struct saved_machine *saved);

/** Nobody wants what was restored any more: the guest goes on. */
void power_abandon(struct machine *machine);

/** The guest runs again, whoever did it: every stop is over. */
void power_resumed(struct machine *machine);

/** The guest has left for another host: it must not be resumed here. */
void power_left(struct machine *machine);

/** The sensor ends: ends a stop of ours, unless another instance goes on with it. */
void power_stop(struct machine *machine);

/** The VM's process is gone, and the connection to it freed. */
void power_forget(struct machine *machine);

#endif
