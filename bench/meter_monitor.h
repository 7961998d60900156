/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What bench/meter_monitor.c counts, where both sides see it. */
#ifndef BENCH_METER_MONITOR_H
#define BENCH_METER_MONITOR_H

#include <stdatomic.h>
#include <stdint.h>

struct monitor_meter {
    _Atomic uint64_t waited;    /**< nanoseconds in which an answer was owed */
    _Atomic uint64_t commands;
};

#endif
