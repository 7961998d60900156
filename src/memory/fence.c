/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/fence.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void fences_init(struct fences *fences) {
    *fences = (struct fences){};
    list_init(&fences->draining);
}

void fences_deinit(struct fences *fences) {
    assert(list_is_empty(&fences->draining));
    assert(!fences->current || fences->current->in_flight == 0);
    free(fences->current);
    fences->current = NULL;
}

/* Takes the current fence out of force. It is freed when nothing is in flight under it. */
static void retire(struct fences *fences, fence_drained_fn drained, void *context) {
    struct fence *fence = fences->current;

    fences->current = NULL;
    atomic_store_explicit(&fence->revoked, true, memory_order_release);
    list_append(&fences->draining, &fence->link);
    fence_enter(fence);
    fence_leave(fence, drained, context);
}

static uint64_t expiry_of(const struct vmibus_fence_issue *issue) {
    return issue->expires ? issue->expires : UINT64_MAX;
}

static void renew(struct fence *fence, const struct vmibus_fence_issue *issue,
                  uint64_t generation) {
    if (fence->uid != issue->uid || fence->generation != generation ||
        memcmp(fence->session, issue->session, sizeof(fence->session)) != 0)
        return;
    atomic_store_explicit(&fence->expires, expiry_of(issue), memory_order_release);
    fence->told = true;
}

void fences_issue(struct fences *fences, const struct vmibus_fence_issue *issue,
                  uint64_t generation, fence_drained_fn drained, void *context) {
    struct fence *fence;

    if (fences->current && fences->current->token == issue->token) {
        renew(fences->current, issue, generation);
        return;
    }
    if (issue->token <= fences->highest)
        return;
    fences->highest = issue->token;
    if (fences->current)
        retire(fences, drained, context);
    if (fences->highest != issue->token)
        return; /* whoever heard of the draining has issued a newer one meanwhile */
    /* Without memory nobody holds the fence, which is the safe side. */
    fence = calloc(1, sizeof(*fence));
    if (!fence)
        return;
    list_init(&fence->link);
    fence->token = issue->token;
    fence->generation = generation;
    fence->uid = issue->uid;
    memcpy(fence->session, issue->session, sizeof(fence->session));
    atomic_init(&fence->expires, expiry_of(issue));
    atomic_init(&fence->revoked, false);
    atomic_init(&fence->suspended, fences->suspended);
    fence->told = true;
    fences->current = fence;
}

void fences_revoke(struct fences *fences, uint64_t token, uint64_t generation,
                   fence_drained_fn drained, void *context) {
    struct fence *fence;

    if (token > fences->highest)
        fences->highest = token;
    if (fences->current && fences->current->token == token) {
        retire(fences, drained, context);
        return;
    }
    list_for_each(fence, &fences->draining, link)
        if (fence->token == token)
            return; /* its last write will tell */
    drained(context, generation, token);
}

void fences_close(struct fences *fences, fence_drained_fn drained, void *context) {
    if (fences->current)
        retire(fences, drained, context);
}

void fences_suspend(struct fences *fences) {
    fences->suspended = true;
    if (!fences->current)
        return;
    fences->current->told = false;
    atomic_store_explicit(&fences->current->suspended, true, memory_order_release);
}

void fences_resume(struct fences *fences, fence_drained_fn drained, void *context) {
    fences->suspended = false;
    if (!fences->current)
        return;
    if (fences->current->told)
        atomic_store_explicit(&fences->current->suspended, false, memory_order_release);
    else
        retire(fences, drained, context);
}

void fence_enter(struct fence *fence) {
    fence->in_flight++;
}

void fence_leave(struct fence *fence, fence_drained_fn drained, void *context) {
    uint64_t generation = fence->generation, token = fence->token;

    assert(fence->in_flight > 0);
    if (--fence->in_flight > 0 || !atomic_load_explicit(&fence->revoked, memory_order_relaxed))
        return;
    list_unlink(&fence->link);
    free(fence);
    drained(context, generation, token);
}

int fences_take_over_draining(struct fences *fences, uint64_t token, uint64_t generation) {
    struct fence *fence = calloc(1, sizeof(*fence));

    if (!fence)
        return -ENOMEM;
    fence->token = token;
    fence->generation = generation;
    atomic_init(&fence->revoked, true);
    list_append(&fences->draining, &fence->link);
    if (token > fences->highest)
        fences->highest = token;
    return 0;
}

void fences_end_draining(struct fences *fences, fence_drained_fn drained, void *context) {
    struct fence *fence, *following;

    list_for_each_safe(fence, following, &fences->draining, link)
        if (fence->in_flight == 0) {
            fence_enter(fence);
            fence_leave(fence, drained, context);
        }
}

void fence_abandon(struct fences *fences, struct fence *fence) {
    atomic_store_explicit(&fence->revoked, true, memory_order_release);
    list_unlink(&fence->link);
    if (fences->current == fence)
        fences->current = NULL;
}

uint16_t fence_check(const struct fence *fence, uint64_t now) {
    if (atomic_load_explicit(&fence->revoked, memory_order_acquire))
        return VMIBUS_REASON_REVOKED;
    if (atomic_load_explicit(&fence->suspended, memory_order_acquire))
        return VMIBUS_REASON_NO_LINK;
    if (now >= atomic_load_explicit(&fence->expires, memory_order_acquire))
        return VMIBUS_REASON_LEASE_EXPIRED;
    return VMIBUS_REASON_NONE;
}
