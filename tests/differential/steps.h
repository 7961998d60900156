/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an actor does in one step of a sequence.  Each step chooses what to command, predicts the answer, compares the
 * two, and changes the model by it.
 */
#ifndef TESTS_DIFFERENTIAL_STEPS_H
#define TESTS_DIFFERENTIAL_STEPS_H

#include <vmibus/protocol.h>

#include "differential/model.h"

void step_acquire(int actor, struct vm *vm, unsigned lease_class);
void step_renew(int actor, struct vm *vm, unsigned lease_class);

/** Of one that waits for a lease: takes its command back. */
void step_release(int actor, struct vm *vm, unsigned lease_class);

/** A lease that ends by itself, at once. */
void step_expire(int actor, struct vm *vm, unsigned lease_class);

/** One extent or a table of them, right or wrong in some way. */
void step_write(int actor, struct vm *vm);

void step_attach(int actor, struct vm *vm);

/** Lets go of one attachment, whether there is one or not. */
void step_detach(int actor, struct vm *vm);

/** The VM loses its epoch (RESET) or its endpoint (QUIT), and comes up again. */
void step_power(int actor, struct vm *vm, enum vmibus_power_operation operation);

#endif
