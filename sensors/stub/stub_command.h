/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Executing commands on a synthetic VM: at once, or, where the options ask for trouble, late, never
 * or with an error.  Executed at once, a CMD_INPUT costs no allocation and no system call.
 */
#ifndef STUB_COMMAND_H
#define STUB_COMMAND_H

#include "stub_vm.h"

#define STUB_COMMANDS_MAXIMUM 1024 /* waiting, per VM; beyond it PRESSURE */

/** Executes a command as struct vmibus_sensor_module says. */
int stub_command_execute(struct stub_vm *vm, const struct vmibus_sensor_command *command);

/** Answers a waiting command EXPIRED, CANCELLED. One that does not wait is left alone. */
void stub_command_cancel(struct stub_vm *vm, uint64_t id);

/** Forgets what waits: the bus has answered it GONE. */
void stub_commands_drop(struct stub_vm *vm);

/** The queue's part of stub_vm_init(). */
int stub_commands_init(struct stub_vm *vm);

/** The queue's part of stub_vm_deinit(). */
void stub_commands_deinit(struct stub_vm *vm);

#endif
