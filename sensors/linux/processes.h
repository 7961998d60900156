/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The processes that the owner of this was told of, and what a look finds different.
 *
 * A look first asks whether anything can have changed: two counters of the kernel for what began and ended, and for each known
 * process a number that rises when it executes a program.  Only then is the list of processes read.
 *
 * A process is known by its pid and start time: one that executes a program from a thread goes on in another task_struct.
 */
#ifndef SENSORS_LINUX_PROCESSES_H
#define SENSORS_LINUX_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest_linux.h>

#include "events.h"

/** Processes that are known at most: what is more is not told of. */
#define PROCESSES_MAX 65536

struct process {
    uint64_t task, start_time, executions, cr3;
    uint32_t pid, ppid, uid;
    bool missed;        /**< the last picture did not show it, and was not steady */
    char comm[VMIBUS_LINUX_COMM_SIZE];
};

struct processes {
    struct process *known;  /**< by pid and start time */
    size_t n, room;
    struct vmibus_linux_census census;  /**< before the last picture */
    bool settled;       /**< nothing is left from the last picture that the next look has to see to */
    bool told_present;  /**< all that were there at first have been told */
    struct process *fresh;  /**< of the picture being taken */
    size_t n_fresh, room_fresh;
    int error;
};

/**
 * Looks for differences, and adds them to the events.
 * @return 0; or why there is no picture, as vmibus_linux_visit_tasks(): nothing is told then
 */
int processes_look(struct processes *processes, struct vmibus_linux *kernel, struct events *events);

/** Forgets all. */
void processes_clear(struct processes *processes);

#endif
