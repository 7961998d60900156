/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memory context: the proven RAM layout of one endpoint during one epoch, the objects that it lies
 * in, and, once proven, the kernel root with its canary.
 *
 * It is also the record of what exactly its epoch means; the epoch is the name of that record on the wire.
 *   endpoint       slot and generation.  When the occupant goes, its epoch ends.
 *   process        pid and start time, held by a pidfd.  Its address space is held by memory_fd, which
 *                  reaches that one and no other, also after an exec or when the pid is another's.
 *   RAM objects    device and inode, held by a descriptor: another file of the same name is another object.
 *                  Seals that keep it from shrinking; without them its size is looked at at commit.
 *   mappings       offset and host-virtual address of each range, as proven against the process's maps.  Every
 *                  proof that comes out otherwise begins another epoch, so the epoch is their generation too.
 *   guest          the root and its canary, read again at commit, of private memory by way of its mapping: a
 *                  process that puts other memory there has another guest, and is seen to.
 * What is not seen at commit: a process that maps other memory in place of a part of its private RAM that holds
 * neither canary nor tables, until its layout is proposed anew.  Such a write reaches that process and no other.
 *
 * It lives until the endpoint, the last attachment and the last write under way have released it; its
 * descriptors until its epoch has ended and nothing but attachments hold it.
 * References are taken and given on the loop's thread.  Layout and objects do not change once it is
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
#include "memory/retire.h"
#include "util/ledger.h"

#define MEMCTX_PAGE UINT64_C(4096)
#define MEMCTX_RANGES_MAX 4096u
#define MEMCTX_OBJECTS_MAX 256u
#define MEMCTX_OBJECTS_GIVEN (VMIBUS_FDS_PER_FRAME - 1) /* that fit into an answer, beside the epoch page */

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
    uint32_t slot;                  /**< of the endpoint */
    uint64_t generation;
    struct retiring retiring;

    struct opener_process process;  /**< pid 0: the objects were given */
    int process_fd;                 /**< pidfd, -1 if none */
    int memory_fd;                  /**< /proc/PID/mem, -1 unless something needs it */
    int pagemap_fd;                 /**< /proc/PID/pagemap, -1 unless an object is private */
    int maps_fd;                    /**< /proc/PID/maps, -1 where pagemap_fd is */
    int zeros_fd;                   /**< a file of zeros, -1 where pagemap_fd is; see private.c */
    bool own_process;               /**< the process is this one, which cannot be recycled under us */

    struct vmibus_ram_range *ranges; /**< as published: ascending, disjoint */
    uint64_t *addresses;             /**< host-virtual address of each range; 0 with pid 0 */
    struct vmibus_ram_range *process_ranges; /**< of private memory with addresses for offsets; NULL: all are of files */
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

    size_t writes;                  /**< under way on a worker, or on their way there; the loop's */
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

/**
 * Something that uses it never ends: takes it off the books, and keeps it, with its descriptors, for ever. The caller's
 * reference is left to the user. Harmless to do twice.
 */
void memctx_abandon(struct memctx *memctx);

/**
 * Whether touching its memory can block for as long as another process likes: what is reached through memory_fd is
 * whatever that process has mapped there by now, a file of a server that never answers perhaps.  Such memory
 * is touched by the endpoint's worker only.  This very process's own is not meant: who maps that is the embedder.
 * Files are read without the inode's lock; a write takes it (authority_options.small_writes_on_worker).  Any thread.
 */
static inline bool memctx_may_block(const struct memctx *memctx) {
    return memctx->memory_fd >= 0 && !memctx->own_process;
}

/** Index of the range that contains an address, or -1. Any thread. */
ptrdiff_t memctx_locate(const struct memctx *memctx, uint64_t gpa);

/** Whether two contexts show the same octets at the same places. */
bool memctx_is_same_layout(const struct memctx *a, const struct memctx *b);

/** Whether the same objects of the same process lie behind two contexts. */
bool memctx_is_same_backing(const struct memctx *a, const struct memctx *b);

/** Whether any memory of one context is memory of the other: they are of one process, or have an object in common. */
bool memctx_shares_memory(const struct memctx *a, const struct memctx *b);

/** Whether every file is as long as the layout needs. 1, 0 or a negative errno. Any thread. */
int memctx_is_whole(const struct memctx *memctx);

static inline bool memctx_is_ready(const struct memctx *memctx) {
    return atomic_load_explicit(&memctx->ready, memory_order_acquire);
}

static inline uint16_t memctx_ended(const struct memctx *memctx) {
    return atomic_load_explicit(&memctx->ended, memory_order_acquire);
}

#endif
