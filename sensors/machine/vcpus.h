/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a VM's vCPUs hold: REGISTERS, by `info registers -a` of the human monitor. */
#ifndef SENSORS_MACHINE_VCPUS_H
#define SENSORS_MACHINE_VCPUS_H

#include <sys/queue.h>

#include <vmibus/sensor.h>

struct machine;
struct vcpus_command;

TAILQ_HEAD(vcpus, vcpus_command);

void vcpus_init(struct machine *machine);

/** Frees what is under way; the connection is closed. */
void vcpus_deinit(struct machine *machine);

/** The endpoint is gone: nobody is answered any more. */
void vcpus_forget(struct machine *machine);

/** Executes REGISTERS. Returns as the module's execute(). */
int vcpus_execute(struct machine *machine, const struct vmibus_sensor_command *command);

#endif
