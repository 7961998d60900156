/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a VM's vCPUs hold: REGISTERS, by `info registers -a` of the human monitor. */
#ifndef SENSORS_QEMU_VCPUS_H
#define SENSORS_QEMU_VCPUS_H

#include <sys/queue.h>

#include <vmibus/sensor.h>

struct vm;
struct vcpus_command;

TAILQ_HEAD(vcpus, vcpus_command);

void vcpus_init(struct vm *vm);

/** Frees what is under way; the connection is closed. */
void vcpus_deinit(struct vm *vm);

/** The endpoint is gone: nobody is answered any more. */
void vcpus_forget(struct vm *vm);

/** Executes REGISTERS. Returns as the module's execute(). */
int vcpus_execute(struct vm *vm, const struct vmibus_sensor_command *command);

#endif
