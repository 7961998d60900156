/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the private memory of a process without growing it.
 *
 * Reading a page that the process never touched, through /proc/PID/mem, makes page tables for it, or even
 * the page: of a private mapping of a file the file's, of a huge one a huge one.  /proc/PID/pagemap tells
 * which pages are there; of the others the octets are known: those of the file behind them, which
 * pread(2) gives without making them, or zeros.
 *
 * A page that goes between question and reading (a balloon takes it) is made again as a page of zeros
 * that all share.  What is not mapped any more is not taken for a page that was never touched: pagemap or maps
 * say that too, on Debian's 6.1 and from Linux 6.11 on; a kernel between that keeps no soft-dirty bits makes
 * the page.
 */
#ifndef MEMORY_PRIVATE_H
#define MEMORY_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "memory/memctx.h"

/** Opens what reading the private memory of a context takes, besides its memory_fd. 0 or a negative errno. */
int private_open(struct memctx *memctx, const struct opener *opener);

/**
 * Reads octets of a range whose object is private.  Whatever copies them is a system call, so the buffer may be memory
 * that others share.
 * @param range index of the range
 * @param skip  octets of the range before them
 * @return 0, VMIBUS_GUEST_TRUNCATED (the mapping, or the file behind it, is not there any more), -ESRCH
 *         (the process is gone), or a negative errno
 */
int private_read(const struct memctx *memctx, size_t range, uint64_t skip, void *buffer, size_t len);

#endif
