/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The capabilities(7) of this process: all but those that it needs are given up, for good. */
#ifndef DAEMON_PRIVILEGES_H
#define DAEMON_PRIVILEGES_H

#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>

#define PRIVILEGE(capability) (UINT64_C(1) << (capability))

/** What opening in the name of a process takes. */
#define PRIVILEGES_TO_OPEN (PRIVILEGE(CAP_SYS_PTRACE) | PRIVILEGE(CAP_DAC_OVERRIDE) | PRIVILEGE(CAP_FOWNER))

/**
 * Gives up every capability that is not in a set, of this process and of what it may execute. Before there are threads.
 * @param wanted   PRIVILEGE() of each
 * @param missing  those of them that the process has not
 * @return 0 or a negative errno
 */
int privileges_keep(uint64_t wanted, uint64_t *missing);

/** Whether the process has any. */
bool privileges_any(void);

#endif
