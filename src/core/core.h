/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One bus, its memory authority and its sensors in one process: what <vmibus/core.h> offers to embedders
 * and the daemon builds upon.  Owns them all, and the only place that knows both the bus and the
 * authority: it carries frames between the two.
 */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <vmibus/core.h>

#include "core/memory_link.h"
#include "core/monitor.h"
#include "memory/authority.h"
#include "policy/policy.h"
#include "transport/bus_home.h"
#include "util/arena.h"
#include "util/audit.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"

struct bus;

struct vmibus_core {
    struct loop *loop;
    struct policy *policy;      /**< owned */
    struct ledger ledger;
    struct arena arena;         /**< what is held for peers */
    struct audit audit;
    int audit_error;            /**< negative errno: why there is no audit log although one was given */
    struct bus *bus;
    struct authority *authority;    /**< NULL: it has a process of its own */
    struct memory_link memory_link; /**< ... and this leads there */
    struct bus_home home;
    struct monitor monitor;     /**< started when the core is made; start it anew after what else belongs to the start */
    struct principal self;
    uint32_t n_links;           /**< connections within this process: an eventfd each */
    struct list sensors;        /**< of this process: struct local_sensor */
    struct list saved;          /**< what sensors of the process before gave: struct saved_sensor */
};

/** What a daemon sets beyond what an embedder does. */
struct core_options {
    uint32_t incarnation;
    uint32_t n_endpoints;
    uint32_t n_connections;
    uint32_t queue_depth;
    uint32_t commands;
    uint32_t drain_ms;
    uint32_t hold_ms;
    uint32_t retire_ms;
    bool small_writes_on_worker; /**< see authority_options */
    uint32_t tail_bound;
    uint32_t n_large_tails;     /**< of the listener that is going to be made; 0: none is */
    uint64_t memory_cap;        /**< octets that are held for peers at most; 0: DEFAULT_MEMORY more than there must be */
    const char *memory_path;    /**< where a memory authority apart listens; borrowed. NULL: it is in the core */
    uint32_t hello_ms;          /**< with memory_path: how long it may take to answer */
    const struct opener *opener; /**< borrowed; NULL: opener_local() */
    authority_keep_fn keep;     /**< keeps epoch pages for the core after this one; NULL: nobody does */
    void *keep_context;
    const struct authority_page *pages; /**< of the core before; their descriptors are duplicated */
    size_t n_pages;
    int audit_fd;
    uint64_t audit_records;
    struct policy *policy;      /**< taken whatever the outcome */
};

/** The least memory_cap that these options can do with, octets; the policy must be there. */
uint64_t core_least_memory(const struct core_options *options);

/**
 * Makes a core. An audit log that cannot be written is no reason not to: see audit_error.
 * @return 0 or a negative errno; -ENOSPC: memory_cap is less than core_least_memory()
 */
int core_new(struct vmibus_core **corep, const struct core_options *options);

/** Replaces the policy, which is taken; grants are looked up anew. */
void core_set_policy(struct vmibus_core *core, struct policy *policy);

#endif
