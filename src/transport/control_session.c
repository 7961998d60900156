/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/control_session.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "memory/authority.h"
#include "transport/frame_check.h"
#include "transport/welcome.h"
#include "util/clock.h"
#include "util/refusal.h"

static struct control_session *session_of(struct session *session) {
    return container_of(session, struct control_session, session);
}

/* --- the control's end ------------------------------------------------------------------------- */

static struct session *of_control(struct control *control) {
    return &container_of(control, struct control_session, control)->session;
}

static void control_wakes(struct control *control) {
    struct session *session = of_control(control);

    session->owner->wake(session);
}

static void control_fails(struct control *control) {
    struct session *session = of_control(control);

    session->owner->fail(session);
}

static void control_reclaims(struct control *control) {
    struct session *session = of_control(control);

    if (session->owner->reclaim)
        session->owner->reclaim(session);
}

static const struct control_ops control_ops = {.wake = control_wakes, .fail = control_fails, .reclaim = control_reclaims};

/* --- the authority's end ----------------------------------------------------------------------- */

static void memory_replied(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct control_session *session = context;
    struct vmibus_header command = frame->header;

    session->n_memory--;
    command.kind = frame->ack.command;
    if (!control_answer(&session->control, &command, &frame->ack, tail, frame->header.tail_length, fds, frame->header.fd_count) &&
        command.kind == VMIBUS_KIND_MEM_ATTACH)
        authority_client_undo_attach(session->memory, frame->ack.epoch);
}

/* Its owner takes it away once the ERROR has been taken. */
static void memory_disconnects(void *context, enum vmibus_reason reason, uint64_t value, uint64_t bound) {
    struct control_session *session = context;

    control_fail_with(&session->control, VMIBUS_ERROR_EXPIRED, reason, VMIBUS_KIND_MEM_ATTACH, value, bound);
}

static const struct authority_client_ops memory_ops = {.reply = memory_replied, .disconnect = memory_disconnects};

/* --- coming and going -------------------------------------------------------------------------- */

static const struct session_ops control_session_ops;

int control_session_init(struct control_session *session, struct bus_home *home, const struct principal *principal,
                         const struct session_owner *owner, struct vmibus_ack *refusal) {
    uint8_t name[16];
    int r;

    *session = (struct control_session){.session = {.ops = &control_session_ops, .owner = owner}, .home = home};
    if (getrandom(name, sizeof(name), 0) != sizeof(name))
        return -errno;
    r = control_init(&session->control, home->bus, principal, name, &control_ops, refusal);
    if (r)
        return r;
    control_tell_session(&session->control);
    if (!home->authority)
        return 0;
    r = authority_client_new(&session->memory, home->authority, name, principal, session->control.account,
                             &session->control.region, VMIBUS_ROLE_CONTROL, &memory_ops, session);
    if (r == 0)
        return 0;
    r = region_refusal(refusal, r, &session->control.region);
    control_deinit(&session->control);
    return r;
}

static void session_deinit(struct session *base) {
    struct control_session *session = session_of(base);

    session->memory = authority_client_free(session->memory);
    control_deinit(&session->control);
}

bool session_is_control(const struct session *session) {
    return session->ops == &control_session_ops;
}

/* --- over a restart ---------------------------------------------------------------------------- */

enum {
    SESSION_NAME = 1,
    SESSION_CONTROL = 2,
    SESSION_MEMORY = 3,
};

static bool session_restore_item(struct session *base, struct control_item *item, struct handover_records records) {
    struct control *control = &session_of(base)->control;
    const struct event_handover where = {
        .pool = &control->bus->events, .tail_bound = control->bus->options.tail_bound, .account = control->account};

    return control_item_handover_restore(&where, item, records);
}

void control_session_save(struct control_session *session, struct handover_writer *writer) {
    struct bus_home_handover *handover = session->home->handover;

    handover_put(writer, SESSION_NAME, session->control.session, sizeof(session->control.session));
    handover_begin(writer, SESSION_CONTROL);
    control_handover_save(&handover->bus, writer, &session->control);
    handover_end(writer);
    if (!session->memory)
        return;
    handover_begin(writer, SESSION_MEMORY);
    authority_client_handover_save(&handover->memory, writer, session->memory);
    handover_end(writer);
}

static bool take_over_memory(struct control_session *session, const struct principal *principal, struct handover_records records) {
    const struct bus_home *home = session->home;
    struct handover_record record;
    int r;

    if (!home->authority)
        return true;
    r = authority_client_new(&session->memory, home->authority, session->control.session, principal, session->control.account,
                             &session->control.region, VMIBUS_ROLE_CONTROL, &memory_ops, session);
    if (r)
        return handover_wrong(records.handover, r < 0 ? r : -ENOBUFS);
    return !handover_find(records, SESSION_MEMORY, &record) ||
           authority_client_handover_restore(&home->handover->memory, session->memory, handover_in(&record));
}

bool control_session_take_over(struct control_session *session, struct bus_home *home, const struct principal *principal,
                               const struct session_owner *owner, struct handover_records records) {
    struct handover *whole = records.handover;
    struct vmibus_ack refusal = {};
    struct handover_record record;
    uint8_t name[16] = {};
    int r;

    *session = (struct control_session){.session = {.ops = &control_session_ops, .owner = owner}, .home = home};
    if (!handover_find(records, SESSION_NAME, &record) || record.length != sizeof(name))
        return handover_wrong(whole, -EBADMSG);
    handover_copy(&record, name, sizeof(name));
    r = control_take_over(&session->control, home->bus, principal, name, &control_ops, &refusal);
    if (r)
        return handover_wrong(whole, r < 0 ? r : -ENOBUFS);
    if (!handover_find(records, SESSION_CONTROL, &record))
        handover_wrong(whole, -EBADMSG);
    else if (control_handover_restore(&home->handover->bus, &session->control, handover_in(&record)))
        (void)take_over_memory(session, principal, records);
    if (whole->error)
        session_deinit(&session->session);
    return !whole->error;
}

int control_session_welcome(struct control_session *session, const struct vmibus_header *hello) {
    return welcome_queue(&session->control, session->home, session->memory != NULL, hello);
}

/* --- what a peer asks -------------------------------------------------------------------------- */

static void session_refuse(struct session *base, const struct vmibus_frame *frame, uint64_t received, struct vmibus_ack *refusal) {
    refusal->received = refusal->started = received;
    control_answer(&session_of(base)->control, &frame->header, refusal, NULL, 0, NULL, 0);
}

static void refuse(struct control_session *session, const struct vmibus_frame *frame, uint64_t received, enum vmibus_error error,
                   enum vmibus_reason reason, uint64_t value) {
    struct vmibus_ack ack = {.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};

    session_refuse(&session->session, frame, received, &ack);
}

/* Whoever is lent the connection says HELLO anew, in the same role. */
static void hello_again(struct control_session *session, const struct vmibus_frame *frame, uint64_t received) {
    struct frame_fault fault;

    if (frame_check_hello(frame, &fault) == FRAME_OK &&
        (frame->hello.role != VMIBUS_ROLE_CONTROL || frame->hello.channel != VMIBUS_CHANNEL_BUS))
        frame_refuse_role(frame, &fault);
    else if (frame_check_hello(frame, &fault) == FRAME_OK) {
        if (control_session_welcome(session, &frame->header) < 0)
            control_fail(&session->control, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE, 0);
        return;
    }
    refuse(session, frame, received, fault.error, fault.reason, fault.value);
}

/* A kind travels on one channel, except the two that open a connection. */
static bool is_for_memory(const struct vmibus_frame *frame) {
    return vmibus_frame_describe(frame->header.kind)->channels == VMIBUS_ON_MEMORY;
}

static void submit_to_memory(struct control_session *session, const struct vmibus_frame *frame, const void *tail,
                             uint64_t received) {
    uint32_t commands = session->control.bus->options.commands;

    if (!session->memory) {
        refuse(session, frame, received, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT, 0);
    } else if (session->n_memory >= commands) {
        struct vmibus_ack ack = {};

        (void)refusal_of_bound(&ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_COMMANDS, commands, session->n_memory,
                               session->control.principal.uid);
        session_refuse(&session->session, frame, received, &ack);
    } else {
        session->n_memory++;
        session->control.bus->counters.received++;
        authority_client_submit(session->memory, frame, tail, NULL, received);
    }
}

static void session_submit(struct session *base, const struct vmibus_frame *frame, const void *tail, const int *fds,
                           uint64_t received) {
    struct control_session *session = session_of(base);
    struct frame_fault fault;

    (void)fds; /* a control has none to give */
    if (frame_check_command(frame, VMIBUS_SENDER_CONTROL, &fault) != FRAME_OK)
        refuse(session, frame, received, fault.error, fault.reason, fault.value);
    else if (frame->header.kind == VMIBUS_KIND_HELLO)
        hello_again(session, frame, received);
    else if (is_for_memory(frame))
        submit_to_memory(session, frame, tail, received);
    else
        control_submit(&session->control, frame, tail, received);
}

static size_t session_room(const struct session *base) {
    const struct control *control = &container_of(base, const struct control_session, session)->control;

    return control_may_submit(control) ? control->bus->options.commands - control->outbox.n_answers : 0;
}

static bool session_take(struct session *base, struct control_item *item) {
    return control_take(&session_of(base)->control, item);
}

static void session_fail(struct session *base, const struct frame_fault *fault, uint16_t offender) {
    control_fail_with(&session_of(base)->control, fault->error, fault->reason, offender, fault->value, fault->bound);
}

static const struct session_ops control_session_ops = {
    .submit = session_submit,
    .refuse = session_refuse,
    .room = session_room,
    .take = session_take,
    .fail = session_fail,
    .deinit = session_deinit,
    .restore_item = session_restore_item,
};
