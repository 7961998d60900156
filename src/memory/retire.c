/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/retire.h"

#include <assert.h>

#include "memory/attachment.h"
#include "memory/memctx.h"
#include "memory/state.h"
#include "util/clock.h"

/* Wakes up for the first deadline, or not at all. */
static void arm(struct authority *authority) {
    struct retirement *retirement = &authority->retirement;
    const struct memctx *first;

    if (retirement->paused || list_is_empty(&retirement->waiting)) {
        loop_timer_cancel(&retirement->timer);
        return;
    }
    first = list_first(&retirement->waiting, struct memctx, retiring.link);
    if (!loop_timer_is_armed(&retirement->timer) || retirement->timer.deadline != first->retiring.deadline)
        (void)loop_timer_set(&retirement->timer, first->retiring.deadline);
}

/* --- deadlines --------------------------------------------------------------------------------- */

static bool holds(const struct authority_client *client, const struct memctx *memctx) {
    const struct attachment *attachment;

    list_for_each(attachment, &client->attachments, link)
        if (attachment->memctx == memctx)
            return true;
    return false;
}

/* Its owner frees a client later, not from inside: the list stays as it is. */
static void disconnect_holders(struct authority *authority, const struct memctx *memctx) {
    struct authority_client *client;

    list_for_each(client, &authority->clients, link) {
        if (!client->ops->disconnect || !holds(client, memctx))
            continue;
        client->closed = true;
        client_detach(client);
        client->ops->disconnect(client->context, VMIBUS_REASON_RETIRE_OVERDUE, memctx->epoch, authority->options.retire_ms);
    }
}

static void deadline_passed(struct loop_timer *timer) {
    struct authority *authority = container_of(timer, struct authority, retirement.timer);
    struct retirement *retirement = &authority->retirement;
    uint64_t now = clock_now();

    while (!list_is_empty(&retirement->waiting)) {
        struct memctx *memctx = list_first(&retirement->waiting, struct memctx, retiring.link);

        if (memctx->retiring.deadline > now)
            break;
        memctx_ref(memctx);
        list_unlink(&memctx->retiring.link);
        list_append(&retirement->overdue, &memctx->retiring.link);
        disconnect_holders(authority, memctx);
        memctx_unref(memctx);
    }
    arm(authority);
}

void retirement_init(struct authority *authority) {
    list_init(&authority->retirement.waiting);
    list_init(&authority->retirement.overdue);
    loop_timer_init(&authority->retirement.timer, authority->options.loop, deadline_passed);
}

void retirement_deinit(struct authority *authority) {
    assert(list_is_empty(&authority->retirement.waiting) && list_is_empty(&authority->retirement.overdue));
    assert(authority->counters.epochs_retiring == 0);
    loop_timer_cancel(&authority->retirement.timer);
}

/* --- contexts ---------------------------------------------------------------------------------- */

void retire_begin(struct memory_endpoint *endpoint, struct memctx *memctx) {
    struct authority *authority = endpoint->authority;
    struct retiring *retiring = &memctx->retiring;

    retiring->authority = authority;
    retiring->deadline = clock_now() + authority->options.retire_ms * NS_PER_MS;
    list_append(&authority->retirement.waiting, &retiring->link);
    authority->counters.epochs_retiring++;
    /* Where the endpoint alone holds it there is nothing to wait for. */
    if (memctx->refs > 1)
        arm(authority);
}

void retire_take_over(struct authority *authority, struct memctx *memctx, uint64_t deadline) {
    struct list *waiting = &authority->retirement.waiting, *before = waiting->previous;

    memctx->retiring.authority = authority;
    memctx->retiring.deadline = deadline;
    while (before != waiting && container_of(before, struct memctx, retiring.link)->retiring.deadline > deadline)
        before = before->previous;
    list_insert_between(&memctx->retiring.link, before, before->next);
    authority->counters.epochs_retiring++;
}

void retirement_pause(struct authority *authority) {
    authority->retirement.paused = true;
    arm(authority);
}

void retirement_go_on(struct authority *authority) {
    uint64_t least = clock_now() + authority->options.retire_ms * NS_PER_MS;
    struct memctx *memctx;

    list_for_each(memctx, &authority->retirement.waiting, retiring.link)
        if (memctx->retiring.deadline < least)
            memctx->retiring.deadline = least;
    arm(authority);
}

static void tell_provider(const struct memctx *memctx) {
    struct authority_client *provider = memctx->retiring.provider;
    const struct vmibus_frame frame = {
        .header =
            {
                .kind = VMIBUS_KIND_MEM_RETIRED,
                .direction = VMIBUS_DIRECTION_DOWN,
                .priority = VMIBUS_PRIORITY_NORMAL,
                .version = VMIBUS_PROTOCOL_VERSION,
                .slot = memctx->slot,
                .generation = memctx->generation,
                .timestamp = clock_now(),
            },
        .mem_retired = {.epoch = memctx->epoch},
    };

    if (provider)
        provider->ops->reply(provider->context, &frame, NULL, NULL);
}

void retire_end(struct memctx *memctx) {
    struct authority *authority = memctx->retiring.authority;

    if (!authority)
        return;
    list_unlink(&memctx->retiring.link);
    authority->counters.epochs_retiring--;
    if (loop_timer_is_armed(&authority->retirement.timer))
        arm(authority);
    tell_provider(memctx);
}

static bool is_written_in(const struct list *contexts, const struct memory_endpoint *endpoint) {
    const struct memctx *memctx;

    /* Of the occupant itself the fence says whose writes go on. */
    list_for_each(memctx, contexts, retiring.link)
        if (memctx->writes > 0 && (memctx->slot != endpoint->slot || memctx->generation != endpoint->generation) &&
            memctx_shares_memory(memctx, endpoint->current))
            return true;
    return false;
}

bool retire_is_written(const struct memory_endpoint *endpoint) {
    const struct retirement *retirement = &endpoint->authority->retirement;

    return is_written_in(&retirement->waiting, endpoint) || is_written_in(&retirement->overdue, endpoint);
}

static void forget_in(struct list *contexts, const struct authority_client *client) {
    struct memctx *memctx;

    list_for_each(memctx, contexts, retiring.link)
        if (memctx->retiring.provider == client)
            memctx->retiring.provider = NULL;
}

void retire_forget(struct authority_client *client) {
    struct authority *authority = client->authority;

    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++) {
        struct memctx *current = authority->endpoints[slot].current;

        if (current && current->retiring.provider == client)
            current->retiring.provider = NULL;
    }
    forget_in(&authority->retirement.waiting, client);
    forget_in(&authority->retirement.overdue, client);
}
