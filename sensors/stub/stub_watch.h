/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watches of a synthetic VM: ranges of guest-physical memory, looked at by a timer.  A watch lasts
 * until REMOVE, which the bus also sends when the epoch ends, or until the VM quits.
 */
#ifndef STUB_WATCH_H
#define STUB_WATCH_H

#include <vmibus/protocol.h>

struct stub_vm;

#define STUB_WATCHES_MAXIMUM 16
#define STUB_WATCH_MS 10u         /* the shortest interval, and the default */

/** Executes WATCH: fills @a ack. */
void stub_watch_execute(struct stub_vm *vm, const struct vmibus_frame *command, struct vmibus_ack *ack);

/** Prepares for watches. 0 or a negative errno. */
int stub_watches_init(struct stub_vm *vm);

/** Ends all of them; nobody is told. */
void stub_watches_drop(struct stub_vm *vm);

/** Frees what they hold. */
void stub_watches_deinit(struct stub_vm *vm);

#endif
