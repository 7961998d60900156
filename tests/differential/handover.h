/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How leases change hands: the model follows what the daemon has to do, and the actors hear of it.
 *
 * Without faults each change is predicted, and its answer awaited.  With faults nobody can say when a lease comes:
 * what has come is taken, if it can be true.
 */
#ifndef TESTS_DIFFERENTIAL_HANDOVER_H
#define TESTS_DIFFERENTIAL_HANDOVER_H

#include <vmibus/protocol.h>

#include "differential/model.h"

/** A token was granted. Fails the test if it is not higher than any before. */
void handover_grant(struct vm *vm, unsigned lease_class, int actor, const struct vmibus_ack *ack);

/** Its holder has lost a lease: the first in line holds it, and is told so. */
void handover_end(struct vm *vm, unsigned lease_class, enum vmibus_reason reason);

/** With faults: takes the grants that have come. */
void handover_collect(void);

/** An actor's connection is gone, and with it whatever it held or waited for, its attachments and its subscription. */
void handover_forget(int actor);

#endif
