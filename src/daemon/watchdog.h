/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tells the service manager that the loop goes round (WatchdogSec= in systemd.service(5)), so that a daemon which hangs is killed
 * and started anew.
 *
 * A timer of the loop tells it, and nothing else: no thread, and no signal handler, which would live on beside a loop that
 * stands still.  Without a watchdog there is no timer: an idle daemon makes no system call.
 */
#ifndef DAEMON_WATCHDOG_H
#define DAEMON_WATCHDOG_H

#include <stdint.h>

#include "util/loop.h"

struct watchdog {
    struct loop_timer timer;
    uint64_t interval;  /**< nanoseconds; 0: the service manager wants to hear nothing */
};

/** Begins, if the service manager wants it. 0 or -ENOMEM. */
int watchdog_start(struct watchdog *watchdog, struct loop *loop);

/** Ends it. Harmless if it was not begun. */
void watchdog_stop(struct watchdog *watchdog);

#endif
