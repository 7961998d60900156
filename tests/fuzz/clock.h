/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A clock that stands still until the target lets time pass.  CLOCK_MONOTONIC and absolute timerfds go by it from fuzz_clock_stop()
 * on, all else by the kernel's.
 */
#ifndef TESTS_FUZZ_CLOCK_H
#define TESTS_FUZZ_CLOCK_H

#include <stdint.h>

/** It is now, and stays so. Harmless if it has been stopped. */
void fuzz_clock_stop(void);

/** Time passes, nanoseconds. */
void fuzz_clock_advance(uint64_t ns);

/** What it shows, nanoseconds. */
uint64_t fuzz_clock_now(void);

#endif
