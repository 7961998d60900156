/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fences: which session may write to which endpoint, by which token and until when, as the bus said.
 *
 * An endpoint has one fence at most; its token only ever rises, and one that was revoked or superseded
 * never comes back.  A revoked fence lives on until the writes under it have ended.  A worker may ask
 * whether a fence still holds; everything else happens on the loop's thread.
 *
 * While the authority does not hear the bus every fence is suspended.  One that the bus then tells of again is in
 * force as soon as it has told all; one that it does not is revoked.
 */
#ifndef MEMORY_FENCE_H
#define MEMORY_FENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#include "util/list.h"

struct fence {
    struct list link;           /**< in the draining ones */
    size_t in_flight;           /**< writes under way */
    uint64_t token;
    uint64_t generation;        /**< of the endpoint */
    uint8_t session[16];
    uid_t uid;
    _Atomic uint64_t expires;   /**< CLOCK_MONOTONIC nanoseconds; UINT64_MAX: never */
    _Atomic bool revoked;
    _Atomic bool suspended;
    bool told;                  /**< by the bus that is heard now */
};

/** The fences of one endpoint. */
struct fences {
    struct fence *current;      /**< NULL: nobody may write */
    struct list draining;
    uint64_t highest;           /**< token ever heard of; 0: none */
    bool suspended;             /**< those that come too */
};

/** Called when nothing is in flight any more under a token that was revoked. */
typedef void (*fence_drained_fn)(void *context, uint64_t generation, uint64_t token);

/** Prepares them: nobody may write. */
void fences_init(struct fences *fences);

/** Frees them; nothing may be in flight. */
void fences_deinit(struct fences *fences);

/**
 * A token was issued, or its fence renewed. One that contradicts what was heard before is ignored.
 * @param drained called for a fence that this one supersedes, perhaps now
 */
void fences_issue(struct fences *fences, const struct vmibus_fence_issue *issue,
                  uint64_t generation, fence_drained_fn drained, void *context);

/** A token was revoked: nothing begins under it any more; @a drained is called, perhaps now. */
void fences_revoke(struct fences *fences, uint64_t token, uint64_t generation,
                   fence_drained_fn drained, void *context);

/** The endpoint is gone: the current fence is revoked. */
void fences_close(struct fences *fences, fence_drained_fn drained, void *context);

/** The bus is not heard any more. */
void fences_suspend(struct fences *fences);

/** The bus has told all. @a drained: of one that it did not tell of. */
void fences_resume(struct fences *fences, fence_drained_fn drained, void *context);

/** A write began under a fence. */
void fence_enter(struct fence *fence);

/** It ended; @a drained is called, and the fence freed, if it was the last under a revoked one. */
void fence_leave(struct fence *fence, fence_drained_fn drained, void *context);

/** A fence that was handed over revoked: fences_end_draining() tells that it is drained. 0 or -ENOMEM. */
int fences_take_over_draining(struct fences *fences, uint64_t token, uint64_t generation);

/** What was under way in the process before has ended with it: @a drained for each such fence. */
void fences_end_draining(struct fences *fences, fence_drained_fn drained, void *context);

/** A write under a fence never ends: the fence is revoked, taken off the books, and left to it. */
void fence_abandon(struct fences *fences, struct fence *fence);

/** Whether a fence still holds: VMIBUS_REASON_NONE, REVOKED, LEASE_EXPIRED or NO_LINK. Any thread. */
uint16_t fence_check(const struct fence *fence, uint64_t now);

/** The error that goes with what fence_check() says: a suspended fence is none that is stale. */
static inline enum vmibus_error fence_error(uint16_t reason) {
    return reason == VMIBUS_REASON_NO_LINK ? VMIBUS_ERROR_BUSY : VMIBUS_ERROR_STALE_TOKEN;
}

#endif
