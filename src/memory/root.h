/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proving a kernel root: a sensor proposes, the tables in RAM decide.
 *
 * A root with a note is believed only if its own tables map the address at which the kernel maps its
 * top page table to that very table, and the VMCOREINFO note names that address (Linux
 * kernel/vmcore_info.c); a live vCPU's tables, where one is named, map it to the same place.
 *
 * A root without a note is a vCPU's: its tables map the probe to RAM that no process may use, and the
 * named vCPU's tables map it to the same place.  It is SAMPLED, whatever the sensor thinks of it.
 */
#ifndef MEMORY_ROOT_H
#define MEMORY_ROOT_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "memory/canary.h"
#include "memory/memctx.h"

/** Expected outcomes. */
enum root_result {
    ROOT_MALFORMED = 1, /**< a field holds what it may not */
    ROOT_UNPROVEN = 2,  /**< the evidence does not agree */
};

/**
 * Proves a root.
 * @param memctx   where its tables lie; not changed
 * @param proposal what the sensor says
 * @param now      CLOCK_MONOTONIC nanoseconds
 * @param root     filled on success
 * @param canary   armed on success
 * @param value    on refusal: the address or field at fault
 * @param loads    on the loop's thread
 * @return 0, an enum root_result, or a negative errno. Any thread.
 */
int root_prove(const struct memctx *memctx, const struct vmibus_mem_root *proposal, uint64_t now, bool loads,
               struct memctx_root *root, struct canary *canary, uint64_t *value);

/** Whether a proven root is the one that a context has. */
bool root_is_same(const struct memctx_root *a, const struct memctx_root *b);

#endif
