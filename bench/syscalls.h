/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts the system calls of a process, without stopping or disturbing it: the kernel's tracepoint
 * raw_syscalls:sys_enter (perf_event_open(2)), one counter for each thread.  Needs CAP_PERFMON and
 * tracefs.
 */
#ifndef BENCH_SYSCALLS_H
#define BENCH_SYSCALLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SYSCALLS_THREADS 64

struct syscalls {
    int fds[SYSCALLS_THREADS];
    size_t n;
};

/** Begins to count those of all threads of a process. 0 or a negative errno. */
int syscalls_begin(struct syscalls *syscalls, pid_t pid);

/** How many there were until now. */
uint64_t syscalls_read(const struct syscalls *syscalls);

/** Ends counting. */
void syscalls_end(struct syscalls *syscalls);

#endif
