/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bus watches itself: what the kernel says that this process has, beside what its own books explain.
 *
 *      resident    explained: what was anonymous at the start, and what of the arena is resident
 *      descriptors explained: what was open at the start, one per connection, those charged that are open
 *                  here, and those that sensors watch
 *
 * The rest is told as unaccounted: it should stay small, and where it grows something leaks.  Pages of
 * files are left out of that, because nobody holds them; so is what sensors hold without anybody knowing,
 * which shows as unaccounted indeed.
 *
 * It looks when it is asked (QUERY STATS) and, while somebody subscribes to RESOURCES, once a second; then
 * the processes of the endpoints that are watched are looked at too.  A look costs a few files of /proc;
 * one that fails tells nothing and is no error.
 */
#ifndef CORE_MONITOR_H
#define CORE_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/process_usage.h"
#include "util/loop.h"

struct vmibus_core;
struct bus_process_counters;

/** What can drift. */
enum monitor_subject {
    MONITOR_RESIDENT,
    MONITOR_FDS,
    MONITOR_SUBJECTS,
};

/** Something that passed its bound, or came back below. */
struct monitor_drift {
    enum monitor_subject subject;
    bool beyond;
    uint64_t value;         /**< as the kernel counts it: octets, or descriptors */
    int64_t unaccounted;
    int64_t bound;          /**< of what is unaccounted */
};

typedef void (*monitor_drift_fn)(void *context, const struct monitor_drift *drift);

/** One look. */
struct monitor_sample {
    struct process_usage usage;
    int64_t explained_resident; /**< octets of the arena that are resident */
    int64_t explained_fds;
};

struct monitor {
    struct vmibus_core *core;
    struct loop_timer timer;
    struct monitor_sample start;
    bool started;           /**< there is a start to compare with */
    bool beyond[MONITOR_SUBJECTS];
    monitor_drift_fn drift; /**< told once per change; may be NULL */
    void *drift_context;
};

/** Prepares a monitor. The core is borrowed. */
void monitor_init(struct monitor *monitor, struct vmibus_core *core);

/** Ends its timer. Harmless on zeros. */
void monitor_deinit(struct monitor *monitor);

/** Takes what there is now for what the start explains. */
void monitor_start(struct monitor *monitor);

/** What a look says, for QUERY STATS. False: it cannot be told. */
bool monitor_count(struct monitor *monitor, struct bus_process_counters *counters);

/** Somebody subscribes to RESOURCES, or nobody does any more. */
void monitor_want(struct monitor *monitor, bool wanted);

#endif
