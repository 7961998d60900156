/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the authority hears from the bus, and what it does while it hears nothing.
 *
 * Without a link every fence is suspended: nothing begins under it, and what is under way is refused at its commit.  A
 * bus that comes (again) tells all there is; what it does not tell is over.  Only then, at LINK_SYNCED, the fences that it told
 * are in force, and what has happened to memory contexts meanwhile is published.
 */
#include <string.h>

#include "memory/command.h"
#include "memory/attachment.h"
#include "memory/buffer.h"
#include "memory/state.h"

/* --- sessions ---------------------------------------------------------------------------------- */

static void close_session(struct authority *authority, const uint8_t *name) {
    struct known_session *session = known_sessions_find(&authority->sessions, name);
    struct authority_client *client;

    if (session)
        known_sessions_remove(&authority->sessions, session);
    list_for_each(client, &authority->clients, link) {
        if (memcmp(client->session, name, sizeof(client->session)) != 0 || client->closed)
            continue;
        client->closed = true;
        client_detach(client);
        client_free_buffers(client);
        if (client->ops->closed)
            client->ops->closed(client->context);
    }
}

const struct known_session *authority_find_session(const struct authority *authority, const uint8_t *name) {
    return known_sessions_find(&authority->sessions, name);
}

static void tell_lost(struct authority *authority, const uint8_t *name) {
    const struct authority_options *options = &authority->options;
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SESSION_LOST,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_HIGH,
                   .version = VMIBUS_PROTOCOL_VERSION},
    };

    memcpy(frame.session_lost.session, name, sizeof(frame.session_lost.session));
    options->link(options->link_context, &frame, NULL);
}

void authority_join_session(struct authority *authority, const uint8_t *name) {
    known_sessions_find(&authority->sessions, name)->n_channels++;
}

void authority_leave_session(struct authority *authority, const uint8_t *name) {
    struct known_session *session = known_sessions_find(&authority->sessions, name);

    /* Whoever is lent the connection has a channel of its own: the last one counts. */
    if (session && session->n_channels && --session->n_channels == 0)
        tell_lost(authority, name);
}

/* --- the link ---------------------------------------------------------------------------------- */

void authority_link_lost(struct authority *authority) {
    authority->suspended = true;
    known_sessions_doubt(&authority->sessions);
    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++) {
        struct memory_endpoint *endpoint = &authority->endpoints[slot];

        endpoint->told = false;
        fences_suspend(&endpoint->fences);
        quiesce_lose(endpoint);
    }
}

uint32_t authority_numbers_taken(const struct authority *authority) {
    uint64_t highest = 0;

    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++) {
        const struct memory_endpoint *endpoint = &authority->endpoints[slot];

        highest = endpoint->generation > highest ? endpoint->generation : highest;
        highest = endpoint->fences.highest > highest ? endpoint->fences.highest : highest;
    }
    return (uint32_t)(highest >> 32);
}

bool authority_is_synced(const struct authority *authority) {
    return !authority->suspended;
}

/* What the bus retains may be older than what is: it is told again, or told that there is nothing. */
static void publish_again(struct memory_endpoint *endpoint) {
    endpoint->authority->again = true;
    if (endpoint->current)
        memory_endpoint_publish(endpoint);
    else if (endpoint->last_epoch)
        memory_endpoint_publish_end(endpoint);
    endpoint->authority->again = false;
}

static void sync_endpoint(struct memory_endpoint *endpoint) {
    fences_resume(&endpoint->fences, memory_endpoint_drained, endpoint);
    if (!endpoint->open)
        return;
    if (endpoint->told)
        publish_again(endpoint);
    else
        memory_endpoint_close(endpoint, VMIBUS_REASON_WITHDRAWN);
}

/* The bus has told all there is: whatever else there is was of another bus, or is over. */
static void link_synced(struct authority *authority) {
    struct known_session *session;

    if (!authority->suspended)
        return;
    while ((session = known_sessions_untold(&authority->sessions))) {
        const struct known_session over = *session;

        close_session(authority, over.name);
    }
    authority->suspended = false;
    /* What is published may be what loses the link again. */
    for (uint32_t slot = 1; slot <= authority->options.n_endpoints && !authority->suspended; slot++)
        sync_endpoint(&authority->endpoints[slot]);
    authority_rely(authority);
}

/* --- hearing ----------------------------------------------------------------------------------- */

static void hear_of_fence(struct memory_endpoint *endpoint, const struct vmibus_frame *frame) {
    uint64_t generation = frame->header.generation;

    if (frame->header.kind == VMIBUS_KIND_FENCE_REVOKE) {
        fences_revoke(&endpoint->fences, frame->fence_revoke.token, generation,
                      memory_endpoint_drained, endpoint);
        return;
    }
    if (!endpoint->open || endpoint->generation != generation || frame->fence_issue.token == 0)
        return;
    fences_issue(&endpoint->fences, &frame->fence_issue, generation, memory_endpoint_drained,
                 endpoint);
    authority_rely(endpoint->authority);
}

static void hear_of_endpoint(struct memory_endpoint *endpoint, const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_header *header = &frame->header;

    if (header->kind == VMIBUS_KIND_ENDPOINT_OPENED) {
        memory_endpoint_open(endpoint, header->generation, frame->endpoint_opened.uuid, tail, header->tail_length);
        endpoint->told = true;
    } else if (endpoint->generation == header->generation) {
        memory_endpoint_close(endpoint, frame->endpoint_closed.reason);
    }
}

/* What concerns no endpoint. False: it does. */
static bool hear_of_link(struct authority *authority, const struct vmibus_frame *frame) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_SESSION_OPENED:
        known_sessions_add(&authority->sessions, &frame->session_opened);
        return true;
    case VMIBUS_KIND_SESSION_CLOSED:
        close_session(authority, frame->session_closed.session);
        return true;
    case VMIBUS_KIND_LINK_SYNCED:
        link_synced(authority);
        return true;
    default:
        return false;
    }
}

void authority_hear_link(struct authority *authority, const struct vmibus_frame *frame, const void *tail) {
    struct memory_endpoint *endpoint = authority_slot(authority, frame->header.slot);

    if (hear_of_link(authority, frame) || !endpoint)
        return;
    switch (frame->header.kind) {
    case VMIBUS_KIND_ENDPOINT_OPENED:
    case VMIBUS_KIND_ENDPOINT_CLOSED:
        hear_of_endpoint(endpoint, frame, tail);
        break;
    case VMIBUS_KIND_MEMORY_PROVIDER:
        if (endpoint->open && endpoint->generation == frame->header.generation)
            memory_endpoint_set_provider(endpoint, frame->memory_provider.session);
        break;
    case VMIBUS_KIND_FENCE_ISSUE:
    case VMIBUS_KIND_FENCE_REVOKE:
        hear_of_fence(endpoint, frame);
        break;
    case VMIBUS_KIND_QUIESCE_STATE:
        if (endpoint->open && endpoint->generation == frame->header.generation)
            quiesce_hear(endpoint, frame);
        break;
    default:
        break;
    }
}
