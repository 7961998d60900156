/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A soak: controls of all tempers (tempers.h) on a daemon with stub VMs, some of which come and go, and perhaps others beside
 * them, over restarts that hand over, deaths by SIGKILL after which everybody connects again, and rests, in which everybody has
 * gone and nothing may be left.  It ends in a line that says what happened, and a verdict of which every number has to be 0:
 *
 *   lost, duplicated    see client.h; a VM that does not come again, and a restart that somebody notices, are lost too
 *   leaked              descriptors more than at the first rest, at the worst one, or charges that stay
 *   grown               KiB of the daemon's own memory, beyond what a rest may differ from the first one, at the worst one
 *
 * Environment: VMIBUS_SOAK_SECONDS, or VMIBUS_SOAK_EVENTS if that comes later; VMIBUS_SOAK_VMS; VMIBUS_SOAK_CLIENTS (42);
 * VMIBUS_SOAK_HEARTBEAT_MS (5), between two events of each VM; VMIBUS_SOAK_FAULTS: one in so many things fails, in a build with
 * fault injection; VMIBUS_SOAK_SEED: what faults and random octets begin with.  With faults a connection may end at any time.
 * With so many VMs that the test's service manager could not keep what they have, there are no restarts.
 */
#ifndef TESTS_SOAK_SOAK_H
#define TESTS_SOAK_SOAK_H

#include "daemon/daemon.h"

#define SOAK_ARGUMENTS 7

/** VMs beside the stubs, named guest-N: see learn() of client.c. */
struct soak_others {
    unsigned n;
    unsigned patience;              /**< how many times longer than for stubs they are waited for */
    const char *arguments[SOAK_ARGUMENTS + 1]; /**< of the daemon, ended by NULL; borrowed */
    void (*tend)(void);             /**< called often: starts those again that have ended */
    void (*churn)(void);            /**< called now and then */
};

struct soak_options {
    unsigned seconds, n_vms;        /**< if the environment does not say */
    const struct soak_others *others; /**< NULL: none */
};

/** Runs it in the process of a test, once, and fails unless the verdict is good. */
void soak_run(const struct soak_options *options);

#endif
