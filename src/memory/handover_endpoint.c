/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/handover_record.h"

#include <errno.h>
#include <string.h>

#include "memory/memctx.h"
#include "memory/state.h"

/* Never reused. */
enum {
    ENDPOINT_FENCE = 20,
    ENDPOINT_MEMCTX = 21,
    ENDPOINT_HIGHEST_TOKEN = 22,
    ENDPOINT_DRAINING = 23,
    ENDPOINT_PAGE_PAYER = 24, /* uid */
};

static const struct handover_member endpoint_members[] = {
    HANDOVER_MEMBER(1, struct memory_endpoint, slot),
    HANDOVER_MEMBER(2, struct memory_endpoint, open),
    HANDOVER_MEMBER(3, struct memory_endpoint, generation),
    HANDOVER_MEMBER(4, struct memory_endpoint, uuid),
    HANDOVER_MEMBER(5, struct memory_endpoint, name),
    HANDOVER_MEMBER(6, struct memory_endpoint, last_epoch),
    HANDOVER_MEMBER(7, struct memory_endpoint, last_reason),
    HANDOVER_MEMBER(8, struct memory_endpoint, busy),
    HANDOVER_MEMBER(9, struct memory_endpoint, quiesce.holds),
    HANDOVER_MEMBER(10, struct memory_endpoint, provider_is_known),
    HANDOVER_MEMBER(11, struct memory_endpoint, provider),
    HANDOVER_MEMBER(12, struct memory_endpoint, identified),
    HANDOVER_MEMBER(13, struct memory_endpoint, told),
    HANDOVER_MEMBER(14, struct memory_endpoint, identity.pid),
    HANDOVER_MEMBER(15, struct memory_endpoint, identity.start_time),
    HANDOVER_MEMBER(16, struct memory_endpoint, quiesce.hold),
};

static const struct handover_member fence_members[] = {
    HANDOVER_MEMBER(1, struct fence, token),   HANDOVER_MEMBER(2, struct fence, generation),
    HANDOVER_MEMBER(3, struct fence, session), HANDOVER_MEMBER(4, struct fence, uid),
    HANDOVER_MEMBER(5, struct fence, expires),
};

/* One that is revoked and whose last write has not told: that write ends with the process. */
static const struct handover_member draining_members[] = {
    HANDOVER_MEMBER(1, struct fence, token),
    HANDOVER_MEMBER(2, struct fence, generation),
};

/* --- written ------------------------------------------------------------------------------------- */

void memory_endpoint_put(struct authority_handover *handover, struct handover_writer *writer, uint16_t tag,
                           const struct memory_endpoint *endpoint) {
    const struct fence *fence;

    handover_begin(writer, tag);
    PUT(writer, endpoint_members, endpoint);
    handover_put_number(writer, ENDPOINT_HIGHEST_TOKEN, endpoint->fences.highest);
    if (endpoint->page.account)
        handover_put_number(writer, ENDPOINT_PAGE_PAYER, endpoint->page.account->uid);
    if (endpoint->fences.current) {
        handover_begin(writer, ENDPOINT_FENCE);
        PUT(writer, fence_members, endpoint->fences.current);
        handover_end(writer);
    }
    list_for_each(fence, &endpoint->fences.draining, link) {
        handover_begin(writer, ENDPOINT_DRAINING);
        PUT(writer, draining_members, fence);
        handover_end(writer);
    }
    if (endpoint->current && !endpoint->current->own_process)
        memctx_put(handover, writer, ENDPOINT_MEMCTX, endpoint->current);
    handover_end(writer);
}

/* --- read ---------------------------------------------------------------------------------------- */

static void never_drained(void *context, uint64_t generation, uint64_t token) {
    (void)context;
    (void)generation;
    (void)token;
}

static void take_fence(struct memory_endpoint *endpoint, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct vmibus_fence_issue issue = {};
    struct handover_record member;
    struct fence fence = {};

    while (handover_next(&records, &member))
        (void)TAKE(&member, fence_members, &fence);
    if (record->handover->error)
        return;
    issue.token = fence.token;
    issue.expires = fence.expires;
    issue.uid = fence.uid;
    memcpy(issue.session, fence.session, sizeof(issue.session));
    fences_issue(&endpoint->fences, &issue, fence.generation, never_drained, NULL);
    if (!endpoint->fences.current || endpoint->fences.current->token != fence.token)
        handover_wrong(record->handover, -EBADMSG);
}

/* Told as drained when the authority goes on: fences_revoke() of it then finds nothing under way. */
static void take_draining(struct memory_endpoint *endpoint, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct fence fence = {};

    while (handover_next(&records, &member))
        (void)TAKE(&member, draining_members, &fence);
    if (!record->handover->error && fences_take_over_draining(&endpoint->fences, fence.token, fence.generation) < 0)
        handover_wrong(record->handover, -ENOMEM);
}

static void take_current(struct authority_handover *handover, struct memory_endpoint *endpoint,
                         const struct handover_record *record) {
    struct memctx *memctx = memctx_take(handover, record);

    if (!memctx)
        return;
    if (endpoint->current || memctx_ended(memctx) || memctx->slot != endpoint->slot || memctx->generation != endpoint->generation ||
        !endpoint->open) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    endpoint->current = memctx_ref(memctx);
}

static struct memory_endpoint *endpoint_from(struct authority *authority, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct memory_endpoint *endpoint = NULL;
    struct handover_record member;

    if (handover_find(records, endpoint_members[0].tag, &member))
        endpoint = authority_slot(authority, (uint32_t)handover_number_below(&member, UINT32_MAX));
    if (!endpoint || endpoint->open || endpoint->fences.highest) {
        handover_wrong(record->handover, endpoint ? -EBADMSG : -ENOSPC);
        return NULL;
    }
    while (handover_next(&records, &member))
        (void)TAKE(&member, endpoint_members, endpoint);
    if (endpoint->name[sizeof(endpoint->name) - 1])
        handover_wrong(record->handover, -EBADMSG);
    return endpoint;
}

/* The page itself comes from the service manager: authority_handover_go_on(). */
static void take_payer(struct memory_endpoint *endpoint, const struct handover_record *record) {
    const struct authority *authority = endpoint->authority;
    uid_t uid = (uid_t)handover_number_below(record, UINT32_MAX);

    if (endpoint->page.account)
        handover_wrong(record->handover, -EBADMSG);
    else if (ledger_ref_account(authority->options.ledger, uid, authority->policy->limits, &endpoint->page.account) < 0)
        handover_wrong(record->handover, -ENOMEM);
}

void memory_endpoint_take(struct authority_handover *handover, const struct handover_record *record) {
    struct memory_endpoint *endpoint = endpoint_from(handover->authority, record);
    struct handover_records records = handover_in(record);
    struct handover_record member;
    uint64_t highest = 0;

    while (endpoint && handover_next(&records, &member))
        switch (member.tag) {
        case ENDPOINT_FENCE:
            take_fence(endpoint, &member);
            break;
        case ENDPOINT_DRAINING:
            take_draining(endpoint, &member);
            break;
        case ENDPOINT_MEMCTX:
            take_current(handover, endpoint, &member);
            break;
        case ENDPOINT_PAGE_PAYER:
            take_payer(endpoint, &member);
            break;
        case ENDPOINT_HIGHEST_TOKEN:
            highest = handover_number(&member);
            break;
        default:
            break;
        }
    if (endpoint && highest > endpoint->fences.highest)
        endpoint->fences.highest = highest;
}
