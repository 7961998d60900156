/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding the kernel's page-table root of an epoch and proposing it.
 *
 * An attempt samples the vCPUs' CR3, attaches to the epoch's RAM as any control does, and searches
 * on the worker.  A guest without long mode, or without a note, is booting: that is told, and tried
 * again by timer with rising pauses.  A guest that stays without a root (firmware, another system)
 * is searched for ROOT_UNASKED_ATTEMPTS, and after that only while somebody subscribes to memory
 * contexts; a paused guest is searched once.  What is found is proposed after memory_read() has
 * confirmed the layout it was found in.
 *
 * A root found anew in an epoch that has one is compared with it: another kernel, or none, ends the
 * epoch as RELOADED.
 *
 * A root that was found is watched while somebody subscribes to memory contexts and the guest runs: a
 * kernel that was booted by kexec leaves tables and note of the one before as they were, perhaps for
 * ever, and no event tells of it (measured, Linux 6.1 under QEMU 7.2); but no vCPU uses them any more.
 * Each ROOT_WATCH_NS one vCPU is asked; if it maps the kernel elsewhere, or not at all, the root is
 * searched anew.
 *
 * Where no note is found for a while, but the vCPUs go on using the same tables (see sample.h), these
 * are proposed.  Such a root is watched too, and with it whether the vCPUs run a kernel with a note by
 * now: that one ends the epoch as RELOADED, and is proposed in the next.
 */
#ifndef SENSORS_MACHINE_ROOT_H
#define SENSORS_MACHINE_ROOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/guest.h>
#include <vmibus/sensor.h>

#include "registers.h"
#include "sample.h"

struct machine;

/** Pauses between attempts: from, to. */
#define ROOT_PAUSE_MIN_NS (UINT64_C(100) * 1000 * 1000)
#define ROOT_PAUSE_MAX_NS (UINT64_C(2) * 1000 * 1000 * 1000)
/** How often a root is watched. */
#define ROOT_WATCH_NS (UINT64_C(1000) * 1000 * 1000)
/** Attempts that are made without anybody asking for a memory context: some five minutes. */
#define ROOT_UNASKED_ATTEMPTS 150
/**
 * Attempts in a row that must fail to find the root of an epoch again before it is given up as
 * RELOADED.
 */
#define ROOT_RECHECK_ATTEMPTS 5

/** A search on the worker. Owned by the list of jobs; the root it is for may let go of it. */
struct root_job {
    TAILQ_ENTRY(root_job) link;
    struct root_jobs *jobs;
    struct machine *machine; /* NULL: nobody waits */
    struct vmibus_guest_ram *ram;
    struct registers registers;
    struct sample before, sample;
    bool agrees;   /* sample with before */
    bool glimpsed; /* only the vCPUs' own kernels were looked at, not all of RAM */
    struct vmibus_guest_search *search; /* that is not over: it goes on when the worker's other jobs had their turn */
    struct vmibus_guest_kernel kernel;
    int result;
};

TAILQ_HEAD(root_jobs, root_job);

/** The search of one VM. */
struct root {
    uint64_t epoch;       /**< epoch that is searched, 0: none */
    bool sampling;        /* registers were asked for */
    bool attaching;       /* attached() is awaited */
    bool abandoned;       /* ... but for nothing that still holds */
    bool attached;        /* RAM of the epoch is ours to give back */
    bool wanted;          /* another attempt is due after what is in progress */
    bool proposing;       /* a verdict is awaited */
    bool pausing;         /* the timer runs */
    struct root_job *job; /* search on the worker */
    struct registers registers;
    struct samples samples; /* in this epoch; what is published may be made of them */
    bool glimpsing;         /* a sampled root is being watched, by RAM */
    unsigned int attempts; /* without success, in a row */
    uint64_t pause_ns;
    bool told; /* ... why there is none */
    enum vmibus_reason told_reason;
    bool has_candidate; /* found, and waiting for the layout to be confirmed */
    struct vmibus_mem_root candidate;
    bool has_published; /* accepted in this epoch */
    bool settled;       /* ... and not searched anew: it is watched */
    bool watching;      /* a verdict on what a vCPU uses is awaited */
    bool overtaken;     /* ... but does not matter any more */
    uint64_t other_cr3; /* what the vCPU may use besides; 0: nothing */
    struct vmibus_mem_root published;
    bool demand_known;
    bool demanded;
    struct vmibus_sensor_timer *timer;
};

/** Prepares. Returns 0 or a negative errno. */
int root_init(struct machine *machine);

/** The VM's process is gone: forgets everything but the timer. */
void root_forget(struct machine *machine);

/** Frees; a search on the worker goes on without it. */
void root_deinit(struct machine *machine);

/** Frees what is left of jobs whose worker has ended. */
void root_jobs_deinit(struct root_jobs *jobs);

/** Searches the current epoch, from the beginning; in an epoch that has a root, to compare. */
void root_search(struct machine *machine);

/** Stops searching: the epoch ended, or the monitor is lost. */
void root_stop(struct machine *machine);

/**
 * The layout that the candidate was found in still holds: proposes it. Returns false if there is no
 * candidate.
 */
bool root_confirmed(struct machine *machine);

/** RAM, or why not. */
void root_attached(struct machine *machine, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                   enum vmibus_reason reason);

/** The authority's verdict on a root. */
void root_verdict(struct machine *machine, uint64_t epoch, enum vmibus_error error,
                  enum vmibus_reason reason);

/** Which kinds somebody wants. */
void root_demand(struct machine *machine, uint64_t kinds);

#endif
