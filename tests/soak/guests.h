/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Real guests for a soak, each a QEMU named guest-N whose monitor is always at the same path: guest-0 is Linux, which is reset
 * now and then; the others are firmware without a kernel, so they are up in no time, and are started again when they have ended.
 * REAL_GPA of tempers.c and what follows is free in all of them.
 */
#ifndef TESTS_SOAK_GUESTS_H
#define TESTS_SOAK_GUESTS_H

#include "soak/soak.h"

#define GUESTS_MAX 3

/** Starts so many. Skips the test where there can be none. Valid until guests_stop(). */
const struct soak_others *guests_start(unsigned n);

/** Ends them, and tells how often they were started again and reset. */
void guests_stop(void);

#endif
