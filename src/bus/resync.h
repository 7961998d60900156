/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memory authority that has a process of its own comes and goes, and comes again.  What the bus tells one that begins to
 * listen, and what it makes of one that has ended.
 *
 * What was in flight at an authority is over with its process: a descriptor of its is closed, and its state directory unlocked,
 * only after the last of its threads has left the kernel.  So another authority on the same state directory, which is known by
 * its incarnation, proves that nothing under an earlier token can reach a guest any more; until there is one, or the
 * same one answers, a lease that is being revoked stays so, and is out of service past its deadline.
 */
#ifndef BUS_RESYNC_H
#define BUS_RESYNC_H

#include <stdbool.h>

#include <vmibus/protocol.h>

struct bus;

/** Tells an authority all there is: endpoints, sessions, fences, revocations that are not answered; LINK_SYNCED last. */
void bus_tell_all(struct bus *bus);

/** The authority heard nothing for a while: what it asked to be held still it has forgotten. Before bus_tell_all(). */
void bus_memory_returned(struct bus *bus);

/**
 * It is another one: memory contexts of the last one have ended, what is drained is, and MEMWRITE leases end. Before
 * bus_tell_all().
 * @param was_there there was one before it, in the time of this bus
 */
void bus_memory_replaced(struct bus *bus, bool was_there);

/**
 * The numbers that the bus gives are given already: it goes on with another incarnation.  Before bus_memory_replaced(), which ends
 * what was given.
 */
void bus_rise(struct bus *bus, uint32_t incarnation);

/** Whatever the authority has under the numbers of endpoints that were given already is not of these. Before bus_tell_all(). */
void bus_disown_all(struct bus *bus);

/** SESSION_LOST: the memory channel of a session has closed, so its leases end. */
void bus_hear_session_lost(struct bus *bus, const struct vmibus_session_lost *lost);

#endif
