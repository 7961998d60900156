/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a control submits, on its way through the checks: deadline, grant, lease; each is audited before
 * anything happens, and ends in exactly one answer.  Implements control_submit() of bus/control.h.
 */
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "bus/command.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/explain.h"
#include "bus/hold.h"
#include "bus/lease.h"
#include "bus/query.h"
#include "bus/sensor.h"
#include "bus/subscription.h"
#include "bus/watch.h"
#include "util/clock.h"
#include "util/deadline.h"
#include "util/refusal.h"

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

static void submission_refuse(const struct submission *submission, enum vmibus_error error, enum vmibus_reason reason,
                              uint64_t value) {
    struct vmibus_ack ack = {.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};

    submission_end(submission, &ack, NULL, 0);
}

static bool is_hold(const struct vmibus_frame *frame) {
    return frame->header.kind == VMIBUS_KIND_CMD_VM && (frame->cmd_vm.operation == VMIBUS_VM_OPERATION_HOLD ||
                                                        frame->cmd_vm.operation == VMIBUS_VM_OPERATION_LET_GO);
}

/* The capabilities of which a command needs one; 0: none. */
static uint32_t needed_by(const struct vmibus_frame *frame) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_LEASE:
        return policy_lease_capabilities((enum vmibus_lease_class)frame->cmd_lease.lease_class);
    case VMIBUS_KIND_QUERY:
        return query_capability(frame);
    case VMIBUS_KIND_CMD_VM:
        return is_hold(frame) ? VMIBUS_CAP_QUIESCE : VMIBUS_CAP_PAUSE;
    default:
        return vmibus_frame_describe(frame->header.kind)->capability;
    }
}

/* Which rule of the policy decides, as the audit tells it. On an endpoint that is not there none does. */
static uint16_t deciding_rule(const struct submission *submission, const struct endpoint *endpoint) {
    const struct vmibus_frame *frame = submission->frame;
    uint32_t needed = needed_by(frame);

    if (frame->header.kind == VMIBUS_KIND_QUERY || frame->header.slot == 0)
        return grant_rule(&submission->control->grant, needed);
    if (submission->binding)
        return grant_rule(&submission->binding->grant, needed);
    return endpoint && needed ? VMIBUS_AUDIT_RULE_NONE : VMIBUS_AUDIT_RULE_UNTOLD;
}

/* What is followed from now on, or no more: there is no endpoint to name. */
static void name_monitor(const struct submission *submission, struct vmibus_audit_record *record) {
    char text[VMIBUS_AUDIT_NAME] = "";
    size_t length = submission->frame->header.tail_length;

    memcpy(text, submission->tail, length < sizeof(text) ? length : sizeof(text) - 1);
    audit_set_name(record, text);
}

/* What is special to its kind. */
static void describe(const struct submission *submission, struct vmibus_audit_record *record) {
    const struct vmibus_frame *frame = submission->frame;

    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_LEASE:
        record->detail = frame->cmd_lease.lease_class;
        record->operation = frame->cmd_lease.operation;
        record->token = frame->cmd_lease.token;
        break;
    case VMIBUS_KIND_CMD_INPUT:
        record->len = frame->cmd_input.count;
        record->token = frame->cmd_input.token;
        break;
    case VMIBUS_KIND_CMD_POWER:
        record->detail = frame->cmd_power.operation;
        record->token = frame->cmd_power.token;
        break;
    case VMIBUS_KIND_CMD_VM:
        record->detail = frame->cmd_vm.operation;
        record->token = frame->cmd_vm.token;
        break;
    case VMIBUS_KIND_CMD_MONITOR:
        record->detail = frame->cmd_monitor.operation;
        name_monitor(submission, record);
        break;
    case VMIBUS_KIND_WATCH:
        record->detail = frame->watch.operation;
        record->len = frame->watch.len;
        record->epoch = frame->watch.epoch;
        record->cr3 = frame->watch.cr3;
        record->address = frame->watch.address;
        break;
    default:
        break;
    }
}

static uint64_t submission_audit(const struct submission *submission) {
    const struct vmibus_frame *frame = submission->frame;
    const struct control *control = submission->control;
    const struct endpoint *endpoint = bus_endpoint(control->bus, frame->header.slot, frame->header.generation);
    struct vmibus_audit_record record = {
        .received = submission->received,
        .generation = frame->header.generation,
        .slot = frame->header.slot,
        .uid = control->principal.uid,
        .pid = (uint32_t)control->principal.pid,
        .kind = frame->header.kind,
        .correlation = frame->header.correlation,
        .len = frame->header.tail_length,
        .session = control->session_number,
        .rule = deciding_rule(submission, endpoint),
    };

    if (endpoint)
        audit_set_name(&record, endpoint->name);
    describe(submission, &record);
    return audit_begin(control->bus->audit, &record);
}

static void submit_subscribe(const struct submission *submission) {
    struct vmibus_ack ack = {};

    if (memchr(submission->tail, '\0', submission->frame->header.tail_length)) {
        submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
        return;
    }
    (void)subscription_set(submission->control, submission->tail, submission->frame->header.tail_length,
                           submission->frame->subscribe.kinds, &ack);
    submission_end(submission, &ack, NULL, 0);
}

static void submit_query(const struct submission *submission) {
    struct query_answer answer = {};
    struct vmibus_ack ack = {};

    if (submission->frame->header.kind == VMIBUS_KIND_EXPLAIN)
        explain_execute(submission->control, submission->frame, submission->tail, &answer);
    else
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
    uint32_t needed = policy_lease_capabilities((enum vmibus_lease_class)command->lease_class);

    if (!(submission->binding->grant.capabilities & needed)) {
        submission_refuse(submission, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, needed & -needed);
        return;
    }
    lease_execute(&submission->binding->endpoint->leases[command->lease_class - 1], submission->control, submission->frame,
                  submission->received, submission->audit);
}

/* To the provider of a group; lease NULL: none is needed. */
static void submit_to_provider(const struct submission *submission, struct lease *lease, uint32_t group) {
    command_begin(&(struct command_request){.control = submission->control,
                                            .endpoint = submission->binding->endpoint,
                                            .lease = lease,
                                            .group = group,
                                            .frame = submission->frame,
                                            .tail = submission->tail,
                                            .received = submission->received,
                                            .audit = submission->audit});
}

/* The commands that sensors execute under a lease: class, token and group of each. */
static void submit_leased(const struct submission *submission, enum vmibus_lease_class lease_class, uint64_t token,
                          uint32_t group) {
    struct lease *lease = &submission->binding->endpoint->leases[lease_class - 1];
    enum vmibus_reason reason = VMIBUS_REASON_NONE;
    enum vmibus_error error = lease_check(lease, submission->control, token, &reason);

    if (error) {
        submission_refuse(submission, error, reason, lease_class);
        return;
    }
    submit_to_provider(submission, lease, group);
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
            submit_leased(submission, VMIBUS_LEASE_CLASS_INPUT, frame->cmd_input.token, VMIBUS_GROUP_INPUT);
        else
            submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->cmd_input.count);
        break;
    case VMIBUS_KIND_CMD_POWER:
        submit_leased(submission, VMIBUS_LEASE_CLASS_POWER, frame->cmd_power.token, VMIBUS_GROUP_POWER);
        break;
    case VMIBUS_KIND_CMD_VM:
        if (is_hold(frame))
            hold_execute(submission->control, submission->binding->endpoint, frame, submission->received, submission->audit);
        else
            submit_leased(submission, VMIBUS_LEASE_CLASS_POWER, frame->cmd_vm.token, VMIBUS_GROUP_POWER);
        break;
    case VMIBUS_KIND_SCREENSHOT:
        submit_to_provider(submission, NULL, VMIBUS_GROUP_SCREEN);
        break;
    case VMIBUS_KIND_REGISTERS:
        submit_to_provider(submission, NULL, VMIBUS_GROUP_REGISTERS);
        break;
    case VMIBUS_KIND_WATCH:
        watch_execute(submission->control, submission->binding->endpoint, frame, submission->received, submission->audit);
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
static void submit_to_endpoint(const struct submission *submission, const struct vmibus_frame_description *description) {
    const struct vmibus_frame *frame = submission->frame;
    struct control *control = submission->control;
    uint32_t needed = is_hold(frame) ? VMIBUS_CAP_QUIESCE : description->capability;

    if (!submission->binding || frame->header.slot == 0) {
        if (!control->grant.capabilities)
            submission_refuse(submission, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT, 0);
        else if (frame->header.slot == 0 || frame->header.slot > control->bus->n_endpoints)
            submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->header.slot);
        else
            submission_refuse(submission, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, frame->header.slot);
        return;
    }
    if (needed && !(submission->binding->grant.capabilities & needed)) {
        submission_refuse(submission, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, needed);
        return;
    }
    submit_routed(submission);
}

/* To a sensor as such: what it does concerns no endpoint that there is already. */
static void submit_to_sensor(const struct submission *submission, const struct vmibus_frame_description *description) {
    const struct vmibus_frame *frame = submission->frame;
    const struct vmibus_cmd_monitor *command = &frame->cmd_monitor;
    struct control *control = submission->control;
    struct vmibus_ack refusal = {};
    struct sensor *sensor = sensor_named(control->bus, (const char *)command->sensor, &refusal);

    if (!(control->grant.capabilities & description->capability))
        submission_refuse(submission, VMIBUS_ERROR_DENIED,
                          control->grant.capabilities ? VMIBUS_REASON_NO_CAPABILITY : VMIBUS_REASON_NO_GRANT,
                          description->capability);
    else if (frame->header.slot || (command->operation != VMIBUS_MONITOR_OPERATION_ADD &&
                                    command->operation != VMIBUS_MONITOR_OPERATION_REMOVE))
        submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, command->operation);
    else if (memchr(submission->tail, '\0', frame->header.tail_length))
        submission_refuse(submission, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    else if (!sensor)
        submission_end(submission, &refusal, NULL, 0);
    else
        command_begin(&(struct command_request){.control = control,
                                                .endpoint = control->bus->endpoints[0],
                                                .sensor = sensor,
                                                .frame = frame,
                                                .tail = submission->tail,
                                                .received = submission->received,
                                                .audit = submission->audit});
}

void control_submit(struct control *control, const struct vmibus_frame *frame, const void *tail, uint64_t received) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);
    struct submission submission = {.control = control, .frame = frame, .tail = tail, .received = received};

    control->bus->counters.received++;
    submission.binding = control_binding(control, frame->header.slot, frame->header.generation);
    submission.audit = submission_audit(&submission);
    if (description->reserved)
        submission_refuse(&submission, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT, 0);
    else if (deadline_has_passed(&frame->header, received))
        submission_refuse(&submission, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, frame->header.deadline_us);
    else if (frame->header.kind == VMIBUS_KIND_SUBSCRIBE)
        submit_subscribe(&submission);
    else if (frame->header.kind == VMIBUS_KIND_QUERY || frame->header.kind == VMIBUS_KIND_EXPLAIN)
        submit_query(&submission);
    else if (frame->header.kind == VMIBUS_KIND_CMD_MONITOR)
        submit_to_sensor(&submission, description);
    else
        submit_to_endpoint(&submission, description);
}
