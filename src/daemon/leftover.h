/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests that a daemon which was killed has left stopped, and letting them go on when no daemon follows.
 *
 * A sensor that stops a guest leaves a file pause-PID-… in its state directory, PID being the guest's
 * process, and removes it when the guest goes on; starting the sensor makes good what is left.
 * So `vmibusd --resume` starts the sensors, without a socket, until no such file is left whose process
 * lives, or LEFTOVER_MS have passed.  Without one it starts nothing.
 */
#ifndef DAEMON_LEFTOVER_H
#define DAEMON_LEFTOVER_H

#include "daemon/config.h"

struct loop;

/** How long the sensors have. */
#define LEFTOVER_MS 5000

/** Guests that are left stopped. */
unsigned leftover_count(const struct config *config);

/** Runs the loop until none is. Returns how many are, or a negative errno. */
int leftover_wait(const struct config *config, struct loop *loop);

#endif
