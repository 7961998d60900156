/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only place that changes guest memory.
 *
 * Shared RAM is written through its file.  Private memory, huge pages (whose pwrite(2) says EINVAL) and
 * files that we may only read are written through /proc/PID/mem, held open: it reaches one address
 * space and dies with it, but tears even small aligned values (measured, Linux 6.18, AMD with fsrm).  This
 * very process's memory, which cannot be recycled under us, goes by process_vm_writev(2), which does not.
 *
 * All of it can block for as long as the process likes: a write to a file takes the inode's lock, one to an address space
 * waits for whatever is mapped there by now, and process_vm_writev(2) for userfaultfd(2) as well.  Who calls
 * it on the loop's thread has asked memctx_may_block() before; the inode's lock is the administrator's to weigh
 * (authority_options.small_writes_on_worker), for there is no way to write without it but a mapping that can be written.
 */
#ifndef MEMORY_WRITER_H
#define MEMORY_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "memory/memctx.h"

/**
 * Writes octets that lie in one range.
 * @param skip octets of the range before them
 * @param done receives how many were written, also on failure
 * @return 0, -ESRCH (the process is gone), -EACCES (there is no way to write it) or a negative errno
 */
int writer_write(const struct memctx *memctx, size_t range, uint64_t skip, const uint8_t *source,
                 size_t len, size_t *done);

#endif
