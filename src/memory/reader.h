/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading guest-physical memory of a memory context, without growing the host: files by pread(2), or by
 * plain loads from sealed ones on the loop's thread; private memory as private.h says.
 */
#ifndef MEMORY_READER_H
#define MEMORY_READER_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/guest.h>

#include "memory/memctx.h"

struct memory_reader {
    const struct memctx *memctx;    /**< borrowed */
    bool loads;                     /**< plain loads are allowed: only on the loop's thread */
    uint64_t now;                   /**< CLOCK_MONOTONIC nanoseconds, for plain loads */
    ptrdiff_t range;                /**< where the last read was */
};

/** Prepares a reader, and the callback of libvmibus-guest that reads through it. */
struct vmibus_guest_reader memory_reader_init(struct memory_reader *reader,
                                              const struct memctx *memctx, bool loads,
                                              uint64_t now);

/** Reads all of it by pread(2). 0, VMIBUS_GUEST_TRUNCATED (octets that are not there) or a negative errno. */
int reader_read_file(int fd, uint64_t offset, void *buffer, size_t len);

/**
 * Reads octets of one object; whatever copies them is a system call, so the buffer may be memory that others share.
 * @param range index of the range they are in
 * @param skip  octets of the range before them
 * @return 0, VMIBUS_GUEST_TRUNCATED (the file or the mapping is not there any more), -ESRCH (the
 *         process is gone), or a negative errno
 */
int memory_read_range(const struct memctx *memctx, size_t range, uint64_t skip, void *buffer,
                      size_t len);

#endif
