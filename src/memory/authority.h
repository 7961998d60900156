/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory authority: the only code that holds writable RAM descriptors, the only one that hands out
 * read-only ones, the only one that changes guest memory.
 *
 * It speaks in frames only, on three sides, so that it can live in the bus's process or in one of its
 * own:
 *   link     the bus tells endpoints, fences and sessions (ENDPOINT_OPENED, ENDPOINT_CLOSED, FENCE_ISSUE,
 *            FENCE_REVOKE, SESSION_OPENED, SESSION_CLOSED), that a guest stands still (QUIESCE_STATE), and, apart,
 *            that it has told all (LINK_SYNCED); the authority answers with FENCE_DRAINED, asks for that by
 *            QUIESCE_BEGIN and QUIESCE_END, publishes MEMCTX and MEMCTX_INVALIDATED, and, apart, tells
 *            that a session's channel closed (SESSION_LOST);
 *   client   one per session: a control's CMD_MEMWRITE, MEM_READ, BUFFER, MEM_QUERY, MEM_ATTACH, MEM_RELEASE; a sensor's
 *            MEM_IDENTITY, MEM_LAYOUT, MEM_ROOT, MEM_END, MEM_BUSY, MEM_ATTACH, MEM_RELEASE.  Each is answered by one ACK;
 *   opener   whatever has to be opened in the name of a process (opener.h).
 * It believes none of them more than it must: a fence is checked against session, principal and token,
 * a layout against the process's own mappings, a root against the tables in RAM.
 *
 * One thread owns an authority: the loop's.  What is long, and what the VM's process can block, runs on a worker per
 * endpoint, inside.
 */
#ifndef MEMORY_AUTHORITY_H
#define MEMORY_AUTHORITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "policy/policy.h"
#include "util/audit.h"
#include "util/ledger.h"
#include "util/loop.h"
#include "util/region.h"

struct authority;
struct authority_client;
struct known_session;
struct opener;

/** What the authority tells the bus. */
typedef void (*authority_link_fn)(void *context, const struct vmibus_frame *frame, const void *tail);

/**
 * What the authority tells a client: an ACK, its tail and descriptors (borrowed: duplicate what outlives the call); and, if it
 * proposed the layout, MEM_RETIRED.  The header's flags are those of the command: whoever passes the answer on leaves it out for
 * NO_ACK.
 */
typedef void (*authority_reply_fn)(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds);

/** What a client is told; all of it may be from inside any function of the authority but authority_client_free(). */
struct authority_client_ops {
    authority_reply_fn reply;
    /**
     * The client has to go: its attachments have ended, nothing of it is executed any more.  To be freed later, not
     * from inside.  NULL: it cannot be made to go.
     * @param value what the reason is about, @param bound what was broken
     */
    void (*disconnect)(void *context, enum vmibus_reason reason, uint64_t value, uint64_t bound);
    /** The bus says that the session is over. To be freed later, not from inside. NULL: whoever owns it knows. */
    void (*closed)(void *context);
};

/**
 * Keeps the epoch page of a slot for the next authority, after this one has died: see memory/epoch_page.h.
 * @param fd borrowed; -1: the slot's page is given up, and need not be kept any more
 */
typedef void (*authority_keep_fn)(void *context, uint32_t slot, int fd);

/** An epoch page that was kept. */
struct authority_page {
    uint32_t slot;
    int fd;
};

struct authority_options {
    struct loop *loop;              /**< borrowed */
    struct ledger *ledger;          /**< borrowed */
    struct audit *audit;            /**< borrowed */
    const struct opener *opener;    /**< borrowed */
    const struct policy *policy;    /**< borrowed; see authority_set_policy() */
    uint32_t incarnation;           /**< upper half of every epoch */
    uint32_t n_endpoints;           /**< highest slot */
    uint32_t retire_ms;             /**< how long an epoch that ended may be held */
    bool small_writes_on_worker;    /**< also those into shared RAM, whose inode the VM's process can keep locked */
    bool apart;                     /**< in a process of its own: no fence is in force before the bus has told all */
    uint32_t n_sessions;            /**< apart: that the bus may tell of; 0: none is remembered */
    authority_keep_fn keep;         /**< NULL: nobody keeps epoch pages */
    void *keep_context;
    const struct authority_page *pages; /**< of the authority before: what they show ends at once; duplicated */
    size_t n_pages;
    authority_link_fn link;
    void *link_context;
};

/** Counters, for statistics. */
struct authority_counters {
    uint64_t writes;
    uint64_t bytes_written;
    uint64_t epochs_ended;
    uint64_t attachments;   /**< now */
    uint64_t epochs_retiring; /**< now */
    uint64_t reads;
    uint64_t bytes_read;
    uint64_t buffers;       /**< now */
    uint64_t buffer_bytes;  /**< now */
};

/** Makes an authority. 0 or a negative errno. */
int authority_new(struct authority **authorityp, const struct authority_options *options);

/**
 * Frees it; every client must be gone. Waits up to five seconds for commands that are under way: one that its VM's
 * process keeps from ending is left behind with its thread, its memory and its descriptors. Takes and returns NULL.
 */
struct authority *authority_free(struct authority *authority);

/** Replaces the policy; what it allows is looked up anew at each command. */
void authority_set_policy(struct authority *authority, const struct policy *policy);

/** Apart: the link is gone. Fences are suspended until another one has been synced. */
void authority_link_lost(struct authority *authority);

/** Apart: a session that the bus told of, by its name (16 octets); NULL: none. Valid until the bus is heard again. */
const struct known_session *authority_find_session(const struct authority *authority, const uint8_t *name);

/** Apart: a memory channel presented a session that there is. */
void authority_join_session(struct authority *authority, const uint8_t *name);

/** That channel has closed; with the last one the bus is told, and ends the session's leases. */
void authority_leave_session(struct authority *authority, const uint8_t *name);

/** Apart: the highest incarnation of which it knows a token or a generation; 0: it knows of none. */
uint32_t authority_numbers_taken(const struct authority *authority);

/** Hears the bus. A frame that makes no sense is ignored: the bus is trusted, but may be older or newer. */
void authority_hear_link(struct authority *authority, const struct vmibus_frame *frame, const void *tail);

/**
 * A session's channel to the authority.
 * @param session   16 octets
 * @param principal copied
 * @param account   whom to charge; referenced
 * @param region    what the client holds comes from it; borrowed
 * @param role      what it may send
 * @param ops       borrowed
 * @return as region_take()
 */
int authority_client_new(struct authority_client **clientp, struct authority *authority, const uint8_t *session,
                         const struct principal *principal, struct account *account, struct region *region, enum vmibus_role role,
                         const struct authority_client_ops *ops, void *context);

/** Ends it: releases its attachments; writes under way are finished, their answers dropped. Takes and returns NULL. */
struct authority_client *authority_client_free(struct authority_client *client);

/**
 * Executes or begins a command of the memory channel; exactly one ACK follows, perhaps before this returns, also for a
 * command with the flag NO_ACK.
 * @param frame validated as far as the definition of the wire goes
 * @param tail  header.tail_length octets; borrowed, copied where it must outlive the call
 * @param fds   header.fd_count descriptors; borrowed
 * @param received CLOCK_MONOTONIC nanoseconds at which it was received
 */
void authority_client_submit(struct authority_client *client, const struct vmibus_frame *frame, const void *tail, const int *fds,
                             uint64_t received);

/** The answer to a MEM_ATTACH could not be delivered as it was: one attachment to the epoch ends, as if it had been refused. */
void authority_client_undo_attach(struct authority_client *client, uint64_t epoch);

/** Copies the counters. */
void authority_get_counters(const struct authority *authority, struct authority_counters *counters);

/** Apart: whether the bus has told all there is. */
bool authority_is_synced(const struct authority *authority);

#endif
