/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Construction of the authority, and which frame goes where. */
#include "memory/authority.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/answer.h"
#include "memory/attachment.h"
#include "memory/buffer.h"
#include "memory/command.h"
#include "memory/state.h"
#include "util/clock.h"
#include "util/fds.h"

/* --- looking from time to time ----------------------------------------------------------------- */

void authority_rely(struct authority *authority) {
    /* Without a timer the canary is still looked at before each write. */
    if (!loop_timer_is_armed(&authority->look))
        (void)loop_timer_set(&authority->look, clock_now() + AUTHORITY_LOOK_NS);
}

static void look(struct loop_timer *timer) {
    struct authority *authority = container_of(timer, struct authority, look);
    bool relied_on = false;

    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++) {
        struct memory_endpoint *endpoint = &authority->endpoints[slot];

        if (memory_endpoint_is_relied_on(endpoint))
            memory_endpoint_look(endpoint);
        relied_on = relied_on || memory_endpoint_is_relied_on(endpoint);
    }
    if (relied_on)
        authority_rely(authority);
}

/* --- the authority ----------------------------------------------------------------------------- */

void authority_end_page(const struct authority *authority, const struct authority_page *page) {
    const struct authority_options *options = &authority->options;

    (void)epoch_page_end_fd(page->fd);
    if (options->keep)
        options->keep(options->keep_context, page->slot, -1);
}

int authority_new(struct authority **authorityp, const struct authority_options *options) {
    struct authority *authority;
    int r;

    if (options->n_endpoints == 0 || options->n_endpoints == UINT32_MAX)
        return -EINVAL;
    authority = calloc(1, sizeof(*authority));
    if (!authority)
        return -ENOMEM;
    authority->options = *options;
    authority->policy = options->policy;
    authority->policy_version = 1;
    list_init(&authority->clients);
    meters_init(&authority->meters);
    retirement_init(authority);
    loop_timer_init(&authority->look, options->loop, look);
    authority->suspended = options->apart;
    authority->endpoints = calloc((size_t)options->n_endpoints + 1, sizeof(*authority->endpoints));
    r = authority->endpoints ? known_sessions_init(&authority->sessions, options->n_sessions) : -ENOMEM;
    if (r == 0)
        r = completions_init(&authority->completions, options->loop);
    if (r < 0) {
        known_sessions_deinit(&authority->sessions);
        free(authority->endpoints);
        free(authority);
        return r;
    }
    for (uint32_t slot = 0; slot <= options->n_endpoints; slot++)
        memory_endpoint_init(&authority->endpoints[slot], authority, slot);
    for (size_t i = 0; i < options->n_pages; i++)
        authority_end_page(authority, &options->pages[i]);
    *authorityp = authority;
    return 0;
}

struct authority *authority_free(struct authority *authority) {
    bool all_ended;

    if (!authority)
        return NULL;
    assert(list_is_empty(&authority->clients));
    authority->stopping = true;
    loop_timer_cancel(&authority->look);
    for (uint32_t slot = 0; slot <= authority->options.n_endpoints; slot++) {
        quiesce_close(&authority->endpoints[slot]);
        authority->endpoints[slot].worker = worker_leave(authority->endpoints[slot].worker);
    }
    all_ended = completions_deinit(&authority->completions, clock_now() + AUTHORITY_PATIENCE_NS);
    for (uint32_t slot = 0; slot <= authority->options.n_endpoints; slot++)
        memory_endpoint_deinit(&authority->endpoints[slot]);
    retirement_deinit(authority);
    assert(authority->counters.attachments == 0);
    meters_deinit(&authority->meters);
    known_sessions_deinit(&authority->sessions);
    assert(authority->counters.buffers == 0 && authority->counters.buffer_bytes == 0);
    /* A write that was abandoned asks its endpoint whether it may commit, should it ever come back. */
    if (all_ended)
        free(authority->endpoints);
    free(authority);
    return NULL;
}

void authority_set_policy(struct authority *authority, const struct policy *policy) {
    struct authority_client *client;

    authority->policy = policy;
    authority->policy_version++;
    list_for_each(client, &authority->clients, link)
        client_review_buffers(client);
}

void authority_get_counters(const struct authority *authority,
                            struct authority_counters *counters) {
    *counters = authority->counters;
}

/* --- clients ----------------------------------------------------------------------------------- */

int authority_client_new(struct authority_client **clientp, struct authority *authority,
                         const uint8_t *session, const struct principal *principal,
                         struct account *account, struct region *region, enum vmibus_role role,
                         const struct authority_client_ops *ops, void *context) {
    struct authority_client *client;
    void *memory;
    int r = region_take(region, sizeof(*client), &memory);

    if (r)
        return r;
    client = memory;
    r = slot_table_init(&client->grants, region, authority->options.n_endpoints + 1);
    if (r) {
        region_give(region, client, sizeof(*client));
        return r;
    }
    client->region = region;
    client->authority = authority;
    memcpy(client->session, session, sizeof(client->session));
    client->session_number = audit_session_number(authority->options.audit, session);
    client->principal = *principal;
    client->account = account_ref(account);
    client->role = role;
    client->ops = ops;
    client->context = context;
    list_init(&client->attachments);
    list_init(&client->jobs);
    list_init(&client->buffers);
    list_append(&authority->clients, &client->link);
    *clientp = client;
    return 0;
}

static void forget_sensor(struct authority_client *client) {
    struct authority *authority = client->authority;

    retire_forget(client);
    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++)
        if (authority->endpoints[slot].identity.client == client)
            authority->endpoints[slot].identity.client = NULL;
}

struct authority_client *authority_client_free(struct authority_client *client) {
    if (!client)
        return NULL;
    client_leave_jobs(client);
    if (client->role == VMIBUS_ROLE_SENSOR)
        forget_sensor(client);
    client_detach(client);
    client_free_buffers(client);
    list_unlink(&client->link);
    account_unref(client->account);
    write_allowance_unref(client->unkept.allowance);
    for (uint32_t slot = 0; slot <= client->authority->options.n_endpoints; slot++) {
        struct client_grant *grant = slot_table_get(&client->grants, slot);

        if (grant)
            write_allowance_unref(grant->allowance);
        region_give(client->region, grant, sizeof(*grant));
    }
    region_give(client->region, client, sizeof(*client));
    return NULL;
}

/* 0, a negative errno or an enum charge_result. */
static int find_allowance(const struct authority_client *client, const struct memory_endpoint *endpoint,
                          struct write_allowance **allowancep) {
    int r = policy_write_allowance(client->authority->policy, &client->principal, endpoint->name, endpoint->uuid, allowancep);

    if (r < 0 || !*allowancep)
        return r;
    r = charge_take(&(*allowancep)->charge, client->account, RESOURCE_BYTES, write_allowance_octets(*allowancep));
    if (r)
        *allowancep = write_allowance_unref(*allowancep);
    return r;
}

/* A bound that cannot be kept in mind would be none: without memory for it there is no writing, until the next look. */
static void look_up(struct authority_client *client, const struct memory_endpoint *endpoint, struct client_grant *grant) {
    const struct authority *authority = client->authority;
    const struct policy *policy = authority->policy;

    write_allowance_unref(grant->allowance);
    *grant = (struct client_grant){
        .policy_version = authority->policy_version,
        .generation = endpoint->generation,
        .grant = policy_evaluate(policy, &client->principal, endpoint->name, endpoint->uuid),
    };
    if (find_allowance(client, endpoint, &grant->allowance)) {
        grant->policy_version = 0;
        grant->grant.capabilities &= ~(uint32_t)VMIBUS_CAP_MEM_WRITE;
    }
}

/* What is remembered of a slot. It is of another endpoint perhaps, or there is no room to remember anything. */
static struct client_grant *grant_in(struct authority_client *client, uint32_t slot) {
    struct client_grant *grant = slot_table_get(&client->grants, slot);
    void *memory;

    if (grant)
        return grant;
    client->unkept.policy_version = 0;
    if (region_take(client->region, sizeof(*grant), &memory))
        return &client->unkept;
    if (slot_table_set(&client->grants, client->region, slot, memory)) {
        region_give(client->region, memory, sizeof(*grant));
        return &client->unkept;
    }
    return memory;
}

static struct client_grant *client_grant_on(struct authority_client *client, const struct memory_endpoint *endpoint) {
    struct client_grant *grant = grant_in(client, endpoint->slot);

    if (grant->policy_version != client->authority->policy_version ||
        grant->generation != endpoint->generation)
        look_up(client, endpoint, grant);
    return grant;
}

uint32_t client_capabilities(struct authority_client *client,
                             const struct memory_endpoint *endpoint) {
    return client_grant_on(client, endpoint)->grant.capabilities;
}

bool client_write_allowance(struct authority_client *client, const struct memory_endpoint *endpoint,
                            struct write_allowance **allowancep) {
    const struct client_grant *grant = client_grant_on(client, endpoint);

    *allowancep = grant->allowance;
    return grant->grant.capabilities & VMIBUS_CAP_MEM_WRITE;
}

/* The capabilities of which a command needs one. A sensor attaches to what it provides, whatever policy says. */
static uint32_t needed_by(const struct authority_client *client, const struct vmibus_frame *frame) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_MEMWRITE:
        return VMIBUS_CAP_MEM_WRITE;
    case VMIBUS_KIND_MEM_READ:
        return VMIBUS_CAP_MEM_READ;
    case VMIBUS_KIND_MEM_ATTACH:
        return client->role == VMIBUS_ROLE_SENSOR ? 0 : VMIBUS_CAP_RAM_FD | VMIBUS_CAP_MEM_READ;
    default:
        return 0;
    }
}

uint64_t client_audit(struct authority_client *client, const struct vmibus_frame *frame, uint64_t received,
                      struct vmibus_audit_record *record) {
    const struct memory_endpoint *endpoint = authority_slot(client->authority, frame->header.slot);

    record->received = received;
    record->generation = frame->header.generation;
    record->slot = frame->header.slot;
    record->uid = client->principal.uid;
    record->pid = (uint32_t)client->principal.pid;
    record->kind = frame->header.kind;
    record->correlation = frame->header.correlation;
    record->session = client->session_number;
    if (endpoint && endpoint->open && endpoint->generation == frame->header.generation) {
        audit_set_name(record, endpoint->name);
        record->rule = grant_rule(&client_grant_on(client, endpoint)->grant, needed_by(client, frame));
    }
    return audit_begin(client->authority->options.audit, record);
}

void client_answer(struct authority_client *client, struct vmibus_frame *answer,
                   uint32_t command_flags, const void *tail, const int *fds) {
    answer->header.flags = command_flags & VMIBUS_FRAME_NO_ACK;
    answer->header.timestamp = answer->ack.finished;
    latencies_count(&client->authority->latencies, &answer->ack);
    client->ops->reply(client->context, answer, tail, fds);
}

static void refuse(struct authority_client *client, const struct vmibus_frame *frame,
                   enum vmibus_error error, enum vmibus_reason reason, uint64_t received) {
    struct vmibus_frame answer;

    answer_begin(&answer, frame, received);
    answer_refuse(&answer.ack, error, reason, frame->header.kind);
    answer.ack.finished = clock_now();
    client_answer(client, &answer, frame->header.flags, NULL, NULL);
}

static void submit_control(struct authority_client *client, const struct vmibus_frame *frame,
                           const void *tail, uint64_t received) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_MEMWRITE:
        command_write(client, frame, tail, received);
        break;
    case VMIBUS_KIND_MEM_READ:
        command_read(client, frame, received);
        break;
    case VMIBUS_KIND_MEM_QUERY:
        command_query(client, frame, received);
        break;
    case VMIBUS_KIND_BUFFER:
        command_buffer(client, frame, received);
        break;
    default:
        refuse(client, frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND, received);
    }
}

static void submit_sensor(struct authority_client *client, const struct vmibus_frame *frame,
                          const void *tail, const int *fds, uint64_t received) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_MEM_IDENTITY:
    case VMIBUS_KIND_MEM_LAYOUT:
    case VMIBUS_KIND_MEM_ROOT:
    case VMIBUS_KIND_MEM_END:
    case VMIBUS_KIND_MEM_BUSY:
        command_propose(client, frame, tail, fds, received);
        break;
    default:
        refuse(client, frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND, received);
    }
}

void authority_client_submit(struct authority_client *client, const struct vmibus_frame *frame,
                             const void *tail, const int *fds, uint64_t received) {
    if (client->closed)
        refuse(client, frame, VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION, received);
    else if (frame->header.kind == VMIBUS_KIND_MEM_ATTACH)
        command_attach(client, frame, received);
    else if (frame->header.kind == VMIBUS_KIND_MEM_RELEASE)
        command_release(client, frame, received);
    else if (client->role == VMIBUS_ROLE_SENSOR)
        submit_sensor(client, frame, tail, fds, received);
    else
        submit_control(client, frame, tail, received);
}
