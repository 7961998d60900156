/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power and run state: CMD_POWER and CMD_VM.
 *
 * A pause is ours if our `stop` is what stopped the guest.  A guest that somebody else paused is
 * resumed only by the explicit RESUME of the holder of the POWER lease, never by anything here.
 *
 * A pause of ours outlives neither the sensor nor a crash of it.  Before `stop` is sent the intent
 * is stored in the state directory, with the process it is for; after it, the fingerprint of the
 * vCPUs' registers.  An end in order resumes the guest; a start that finds the intent of a paused
 * guest whose registers have not moved resumes it; if they have moved somebody else let it run in
 * between and the pause is his.
 */
#ifndef SENSORS_QEMU_POWER_H
#define SENSORS_QEMU_POWER_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/queue.h>

#include <vmibus/sensor.h>

struct vm;

TAILQ_HEAD(power_commands, power_command);

/** Pause of one VM, and the commands being executed. */
struct power {
    struct power_commands commands;
    bool paused_by_us;
    uint64_t fingerprint; /**< of the registers after our stop; 0: not known */
    uint64_t stops;       /* STOP events seen when ours was sent */
};

/** Prepares. */
void power_init(struct vm *vm);

/** Frees without answering; the client must have been freed before. */
void power_deinit(struct vm *vm);

/** Executes CMD_POWER or CMD_VM. Returns 0 or a negative errno. */
int power_execute(struct vm *vm, const struct vmibus_sensor_command *command);

/**
 * A VM was connected to, and its run state is known: ends a pause that a crash of ours left behind.
 */
void power_recover(struct vm *vm);

/** The guest runs again, whoever did it: the pause is over. */
void power_resumed(struct vm *vm);

/** The sensor ends: ends a pause of ours. */
void power_stop(struct vm *vm);

/** The VM's process is gone, and the connection to it freed. */
void power_forget(struct vm *vm);

#endif
