/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which file systems keep their files in memory, told without touching them: opening a file, or asking
 * for its file system, may wait for ever for whoever serves it (FUSE).
 *
 * A file is known by its device, which is one file system's while any of its files is in use.  Memory
 * is what the kernel itself gives (memfd_create(2)), and what is mounted as tmpfs or hugetlbfs where
 * the process, or we, can see it (proc(5), mountinfo).  Anything else is not.
 */
#ifndef MEMORY_MOUNTS_H
#define MEMORY_MOUNTS_H

#include <stdint.h>

/** Octets of a mountinfo that are read: a process decides how long its own is. */
#define MOUNTS_TEXT_MAX (UINT32_C(8) << 20)

/**
 * Whether the files of a device are in memory. Any thread.
 * @param directory the process in /proc that uses such a file; borrowed
 * @return 1, 0, or a negative errno
 */
int mounts_are_memory(int directory, uint32_t device_major, uint32_t device_minor);

#endif
