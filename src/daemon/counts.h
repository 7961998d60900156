/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a build with --enable-coverage counts, and a process leaves in the build's folder when it exits: it must be able to write
 * there whatever else was taken out of its reach, and must leave its counts itself where it ends without exit(3).
 *
 * No other build counts anything, and here has nothing.
 */
#ifndef DAEMON_COUNTS_H
#define DAEMON_COUNTS_H

#include <stddef.h>

#ifdef VMIBUS_COVERAGE

#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("openat")

/** That the counts are written to, with all folders below it; NULL: there are none. */
#define COUNTS_FOLDER VMIBUS_COUNTS_FOLDER

void __gcov_dump(void);

/** Before _exit(2). */
static inline void counts_leave(void) {
    __gcov_dump();
}

#else

#define COUNTS_FOLDER NULL

static inline void counts_leave(void) {
}

#endif

#endif
