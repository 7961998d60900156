/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/acknowledge.h"
#include "bus/bus.h"
#include "bus/command.h"
#include "bus/endpoint.h"
#include "bus/hold.h"
#include "bus/lease.h"
#include "bus/subscription.h"
#include "bus/watch.h"
#include "util/clock.h"
#include "util/refusal.h"

/* --- coming and going -------------------------------------------------------------------------- */

static struct grant grant_on(const struct control *control, const struct endpoint *endpoint) {
    if (endpoint->slot == 0)
        return control->grant;
    return policy_evaluate(control->bus->policy, &control->principal, endpoint->name, endpoint_granted_uuid(endpoint));
}

/* Binds it to an endpoint if the policy says so, and subscribes what its patterns cover. As region_take(). */
static int control_bind(struct control *control, struct endpoint *endpoint) {
    struct grant grant = grant_on(control, endpoint);
    struct binding *binding;
    int r;

    if (!grant.capabilities)
        return 0;
    r = binding_new(&binding, control, endpoint, grant);
    if (r)
        return r;
    subscription_match(control, endpoint);
    binding_subscribe(binding, subscription_kinds(control, endpoint));
    return 0;
}

void control_bind_or_fail(struct control *control, struct endpoint *endpoint) {
    struct vmibus_ack refusal = {};
    int r = control_bind(control, endpoint);

    if (r == 0)
        return;
    (void)region_refusal(&refusal, r, &control->region);
    control_fail_with(control, (enum vmibus_error)refusal.error, (enum vmibus_reason)refusal.reason, 0, refusal.count,
                      refusal.value);
}

static int bind_all(struct control *control) {
    struct bus *bus = control->bus;
    int r = 0;

    for (uint32_t slot = 0; r == 0 && slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            r = control_bind(control, bus->endpoints[slot]);
    return r;
}

/* What is charged to the control's account. */
static int open_account(struct control *control) {
    struct bus *bus = control->bus;
    int r;

    r = ledger_ref_account(bus->ledger, control->principal.uid, bus->policy->limits, &control->account);
    if (r < 0)
        return r;
    outbox_init(&control->outbox, &bus->deliveries, control->account, bus->options.queue_depth);
    region_init(&control->region, &bus->regions, control->account);
    return 0;
}

int control_take_over(struct control *control, struct bus *bus, const struct principal *principal, const uint8_t *session,
                      const struct control_ops *ops, struct vmibus_ack *refusal) {
    int r;

    if (bus->n_controls >= bus->options.n_connections)
        return refusal_of_bound(refusal, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_CONNECTIONS, bus->options.n_connections,
                                bus->n_controls, principal->uid);
    *control = (struct control){.bus = bus, .ops = ops, .principal = *principal, .role = VMIBUS_ROLE_CONTROL};
    memcpy(control->session, session, sizeof(control->session));
    control->session_number = audit_session_number(bus->audit, session);
    control->grant = policy_evaluate_any(bus->policy, principal);
    list_init(&control->subscriptions);
    list_init(&control->leases);
    list_init(&control->waiters);
    list_init(&control->commands);
    list_init(&control->holds);
    list_init(&control->departures);
    list_init(&control->watches);
    r = open_account(control);
    if (r)
        return r;
    list_append(&bus->controls, &control->link);
    bus->n_controls++;
    r = slot_table_init(&control->bindings, &control->region, bus->n_endpoints + 1);
    if (r == 0)
        return 0;
    r = region_refusal(refusal, r, &control->region);
    control_deinit(control);
    return r;
}

int control_init(struct control *control, struct bus *bus, const struct principal *principal, const uint8_t *session,
                 const struct control_ops *ops, struct vmibus_ack *refusal) {
    int r = control_take_over(control, bus, principal, session, ops, refusal);

    if (r)
        return r;
    r = bind_all(control);
    if (r == 0)
        return 0;
    r = region_refusal(refusal, r, &control->region);
    control_deinit(control);
    return r;
}

void control_tell_session(const struct control *control) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SESSION_OPENED},
        .session_opened = {.uid = control->principal.uid,
                           .pid = (uint32_t)control->principal.pid,
                           .role = (uint8_t)control->role},
    };

    memcpy(frame.session_opened.session, control->session, sizeof(control->session));
    bus_tell_link(control->bus, NULL, &frame, NULL);
}

static void unbind(struct binding *binding) {
    struct endpoint *endpoint = binding->endpoint;

    binding_free(binding);
    endpoint_update_demand(endpoint);
}

void control_deinit(struct control *control) {
    struct bus *bus = control->bus;
    struct vmibus_frame closed = {.header = {.kind = VMIBUS_KIND_SESSION_CLOSED}};

    control->failed = true; /* nobody is told anything any more */
    lease_drop_control(control, VMIBUS_REASON_DISCONNECTED);
    command_drop_control(control);
    watch_drop_control(control);
    hold_drop_control(control);
    subscription_drop_control(control);
    memcpy(closed.session_closed.session, control->session, sizeof(control->session));
    bus_tell_link(bus, NULL, &closed, NULL);
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++)
        if (control_binding_in(control, slot))
            unbind(control_binding_in(control, slot));
    outbox_deinit(&control->outbox);
    region_deinit(&control->region);
    list_unlink(&control->link);
    bus->n_controls--;
    account_unref(control->account);
}

/* The grant is gone: what waits to be told is not told any more, only that the endpoint is gone for this control. */
static void withdraw(struct control *control, struct binding *binding) {
    struct endpoint *endpoint = binding->endpoint;

    outbox_withdraw(&control->outbox, endpoint->slot, endpoint->generation, 0, 0);
    binding->n_queued = 0;
    endpoint_leave_control(endpoint, binding);
}

static void renew(struct control *control, struct endpoint *endpoint) {
    struct binding *binding = control_binding_in(control, endpoint->slot);
    struct grant grant = grant_on(control, endpoint);

    if (binding && grant.capabilities)
        binding_set_grant(binding, grant);
    else if (binding)
        withdraw(control, binding);
    else
        (void)control_bind(control, endpoint); /* without memory it stays denied */
    /* More may be allowed now of what was asked for before. */
    binding = control_binding_in(control, endpoint->slot);
    if (binding)
        binding_subscribe(binding, subscription_kinds(control, endpoint));
    endpoint_update_demand(endpoint);
}

void control_see_identity(struct control *control, struct endpoint *endpoint) {
    if (control_binding_in(control, endpoint->slot))
        subscription_match(control, endpoint);
    renew(control, endpoint);
    if (!outbox_is_empty(&control->outbox))
        control_wake(control);
}

void control_renew_grants(struct control *control) {
    struct bus *bus = control->bus;

    control->grant = policy_evaluate_any(bus->policy, &control->principal);
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot])
            renew(control, bus->endpoints[slot]);
    if (!outbox_is_empty(&control->outbox))
        control_wake(control);
}

struct binding *control_binding(const struct control *control, uint32_t slot, uint64_t generation) {
    struct binding *binding = control_binding_in(control, slot);

    return binding && binding->endpoint->generation == generation ? binding : NULL;
}

/* --- taking ------------------------------------------------------------------------------------ */

void control_wake(struct control *control) {
    control->ops->wake(control);
}

static bool take_replay(struct control *control, struct control_item *item) {
    struct list *replays = &control->outbox.replays;

    while (!list_is_empty(replays))
        if (binding_take_replay(list_first(replays, struct binding, replay_link), &item->frame, &item->tail))
            return true;
    return false;
}

static bool take_head(struct control *control, struct control_item *item) {
    return outbox_take_gap(&control->outbox, &item->frame) || take_replay(control, item) ||
           outbox_take_gap(&control->outbox, &item->frame);
}

/* Whether a delivery that leaves the lanes is still to be told. */
static bool still_wanted(struct control *control, const struct delivery *delivery) {
    const struct event *event = delivery->event;
    struct binding *binding;

    if (event->retained < 0 || delivery->farewell || delivery->answer)
        return true;
    binding = control_binding_in(control, event->frame.header.slot);
    if (binding && binding_settle(binding, event)) {
        control->bus->counters.coalesced++;
        return false;
    }
    return !event->withdrawn;
}

static bool take_lanes(struct control *control, struct control_item *item) {
    struct delivery *delivery;

    while ((delivery = outbox_take(&control->outbox))) {
        bool wanted = still_wanted(control, delivery);

        if (wanted) {
            item->frame = delivery->event->frame;
            item->tail = tail_ref(delivery->event->tail);
            item->fds = delivery->event->fds; /* only answers have descriptors, and an answer is delivered once */
            delivery->event->fds = NULL;
        }
        outbox_finish(&control->outbox, delivery);
        if (wanted)
            return true;
    }
    return false;
}

bool control_take(struct control *control, struct control_item *item) {
    item->tail = NULL;
    item->fds = NULL;
    if (control->ended)
        return false;
    if (!(outbox_head_is_due(&control->outbox) && take_head(control, item)) && !take_lanes(control, item) &&
        !take_head(control, item))
        return false;
    control->ended = item->frame.header.kind == VMIBUS_KIND_ERROR;
    item->frame.header.delivery = ++control->outbox.sequence;
    control->bus->counters.delivered++;
    if (item->frame.header.kind == VMIBUS_KIND_WATCH_CHANGED)
        watch_see_taken(control, &item->frame);
    return true;
}

void control_item_deinit(struct control_item *item) {
    item->tail = tail_unref(item->tail);
    item->fds = event_fds_free(item->fds);
}

/* --- answering --------------------------------------------------------------------------------- */

bool control_may_submit(const struct control *control) {
    return control->outbox.n_answers < control->bus->options.commands && !control->failed;
}

/* Descriptors that have been read are not in flight any more; only asking tells. */
static void reclaim_credits(void *context) {
    struct bus *bus = context;
    struct control *control;

    list_for_each(control, &bus->controls, link)
        if (control->ops->reclaim)
            control->ops->reclaim(control);
}

bool control_answer(struct control *control, const struct vmibus_header *command, const struct vmibus_ack *ack, const void *tail,
                    size_t tail_length, const int *fds, size_t n_fds) {
    const struct acknowledgement answer = {.command = command,
                                           .ack = ack,
                                           .tail = tail,
                                           .tail_length = tail_length,
                                           .fds = fds,
                                           .n_fds = n_fds,
                                           .account = control->account,
                                           .reclaim = reclaim_credits,
                                           .context = control->bus};
    struct event *event;
    bool whole;

    if (ack->error)
        control->bus->counters.refused++;
    else if (command->flags & VMIBUS_FRAME_NO_ACK)
        return true;
    event = acknowledge(&control->bus->events, &answer, &whole);
    if (!event) {
        /* control_may_submit() keeps answers below what the pool holds for them. */
        control_fail(control, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE, 0);
        return false;
    }
    /* The memory authority counts its own. */
    if (command->kind < VMIBUS_KIND_CMD_MEMWRITE)
        latencies_count(&control->bus->latencies, &event->frame.ack);
    outbox_push_answer(&control->outbox, event);
    control_wake(control);
    return whole;
}

void control_fail(struct control *control, enum vmibus_error error, enum vmibus_reason reason, uint64_t bound) {
    control_fail_with(control, error, reason, 0, 0, bound);
}

void control_fail_with(struct control *control, enum vmibus_error error, enum vmibus_reason reason, uint16_t offender,
                       uint64_t value, uint64_t bound) {
    const struct vmibus_frame frame = connection_error(error, reason, offender, value, bound);
    struct event *event;

    if (control->failed)
        return;
    control->failed = true;
    event = event_new(&control->bus->events, EVENT_ANSWER, &frame);
    if (event)
        outbox_push_answer(&control->outbox, event);
    control->ops->fail(control);
}
