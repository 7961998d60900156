/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread that runs libvirt's own event loop, of which a process has one: events and keep-alive of all
 * connections.  It is there while a sensor of this process is.
 */
#ifndef SENSORS_LIBVIRT_EVENTS_H
#define SENSORS_LIBVIRT_EVENTS_H

/** Sees to it that the thread runs, before the first connection is opened. 0 or a negative errno. */
int events_begin(void);

/** Takes events_begin() back; waits for the thread, with a bound. */
void events_end(void);

#endif
