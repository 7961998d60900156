/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shortest useful control: it tells which VMs come, go and change their state. */
#ifndef EXAMPLE_WATCHER_H
#define EXAMPLE_WATCHER_H

#include <vmibus/client.h>

/**
 * Watches until the connection ends, printing a line for each event to standard output.
 * @param bus connected, over a socket or in this very process; stays the caller's
 * @return what ended it: a negative errno, or an enum vmibus_error
 */
int watcher_run(struct vmibus *bus);

#endif
