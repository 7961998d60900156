/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/watchdog.h"

#include "daemon/service.h"
#include "util/clock.h"

/* Told so often in the manager's interval, one that comes late is not the last. */
#define TIMES_PER_INTERVAL 3

static void tell(struct loop_timer *timer) {
    struct watchdog *watchdog = container_of(timer, struct watchdog, timer);

    service_alive();
    /* What has just been taken out of the timers has room there. */
    (void)loop_timer_set(timer, clock_now() + watchdog->interval);
}

int watchdog_start(struct watchdog *watchdog, struct loop *loop) {
    watchdog->interval = service_watchdog() / TIMES_PER_INTERVAL;
    loop_timer_init(&watchdog->timer, loop, tell);
    return watchdog->interval ? loop_timer_set(&watchdog->timer, clock_now() + watchdog->interval) : 0;
}

void watchdog_stop(struct watchdog *watchdog) {
    if (watchdog->timer.loop)
        loop_timer_cancel(&watchdog->timer);
}
