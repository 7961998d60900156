/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process costs the host, as the kernel counts it: proc(5).  Files of /proc of a process that is
 * there, read without waiting for it; nothing here is kept open.
 */
#ifndef CORE_PROCESS_USAGE_H
#define CORE_PROCESS_USAGE_H

#include <stdint.h>

#define PROCESS_FDS_MAX 65536u /* descriptors are counted so far */

struct process_usage {
    uint64_t start_time;    /**< in clock ticks since boot: proc(5), stat field 22 */
    uint64_t resident;      /**< octets */
    uint64_t anonymous;     /**< octets of them that no file backs */
    uint64_t cpu;           /**< nanoseconds of CPU time used since it began */
    uint32_t fds;           /**< open; 0: not told. Nothing of the count itself is in it */
};

/**
 * Reads the usage of a process.
 * @param pid        0: this process
 * @param start_time whose it has to be, so that a recycled number is nobody's; 0: any, but the same throughout
 * @return 0, -ESRCH (there is no such process) or another negative errno
 */
int process_usage_read(struct process_usage *usage, uint32_t pid, uint64_t start_time);

#endif
