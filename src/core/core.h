/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One bus, its memory authority and its sensors in one process: what <vmibus/core.h> offers to embedders
 * and the daemon builds upon.  Owns them all, and the only place that knows both the bus and the
 * authority: it carries frames between the two.
 */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <vmibus/core.h>

#include "policy/policy.h"
#include "transport/session.h"
#include "util/audit.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"

struct authority;
struct bus;

struct vmibus_core {
    struct loop *loop;
    struct policy *policy;      /**< owned */
    struct ledger ledger;
    struct audit audit;
    int audit_error;            /**< negative errno: why there is no audit log although one was given */
    struct bus *bus;
    struct authority *authority;
    struct session_home home;
    struct principal self;
    struct list sensor_hosts;
};

/** What a daemon sets beyond what an embedder does. */
struct core_options {
    uint32_t incarnation;
    uint32_t n_endpoints;
    uint32_t n_connections;
    uint32_t queue_depth;
    uint32_t commands;
    uint32_t drain_ms;
    uint32_t tail_bound;
    int audit_fd;
    uint64_t audit_records;
    struct policy *policy;      /**< taken whatever the outcome */
};

/** Makes a core. An audit log that cannot be written is no reason not to: see audit_error. 0 or a negative errno. */
int core_new(struct vmibus_core **corep, const struct core_options *options);

/** Replaces the policy, which is taken; grants are looked up anew. */
void core_set_policy(struct vmibus_core *core, struct policy *policy);

#endif
