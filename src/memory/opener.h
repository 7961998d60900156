/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The opener seam: what the memory authority cannot open by itself when it runs without privilege.
 *
 * A process is named by pid and start time; an opener makes sure it is that process before and after
 * what it does.  Every call may fail with -ESRCH when it is not.
 */
#ifndef MEMORY_OPENER_H
#define MEMORY_OPENER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** A process, so named that a recycled pid is another one. */
struct opener_process {
    uint32_t pid;
    uint64_t start_time; /**< proc(5), stat field 22 */
};

/** Which file: as /proc/PID/maps tells. */
struct opener_file {
    uint32_t device_major;
    uint32_t device_minor;
    uint64_t inode;
};

struct opener {
    /** The text of /proc/PID/maps as a descriptor to read. */
    int (*open_maps)(const struct opener *opener, const struct opener_process *process);
    /** A pidfd. */
    int (*open_process)(const struct opener *opener, const struct opener_process *process);
    /** /proc/PID/mem, read-write. */
    int (*open_memory)(const struct opener *opener, const struct opener_process *process);
    /** The same, read-only: for who is to read it and nothing else. */
    int (*open_memory_to_read)(const struct opener *opener, const struct opener_process *process);
    /** /proc/PID/pagemap, read-only. -EOPNOTSUPP: the kernel has none. */
    int (*open_pagemap)(const struct opener *opener, const struct opener_process *process);
    /**
     * A file that the process has open or mapped, opened anew with @a flags (O_RDONLY, O_RDWR).
     * -ENOENT: the process has no such file any more. -EMEDIUMTYPE: it is not in memory; then it was not even
     * opened, as that might wait for ever for whoever serves it.
     */
    int (*open_file)(const struct opener *opener, const struct opener_process *process, const struct opener_file *file, int flags);
    /** fchmod(2), for an inode that has no name. */
    int (*tighten)(const struct opener *opener, int fd, mode_t mode);
    void *context;
};

/** The opener that does it in this process, with whatever rights this process has. */
const struct opener *opener_local(void);

#endif
