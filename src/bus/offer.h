/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Offers of endpoints: which VM is meant, what is learnt of it, and what becomes of two endpoints that turn out to be one VM.
 *
 * A process (pid and start time) is one VM, whatever UUID comes with it.  A UUID names a VM where it does not contradict a
 * process: one UUID in two processes is two VMs, a migration's source and destination, or a lie; neither takes anything from the
 * other.  So:
 *  - the same process: the same endpoint;
 *  - the same UUID, and the process is not known of one of the two: the same endpoint; if several could be meant, the offer is
 *    refused (SAME_VM);
 *  - else another endpoint.
 * What the endpoint lacks (UUID, process) it learns from whoever knows, and what it knows stays, but for a UUID that the sensor
 * which introduced the VM contradicts.  If an offer leads to two
 * endpoints, by its process to one and by its UUID to another of which no process is known, they are one VM: the younger is removed
 * (SAME_VM) and its providers join the older, unless both have a UUID.
 *
 * What policy grants is another matter: there the word of one sensor counts, of who introduced the VM.  Its name is the one by
 * which it was introduced, and its UUID counts for grants if the same sensor said it.  So nobody gains anything on a VM by what a
 * second sensor says; and two endpoints of different names become one only if both were introduced by the same UUID, else the
 * offer is refused (SAME_VM).  Of two that become one, that sensor counts that introduced the process.
 */
#ifndef BUS_OFFER_H
#define BUS_OFFER_H

#include <vmibus/protocol.h>

struct sensor;

/** Hears ENDPOINT_OFFER of a sensor, and answers it. */
void offer_hear(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail);

#endif
