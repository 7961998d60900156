/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/control.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "bus/command.h"
#include "bus/endpoint.h"
#include "bus/lease.h"
#include "bus/query.h"
#include "bus/subscription.h"
#include "util/clock.h"

/* --- coming and going -------------------------------------------------------------------------- */

int control_bind(struct control *control, struct endpoint *endpoint) {
    struct grant grant = endpoint->slot ? policy_evaluate(control->bus->policy, &control->principal, endpoint->name, endpoint->uuid)
                                        : control->grant;
    struct binding *binding;

    if (!grant.capabilities)
        return 0;
    binding = binding_new(control, endpoint, grant);
    if (!binding)
        return -ENOMEM;
    binding_subscribe(binding, subscription_kinds(control, endpoint));
    return 0;
}

static int bind_all(struct control *control) {
    struct bus *bus = control->bus;
    int r;

    control->bindings = calloc(bus->n_endpoints + 1, sizeof(struct binding *));
    if (!control->bindings)
        return -ENOMEM;
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++) {
        if (!bus->endpoints[slot])
            continue;
        r = control_bind(control, bus->endpoints[slot]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int open_outbox(struct control *control) {
    struct bus *bus = control->bus;
    int r;

    if (bus->n_controls >= bus->options.n_connections)
        return VMIBUS_ERROR_PRESSURE;
    r = ledger_ref_account(bus->ledger, control->principal.uid, bus->policy->limits, &control->account);
    if (r < 0)
        return r;
    r = outbox_init(&control->outbox, &bus->deliveries, control->account, bus->options.queue_depth);
    if (r)
        account_unref(control->account);
    return r;
}

int control_init(struct control *control, struct bus *bus, const struct principal *principal, const uint8_t *session,
                 const struct control_ops *ops) {
    int r;

    *control = (struct control){.bus = bus, .ops = ops, .principal = *principal};
    memcpy(control->session, session, sizeof(control->session));
    control->grant = policy_evaluate_any(bus->policy, principal);
    list_init(&control->subscriptions);
    list_init(&control->leases);
    list_init(&control->waiters);
    list_init(&control->commands);
    r = open_outbox(control);
    if (r)
        return r;
    list_append(&bus->controls, &control->link);
    bus->n_controls++;
    r = bind_all(control);
    if (r < 0)
        control_deinit(control);
    return r;
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
    subscription_drop_control(control);
    memcpy(closed.session_closed.session, control->session, sizeof(control->session));
    bus_tell_link(bus, NULL, &closed, NULL);
    for (uint32_t slot = 0; control->bindings && slot <= bus->n_endpoints; slot++)
        if (control->bindings[slot])
            unbind(control->bindings[slot]);
    outbox_deinit(&control->outbox);
    free(control->bindings);
    list_unlink(&control->link);
    bus->n_controls--;
    account_unref(control->account);
}

/* The grant is gone: also what waits to be told is not told any more. */
static void withdraw(struct control *control, struct binding *binding) {
    outbox_withdraw(&control->outbox, binding->endpoint->slot, binding->endpoint->generation, 0, 0);
    unbind(binding);
}

void control_renew_grants(struct control *control) {
    struct bus *bus = control->bus;

    control->grant = policy_evaluate_any(bus->policy, &control->principal);
    for (uint32_t slot = 0; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];
        struct binding *binding = control->bindings[slot];
        struct grant grant;

        if (!endpoint)
            continue;
        grant = slot ? policy_evaluate(bus->policy, &control->principal, endpoint->name, endpoint->uuid) : control->grant;
        if (binding && grant.capabilities)
            binding_set_grant(binding, grant);
        else if (binding)
            withdraw(control, binding);
        else
            (void)control_bind(control, endpoint); /* without memory it stays denied */
        /* More may be allowed now of what was asked for before. */
        if (control->bindings[slot])
            binding_subscribe(control->bindings[slot], subscription_kinds(control, endpoint));
        endpoint_update_demand(endpoint);
    }
    if (!outbox_is_empty(&control->outbox))
        control_wake(control);
}

struct binding *control_binding(const struct control *control, uint32_t slot, uint64_t generation) {
    struct binding *binding = slot <= control->bus->n_endpoints ? control->bindings[slot] : NULL;

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
    const struct vmibus_header *header = &event->frame.header;
    struct binding *binding;

    if (retained_kind_of(&event->frame) < 0 || delivery->farewell || delivery->answer)
        return true;
    binding = control->bindings[header->slot];
    if (binding && binding_settle(binding, &event->frame)) {
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

static void ack_frame(struct vmibus_frame *frame, const struct vmibus_header *command, const struct vmibus_ack *ack) {
    *frame = (struct vmibus_frame){
        .header = {.kind = VMIBUS_KIND_ACK,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_HIGH,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = command->slot,
                   .generation = command->generation,
                   .correlation = command->correlation},
        .ack = *ack,
    };
    frame->ack.command = command->kind;
    if (!frame->ack.finished)
        frame->ack.finished = clock_now();
    frame->header.timestamp = frame->ack.finished;
    /* The answer to SUBSCRIBE says that the replay is complete, so it must not overtake it. */
    if (command->kind == VMIBUS_KIND_SUBSCRIBE)
        frame->header.priority = VMIBUS_PRIORITY_NORMAL;
}

/* An answer that could not take along what it promised says why instead. */
static void answer_failed(struct event *event, const struct account *account, int r) {
    struct vmibus_ack *ack = &event->frame.ack;

    event->fds = event_fds_free(event->fds);
    event->frame.header.fd_count = 0;
    ack->count = 0;
    if (r < 0) {
        ack->error = VMIBUS_ERROR_IO;
        ack->reason = VMIBUS_REASON_NONE;
        ack->value = (uint64_t)-r;
    } else {
        ack->error = r == CHARGE_QUOTA ? VMIBUS_ERROR_QUOTA : VMIBUS_ERROR_PRESSURE;
        ack->reason = VMIBUS_REASON_LIMIT_FDS;
        ack->value = (r == CHARGE_QUOTA ? account->limit : account->ledger->limit)[RESOURCE_FDS];
    }
}

/* Descriptors that have been read are not in flight any more; only asking tells. */
static void reclaim_credits(struct bus *bus) {
    struct control *control;

    list_for_each(control, &bus->controls, link)
        if (control->ops->reclaim)
            control->ops->reclaim(control);
}

void control_answer(struct control *control, const struct vmibus_header *command, const struct vmibus_ack *ack, const void *tail,
                    size_t tail_length, const int *fds, size_t n_fds) {
    struct vmibus_frame frame;
    struct event *event;
    int r;

    if (ack->error)
        control->bus->counters.refused++;
    else if (command->flags & VMIBUS_FRAME_NO_ACK)
        return;
    ack_frame(&frame, command, ack);
    event = event_new(&control->bus->events, EVENT_ANSWER, &frame);
    if (!event) {
        /* control_may_submit() keeps answers below what the pool holds for them. */
        control_fail(control, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE, 0);
        return;
    }
    r = event_dup_fds(event, control->account, fds, n_fds);
    if (r == CHARGE_QUOTA || r == CHARGE_PRESSURE) {
        reclaim_credits(control->bus);
        r = event_dup_fds(event, control->account, fds, n_fds);
    }
    if (r == 0)
        r = event_set_tail(event, tail, tail_length);
    if (r)
        answer_failed(event, control->account, r);
    outbox_push_answer(&control->outbox, event);
    control_wake(control);
}

void control_fail(struct control *control, enum vmibus_error error, enum vmibus_reason reason, uint64_t bound) {
    control_fail_with(control, error, reason, 0, 0, bound);
}

void control_fail_with(struct control *control, enum vmibus_error error, enum vmibus_reason reason, uint16_t offender,
                       uint64_t value, uint64_t bound) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ERROR,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .timestamp = clock_now()},
        .error = {.error = (uint16_t)error,
                  .reason = (uint16_t)reason,
                  .offender = offender,
                  .closing = 1,
                  .value = value,
                  .bound = bound},
    };
    struct event *event;

    if (control->failed)
        return;
    control->failed = true;
    event = event_new(&control->bus->events, EVENT_ANSWER, &frame);
    if (event)
        outbox_push_answer(&control->outbox, event);
    control->ops->fail(control);
}

/* --- submitting -------------------------------------------------------------------------------- */

/* A command on its way through the checks. */
struct submission {
    struct control *control;
    const struct vmibus_frame *frame;
    const void *tail;
    uint64_t received;
    uint64_t audit;
    struct binding *binding;
};

static void submission_end(const struct submission *submission, struct vmibus_ack *ack, const void *tail, size_t tail_length) {
    ack->received = submission->received;
    if (!ack->started)
        ack->started = submission->received;
    ack->finished = clock_now();
    audit_finish(submission->control->bus->audit, submission->audit, ack);
    control_answer(submission->control, &submission->frame->header, ack, tail, tail_length, NULL, 0);
}

static void submission_refuse(const struct submission *submission, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    struct vmibus_ack ack = {.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};

    submission_end(submission, &ack, NULL, 0);
}

static uint64_t submission_audit(const struct submission *submission) {
    const struct vmibus_frame *frame = submission->frame;
    const struct control *control = submission->control;
    struct vmibus_audit_record record = {
        .received = submission->received,
        .generation = frame->header.generation,
        .slot = frame->header.slot,
        .uid = control->principal.uid,
        .pid = (uint32_t)control->principal.pid,
        .kind = frame->header.kind,
        .correlation = frame->header.correlation,
        .len = frame->header.tail_length,
    };

    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_LEASE:
        record.detail = frame->cmd_lease.lease_class;
        record.operation = frame->cmd_lease.operation;
        record.token = frame->cmd_lease.token;
        break;
    case VMIBUS_KIND_CMD_INPUT:
        record.len = frame->cmd_input.count;
        record.token = frame->cmd_input.token;
        break;
    case VMIBUS_KIND_CMD_POWER:
        record.detail = frame->cmd_power.operation;
        record.token = frame->cmd_power.token;
        break;
    case VMIBUS_KIND_CMD_VM:
        record.detail = frame->cmd_vm.operation;
        record.token = frame->cmd_vm.token;
        break;
    default:
        break;
    }
    return audit_begin(control->bus->audit, &record);
}

static void submit_subscribe(const struct submission *submission) {
    struct vmibus_ack ack = {};
    int r;

    if (memchr(submission->tail, '\0', submission->frame->header.tail_length)) {
        submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
        return;
    }
    r = subscription_set(submission->control, submission->tail, submission->frame->header.tail_length,
                         submission->frame->subscribe.kinds);
    if (r < 0)
        submission_refuse(submission, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
    else if (r > 0)
        submission_refuse(submission, (enum vmibus_error)r, VMIBUS_REASON_LIMIT_SUBSCRIPTIONS,
                          submission->control->account->limit[RESOURCE_SUBSCRIPTIONS]);
    else
        submission_end(submission, &ack, NULL, 0);
}

static void submit_query(const struct submission *submission) {
    struct query_answer answer = {};
    struct vmibus_ack ack = {};

    query_execute(submission->control, submission->frame, &answer);
    ack.error = (uint16_t)answer.error;
    ack.reason = (uint16_t)answer.reason;
    ack.value = answer.value;
    ack.count = answer.count;
    submission_end(submission, &ack, answer.tail, answer.tail_length);
    free(answer.tail);
}

static void submit_lease(const struct submission *submission) {
    const struct vmibus_cmd_lease *command = &submission->frame->cmd_lease;
    uint32_t needed = lease_capabilities((enum vmibus_lease_class)command->lease_class);

    if (!(submission->binding->grant.capabilities & needed)) {
        submission_refuse(submission, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, needed & -needed);
        return;
    }
    lease_execute(&submission->binding->endpoint->leases[command->lease_class - 1], submission->control, submission->frame,
                  submission->received, submission->audit);
}

/* The commands that sensors execute: class, token and group of each. */
static void submit_sensor_command(const struct submission *submission, enum vmibus_lease_class lease_class, uint64_t token,
                                  uint32_t group) {
    struct endpoint *endpoint = submission->binding->endpoint;
    struct lease *lease = &endpoint->leases[lease_class - 1];
    enum vmibus_reason reason = VMIBUS_REASON_NONE;
    enum vmibus_error error = lease_check(lease, submission->control, token, &reason);

    if (error) {
        submission_refuse(submission, error, reason, lease_class);
        return;
    }
    command_begin(submission->control, endpoint, lease, group, submission->frame, submission->tail, submission->received,
                  submission->audit);
}

static bool input_is_well_formed(const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_input_event *events = tail ? tail : frame->cmd_input.events;
    size_t room = tail ? frame->header.tail_length / sizeof(*events) : sizeof(frame->cmd_input.events) / sizeof(*events);

    if (frame->cmd_input.count == 0 || frame->cmd_input.count > room)
        return false;
    if (tail && frame->header.tail_length != frame->cmd_input.count * sizeof(*events))
        return false;
    for (size_t i = 0; i < frame->cmd_input.count; i++) {
        struct vmibus_input_event event;

        memcpy(&event, (const char *)events + i * sizeof(event), sizeof(event));
        if (event.type < VMIBUS_INPUT_TYPE_KEY || event.type > VMIBUS_INPUT_TYPE_ABSOLUTE)
            return false;
    }
    return true;
}

static void submit_routed(const struct submission *submission) {
    const struct vmibus_frame *frame = submission->frame;

    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_LEASE:
        submit_lease(submission);
        break;
    case VMIBUS_KIND_CMD_INPUT:
        if (input_is_well_formed(frame, frame->header.tail_length ? submission->tail : NULL))
            submit_sensor_command(submission, VMIBUS_LEASE_CLASS_INPUT, frame->cmd_input.token, VMIBUS_GROUP_INPUT);
        else
            submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->cmd_input.count);
        break;
    case VMIBUS_KIND_CMD_POWER:
        submit_sensor_command(submission, VMIBUS_LEASE_CLASS_POWER, frame->cmd_power.token, VMIBUS_GROUP_POWER);
        break;
    case VMIBUS_KIND_CMD_VM:
        submit_sensor_command(submission, VMIBUS_LEASE_CLASS_POWER, frame->cmd_vm.token, VMIBUS_GROUP_POWER);
        break;
    default:
        submission_refuse(submission, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT, 0);
        break;
    }
}

/*
 * Who may not know of an endpoint is told the same as of one that does not exist, except for one thing: a principal that the
 * policy names nowhere is told that.
 */
static void submit_to_endpoint(struct submission *submission, const struct vmibus_frame_description *description) {
    const struct vmibus_frame *frame = submission->frame;
    struct control *control = submission->control;

    submission->binding = control_binding(control, frame->header.slot, frame->header.generation);
    if (!submission->binding || frame->header.slot == 0) {
        if (!control->grant.capabilities)
            submission_refuse(submission, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT, 0);
        else if (frame->header.slot == 0 || frame->header.slot > control->bus->n_endpoints)
            submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->header.slot);
        else
            submission_refuse(submission, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, frame->header.slot);
        return;
    }
    if (description->capability && !(submission->binding->grant.capabilities & description->capability)) {
        submission_refuse(submission, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, description->capability);
        return;
    }
    submit_routed(submission);
}

static bool is_expired(const struct vmibus_header *header, uint64_t now) {
    return header->deadline_us && now > header->timestamp + header->deadline_us * NS_PER_US;
}

void control_submit(struct control *control, const struct vmibus_frame *frame, const void *tail, uint64_t received) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);
    struct submission submission = {.control = control, .frame = frame, .tail = tail, .received = received};

    control->bus->counters.received++;
    submission.audit = submission_audit(&submission);
    if (description->reserved)
        submission_refuse(&submission, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT, 0);
    else if (is_expired(&frame->header, received))
        submission_refuse(&submission, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, frame->header.deadline_us);
    else if (frame->header.kind == VMIBUS_KIND_SUBSCRIBE)
        submit_subscribe(&submission);
    else if (frame->header.kind == VMIBUS_KIND_QUERY)
        submit_query(&submission);
    else
        submit_to_endpoint(&submission, description);
}
