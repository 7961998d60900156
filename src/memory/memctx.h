/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memory context: the proven RAM layout of one endpoint during one epoch, the objects that it lies
 * in, and, once proven, the kernel root with its canary.
 *
 * It lives until the endpoint, the last attachment and the last write under way have released it;
 * references are taken and given on the loop's thread.  Layout and objects do not change once it is
 * published.  The root is written once, before `ready`.  A worker may read all of that, and `ended`.
 */
#ifndef MEMORY_MEMCTX_H
#define MEMORY_MEMCTX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest.h>
#include <vmibus/protocol.h>

#include "memory/canary.h"
#include "memory/object.h"
#include "memory/opener.h"
#include "util/ledger.h"

#define MEMCTX_PAGE UINT64_C(4096)
#define MEMCTX_RANGES_MAX 4096u
#define MEMCTX_OBJECTS_MAX 256u

/** A kernel root, and why it is believed. */
struct memctx_root {
    struct vmibus_guest_root root;
    uint64_t probe_gva;
    uint64_t note;
    uint64_t vcpu_cr3;
    uint32_t note_len;
    uint32_t evidence;          /**< VMIBUS_EVIDENCE_ bits */
    uint8_t confidence;         /**< enum vmibus_confidence */
};

struct memctx {
    size_t refs;
    uint64_t epoch;
    uint64_t generation;            /**< of the endpoint */

    struct opener_process process;  /**< pid 0: the objects were given */
    int process_fd;                 /**< pidfd, -1 if none */
    int memory_fd;                  /**< /proc/PID/mem, -1 unless something needs it */
    bool own_process;               /**< the process is this one, which cannot be recycled under us */

    struct vmibus_ram_range *ranges; /**< as published: ascending, disjoint */
    uint64_t *addresses;             /**< host-virtual address of each range; 0 with pid 0 */
    size_t n_ranges;
    struct ram_object *objects;
    size_t n_objects;
    uint64_t ram_size;              /**< octets, aliases not counted */
    uint8_t access;                 /**< VMIBUS_ACCESS_ bits */

    uint16_t pending_reason;        /**< while there is no root: why */
    struct memctx_root root;
    struct canary canary;
    _Atomic bool ready;             /**< root and canary are there */
    _Atomic uint16_t ended;         /**< reason of the epoch's end; VMIBUS_REASON_NONE while current */

    size_t attachments;
    struct account *account;        /**< who pays for the descriptors; referenced */
    struct charge descriptors;
};

/** Makes an empty one with one reference. 0 or -ENOMEM. */
int memctx_new(struct memctx **memctxp);

/** One more reference. */
struct memctx *memctx_ref(struct memctx *memctx);

/** Releases everything with the last reference. Takes and returns NULL. */
struct memctx *memctx_unref(struct memctx *memctx);

/** Index of the range that contains an address, or -1. Any thread. */
ptrdiff_t memctx_locate(const struct memctx *memctx, uint64_t gpa);

/** Whether two contexts show the same octets at the same places. */
bool memctx_is_same_layout(const struct memctx *a, const struct memctx *b);

/** Whether the same objects of the same process lie behind two contexts. */
bool memctx_is_same_backing(const struct memctx *a, const struct memctx *b);

/** Whether every file is as long as the layout needs. 1, 0 or a negative errno. Any thread. */
int memctx_is_whole(const struct memctx *memctx);

static inline bool memctx_is_ready(const struct memctx *memctx) {
    return atomic_load_explicit(&memctx->ready, memory_order_acquire);
}

static inline uint16_t memctx_ended(const struct memctx *memctx) {
    return atomic_load_explicit(&memctx->ended, memory_order_acquire);
}

#endif
