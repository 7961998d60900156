/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/session.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "memory/authority.h"
#include "transport/frame_check.h"
#include "util/clock.h"
#include "util/refusal.h"

/* What there is where there is a memory authority. */
#define OF_MEMORY                                                                                               \
    (VMIBUS_FEATURE_MEMORY | VMIBUS_FEATURE_MEM_READ | VMIBUS_FEATURE_BUFFERS | VMIBUS_FEATURE_TABLES |         \
     VMIBUS_FEATURE_EPOCH_PAGE)

static void memory_replied(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct session *session = context;
    struct vmibus_header command = frame->header;

    session->n_memory--;
    command.kind = frame->ack.command;
    if (!control_answer(&session->control, &command, &frame->ack, tail, frame->header.tail_length, fds, frame->header.fd_count) &&
        command.kind == VMIBUS_KIND_MEM_ATTACH)
        authority_client_undo_attach(session->memory, frame->ack.epoch);
}

/* Its owner takes it away once the ERROR has been taken. */
static void memory_disconnects(void *context, enum vmibus_reason reason, uint64_t value, uint64_t bound) {
    struct session *session = context;

    control_fail_with(&session->control, VMIBUS_ERROR_EXPIRED, reason, VMIBUS_KIND_MEM_ATTACH, value, bound);
}

static const struct authority_client_ops memory_ops = {.reply = memory_replied, .disconnect = memory_disconnects};

int session_init(struct session *session, struct session_home *home, const struct principal *principal,
                 const struct control_ops *ops, struct vmibus_ack *refusal) {
    uint8_t name[16];
    int r;

    *session = (struct session){.home = home};
    if (getrandom(name, sizeof(name), 0) != sizeof(name))
        return -errno;
    r = control_init(&session->control, home->bus, principal, name, ops, refusal);
    if (r || !home->authority)
        return r;
    r = authority_client_new(&session->memory, home->authority, name, principal, session->control.account,
                             &session->control.region, VMIBUS_ROLE_CONTROL, &memory_ops, session);
    if (r == 0)
        return 0;
    r = region_refusal(refusal, r, &session->control.region);
    control_deinit(&session->control);
    return r;
}

void session_deinit(struct session *session) {
    session->memory = authority_client_free(session->memory);
    control_deinit(&session->control);
}

int session_welcome(struct session *session, const struct vmibus_header *hello) {
    const struct bus_options *options = &session->control.bus->options;
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WELCOME,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .correlation = hello->correlation,
                   .timestamp = clock_now()},
        .welcome = {.magic = VMIBUS_MAGIC,
                    .features = (session->memory ? OF_MEMORY : 0) | VMIBUS_FEATURE_QUIESCE | VMIBUS_FEATURE_WATCH,
                    .incarnation = options->incarnation,
                    .tail_bound = session->home->tail_bound,
                    .queue_depth = options->queue_depth,
                    .commands = options->commands,
                    .endpoints = options->n_endpoints,
                    .version = VMIBUS_PROTOCOL_VERSION,
                    .memory = session->memory ? VMIBUS_MEMORY_LOCATION_HERE : VMIBUS_MEMORY_LOCATION_NONE,
                    .fds_per_frame = VMIBUS_FDS_PER_FRAME},
    };
    struct event *event;

    memcpy(frame.welcome.session, session->control.session, sizeof(frame.welcome.session));
    event = event_new(&session->control.bus->events, EVENT_ANSWER, &frame);
    if (!event)
        return -ENOBUFS;
    outbox_push_answer(&session->control.outbox, event);
    control_wake(&session->control);
    return 0;
}

void session_refuse_with(struct session *session, const struct vmibus_frame *frame, uint64_t received, struct vmibus_ack *refusal) {
    refusal->received = refusal->started = received;
    control_answer(&session->control, &frame->header, refusal, NULL, 0, NULL, 0);
}

void session_refuse(struct session *session, const struct vmibus_frame *frame, uint64_t received, enum vmibus_error error,
                    enum vmibus_reason reason, uint64_t value) {
    struct vmibus_ack ack = {.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};

    session_refuse_with(session, frame, received, &ack);
}

/* A kind travels on one channel, except the two that open a connection. */
static bool is_for_memory(const struct vmibus_frame *frame) {
    return vmibus_frame_describe(frame->header.kind)->channels == VMIBUS_ON_MEMORY;
}

void session_submit(struct session *session, const struct vmibus_frame *frame, const void *tail, uint64_t received) {
    uint32_t commands = session->control.bus->options.commands;
    struct frame_fault fault;

    if (frame_check_command(frame, &fault) != FRAME_OK) {
        session_refuse(session, frame, received, fault.error, fault.reason, fault.value);
    } else if (frame->header.kind == VMIBUS_KIND_HELLO) {
        /* Whoever is lent the connection says HELLO anew. */
        if (frame_check_hello(frame, &fault) != FRAME_OK)
            session_refuse(session, frame, received, fault.error, fault.reason, fault.value);
        else if (session_welcome(session, &frame->header) < 0)
            control_fail(&session->control, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE, 0);
    } else if (!is_for_memory(frame)) {
        control_submit(&session->control, frame, tail, received);
    } else if (!session->memory) {
        session_refuse(session, frame, received, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT, 0);
    } else if (session->n_memory >= commands) {
        struct vmibus_ack ack = {};

        (void)refusal_of_bound(&ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_COMMANDS, commands, session->n_memory,
                               session->control.principal.uid);
        session_refuse_with(session, frame, received, &ack);
    } else {
        session->n_memory++;
        session->control.bus->counters.received++;
        authority_client_submit(session->memory, frame, tail, NULL, received);
    }
}
