/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/sensor_session.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "bus/command.h"
#include "memory/authority.h"
#include "transport/sensor_check.h"
#include "transport/welcome.h"
#include "util/clock.h"
#include "util/refusal.h"

/* State of an endpoint that is on its way: what is told next of it replaces it where it stands. */
struct told {
    struct list link;       /**< session->waiting, while it may still wait */
    struct event *event[2]; /**< DEMAND and ACTIVE, referenced; NULL: none waits */
};

static struct sensor_session *session_of(struct session *session) {
    return container_of(session, struct sensor_session, session);
}

static struct sensor_session *of_sensor(struct sensor *sensor) {
    return container_of(sensor, struct sensor_session, sensor);
}

static uint32_t room_of(const struct sensor_session *session) {
    return session->control.bus->options.commands;
}

static void end(struct sensor_session *session, enum vmibus_error error, enum vmibus_reason reason, uint16_t offender,
                uint64_t value, uint64_t bound) {
    control_fail_with(&session->control, error, reason, offender, value, bound);
}

/* --- the control's end ------------------------------------------------------------------------- */

static struct session *of_control(struct control *control) {
    return &container_of(control, struct sensor_session, control)->session;
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

/* --- what the bus sends ------------------------------------------------------------------------ */

/* Whether somebody waits for its answer. */
static bool is_command(const struct vmibus_frame *frame) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_ACK:
    case VMIBUS_KIND_CANCEL:
    case VMIBUS_KIND_DEMAND:
    case VMIBUS_KIND_ACTIVE:
    case VMIBUS_KIND_MEM_RETIRED:
        return false;
    case VMIBUS_KIND_WATCH:
        return frame->watch.operation != VMIBUS_WATCH_OPERATION_GO_ON;
    default:
        return true;
    }
}

/* In the sensor's name. The limit is the sensor's, which whoever asked has nothing to do with. */
static void refuse_command(struct sensor_session *session, const struct vmibus_frame *frame, struct vmibus_ack *ack) {
    ack->error = VMIBUS_ERROR_PRESSURE;
    command_complete(session->control.bus, &session->sensor, frame->header.correlation, &(struct command_result){.ack = ack});
}

static void forget_told(struct told *told) {
    for (size_t i = 0; i < 2; i++)
        told->event[i] = event_unref(told->event[i]);
    list_unlink(&told->link);
}

/* What was taken needs no bringing up to date, and nothing waits any more: all of it was. */
static void forget_taken(struct sensor_session *session) {
    while (!list_is_empty(&session->waiting))
        forget_told(list_first(&session->waiting, struct told, link));
}

/* Where the state of this endpoint is remembered. NULL: there is no memory for that. */
static struct told *told_of(struct sensor_session *session, uint32_t slot) {
    struct told *told = slot_table_get(&session->states, slot);
    void *object;

    if (told)
        return told;
    if (region_take(&session->control.region, sizeof(*told), &object))
        return NULL;
    told = object;
    list_init(&told->link);
    if (slot_table_set(&session->states, &session->control.region, slot, told)) {
        region_give(&session->control.region, told, sizeof(*told));
        return NULL;
    }
    return told;
}

/* True: the same of this endpoint waits still, and tells the latest now. */
static bool brought_up_to_date(struct told *told, size_t which, const struct vmibus_frame *frame) {
    struct event *event = told->event[which];

    if (!event || event->refs == 1 || event->frame.header.generation != frame->header.generation)
        return false;
    memcpy(event->frame.body, frame->body, sizeof(frame->body));
    return true;
}

/* Queues a frame in the lane of all that goes to the sensor. NULL: it is to end, or the frame was refused. */
static struct event *queue(struct sensor_session *session, const struct vmibus_frame *frame, const void *tail) {
    struct event *event = event_new(&session->control.bus->events, EVENT_ANSWER, frame);
    struct vmibus_ack ack = {};
    int r;

    if (!event) {
        end(session, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE, frame->header.kind, 0, 0);
        return NULL;
    }
    event->frame.header.priority = VMIBUS_PRIORITY_HIGH;
    event->frame.header.direction = vmibus_frame_describe(frame->header.kind)->direction;
    event->frame.header.version = VMIBUS_PROTOCOL_VERSION;
    r = event_set_tail(event, session->control.account, tail, frame->header.tail_length);
    if (r) {
        event_unref(event);
        (void)refusal_of_charge(&ack, r == CHARGE_QUOTA ? CHARGE_QUOTA : CHARGE_PRESSURE, session->control.account,
                                RESOURCE_ANSWERS);
        if (is_command(frame))
            refuse_command(session, frame, &ack);
        return NULL;
    }
    outbox_push_answer(&session->control.outbox, event);
    control_wake(&session->control);
    return event;
}

static void tell_state(struct sensor_session *session, const struct vmibus_frame *frame) {
    size_t which = frame->header.kind == VMIBUS_KIND_ACTIVE;
    struct told *told = told_of(session, frame->header.slot);
    struct event *event;

    if (!told) {
        end(session, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_MEMORY, frame->header.kind, 0, 0);
        return;
    }
    if (brought_up_to_date(told, which, frame))
        return;
    event = queue(session, frame, NULL);
    event_unref(told->event[which]);
    told->event[which] = event ? event_ref(event) : NULL;
    if (!list_is_linked(&told->link))
        list_append(&session->waiting, &told->link);
}

static void watch_answers(struct sensor_session *session, uint64_t since) {
    uint64_t deadline = since + session->home->sensor_answer_ms * NS_PER_MS;

    if (!loop_timer_is_armed(&session->answer))
        (void)loop_timer_set(&session->answer, deadline);
}

static void send_command(struct sensor_session *session, const struct vmibus_frame *frame, const void *tail) {
    uint32_t room = room_of(session);
    struct vmibus_ack ack = {};

    if (session->control.outbox.n_answers >= room) {
        (void)refusal_of_bound(&ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_SENSOR_BEHIND, room, session->control.outbox.n_answers,
                               session->control.principal.uid);
        refuse_command(session, frame, &ack);
    } else if (queue(session, frame, tail)) {
        watch_answers(session, clock_now());
    }
}

static void bus_sends(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    struct sensor_session *session = of_sensor(sensor);

    if (session->control.failed)
        return; /* it goes, and what waits for it is answered then */
    if (is_command(frame)) {
        send_command(session, frame, tail);
    } else if (session->control.outbox.n_answers >= 2 * (size_t)room_of(session)) {
        /* A cancellation is advice; the rest it cannot do without. */
        if (frame->header.kind != VMIBUS_KIND_CANCEL)
            end(session, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_SENSOR_BEHIND, frame->header.kind, session->control.outbox.n_answers,
                2 * room_of(session));
    } else if (frame->header.kind == VMIBUS_KIND_DEMAND || frame->header.kind == VMIBUS_KIND_ACTIVE) {
        tell_state(session, frame);
    } else {
        (void)queue(session, frame, tail);
    }
}

static const struct sensor_ops sensor_ops = {.send = bus_sends};

static void answer_overdue(struct loop_timer *timer) {
    struct sensor_session *session = container_of(timer, struct sensor_session, answer);
    uint64_t oldest = session->announced ? command_oldest(&session->sensor) : 0;
    uint32_t bound = session->home->sensor_answer_ms;

    if (!oldest)
        return;
    if (clock_now() >= oldest + bound * NS_PER_MS)
        end(session, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_SENSOR_SILENT, 0, (clock_now() - oldest) / NS_PER_MS, bound);
    else
        watch_answers(session, oldest);
}

/* --- what the authority says -------------------------------------------------------------------- */

static void memory_says(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct sensor_session *session = context;
    struct vmibus_header command = frame->header;

    if (frame->header.kind != VMIBUS_KIND_ACK) {
        if (!session->control.failed)
            (void)queue(session, frame, tail);
        return;
    }
    session->n_memory--;
    command.kind = frame->ack.command;
    if (!control_answer(&session->control, &command, &frame->ack, tail, frame->header.tail_length, fds, frame->header.fd_count) &&
        command.kind == VMIBUS_KIND_MEM_ATTACH)
        authority_client_undo_attach(session->memory, frame->ack.epoch);
}

/* Its owner takes it away once the ERROR has been taken. */
static void memory_disconnects(void *context, enum vmibus_reason reason, uint64_t value, uint64_t bound) {
    end(context, VMIBUS_ERROR_EXPIRED, reason, VMIBUS_KIND_MEM_ATTACH, value, bound);
}

static const struct authority_client_ops memory_ops = {.reply = memory_says, .disconnect = memory_disconnects};

static void submit_to_memory(struct sensor_session *session, const struct vmibus_frame *frame, const void *tail, const int *fds,
                             uint64_t received) {
    if (!session->memory) {
        end(session, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT, frame->header.kind, 0, 0);
    } else if (session->n_memory >= room_of(session)) {
        struct vmibus_ack ack = {};

        (void)refusal_of_bound(&ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_COMMANDS, room_of(session), session->n_memory,
                               session->control.principal.uid);
        session->session.ops->refuse(&session->session, frame, received, &ack);
    } else {
        session->n_memory++;
        authority_client_submit(session->memory, frame, tail, fds, received);
    }
}

/* --- what the sensor says ----------------------------------------------------------------------- */

/* The first one makes it a sensor; who it is does not change from then on. False: the connection ends. */
static bool hear_announce(struct sensor_session *session, const struct vmibus_frame *frame) {
    const struct vmibus_sensor_announce *announce = &frame->sensor_announce;

    if (session->announced) {
        if (strncmp(session->sensor.name, (const char *)announce->name, sizeof(session->sensor.name)) == 0)
            return true;
        end(session, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->header.kind, 0, 0);
        return false;
    }
    if (sensor_init(&session->sensor, session->control.bus, &sensor_ops)) {
        end(session, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_CONNECTIONS, frame->header.kind, UINT16_MAX, UINT16_MAX);
        return false;
    }
    memcpy(session->sensor.session, session->control.session, sizeof(session->sensor.session));
    session->sensor.max_endpoints = session->home->sensor_endpoints;
    session->announced = true;
    return true;
}

static bool is_for_memory(const struct vmibus_frame *frame) {
    return vmibus_frame_describe(frame->header.kind)->channels == VMIBUS_ON_MEMORY;
}

static bool offers_what_it_announced(const struct sensor_session *session, const struct vmibus_frame *frame) {
    return frame->header.kind != VMIBUS_KIND_ENDPOINT_OFFER || !(frame->endpoint_offer.groups & ~session->sensor.groups);
}

static void session_submit(struct session *base, const struct vmibus_frame *frame, const void *tail, const int *fds,
                           uint64_t received) {
    struct sensor_session *session = session_of(base);
    struct frame_fault fault;

    if (sensor_check_frame(frame, tail, &fault) != FRAME_OK)
        end(session, fault.error, fault.reason, frame->header.kind, fault.value, fault.bound);
    else if (frame->header.kind == VMIBUS_KIND_SENSOR_ANNOUNCE ? !hear_announce(session, frame) : !session->announced)
        end(session, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND, frame->header.kind, 0, 0);
    else if (!offers_what_it_announced(session, frame))
        end(session, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->header.kind, frame->endpoint_offer.groups,
            session->sensor.groups);
    else if (is_for_memory(frame))
        submit_to_memory(session, frame, tail, fds, received);
    else if (frame->header.kind == VMIBUS_KIND_SUBSCRIBE)
        control_submit(&session->control, frame, tail, received);
    else
        sensor_hear(&session->sensor, frame, tail, fds);
}

/* Its tail could not be gathered. What waits for it is told so; an event is a gap, as sensor_hear() sees by the tail that lacks. */
static void session_refuse(struct session *base, const struct vmibus_frame *frame, uint64_t received, struct vmibus_ack *refusal) {
    struct sensor_session *session = session_of(base);
    struct frame_fault fault;

    refusal->received = refusal->started = received;
    if (sensor_check_frame(frame, NULL, &fault) != FRAME_OK)
        end(session, fault.error, fault.reason, frame->header.kind, fault.value, fault.bound);
    else if (is_for_memory(frame) || frame->header.kind == VMIBUS_KIND_ENDPOINT_OFFER)
        control_answer(&session->control, &frame->header, refusal, NULL, 0, NULL, 0);
    else if (frame->header.kind == VMIBUS_KIND_ACK && session->announced)
        refuse_command(session, frame, refusal);
    else if (frame->header.kind < VMIBUS_KIND_SUBSCRIBE && session->announced)
        sensor_hear(&session->sensor, frame, NULL, NULL);
}

static size_t session_room(const struct session *base) {
    const struct sensor_session *session = container_of(base, const struct sensor_session, session);

    return control_may_submit(&session->control) ? room_of(session) - session->control.outbox.n_answers : 0;
}

static bool session_take(struct session *base, struct control_item *item) {
    struct sensor_session *session = session_of(base);
    bool taken = control_take(&session->control, item);

    if (session->control.outbox.n_answers == 0)
        forget_taken(session);
    return taken;
}

static void session_fail(struct session *base, const struct frame_fault *fault, uint16_t offender) {
    end(session_of(base), fault->error, fault->reason, offender, fault->value, fault->bound);
}

/* --- coming and going --------------------------------------------------------------------------- */

static void session_deinit(struct session *base) {
    struct sensor_session *session = session_of(base);

    session->control.failed = true; /* nothing is sent to it any more */
    loop_timer_cancel(&session->answer);
    session->memory = authority_client_free(session->memory);
    if (session->announced)
        sensor_deinit(&session->sensor);
    forget_taken(session);
    control_deinit(&session->control);
}

static const struct session_ops sensor_session_ops = {
    .submit = session_submit,
    .refuse = session_refuse,
    .room = session_room,
    .take = session_take,
    .fail = session_fail,
    .deinit = session_deinit,
};

/*
 * It observes in the bus's own name, whatever controls of its uid may do, because the bus passes it the commands for its VMs
 * anyway; what it may have of the memory is up to the authority, which is told who it is.
 */
static int open_channels(struct sensor_session *session, const struct session_request *request, struct vmibus_ack *refusal) {
    struct bus_home *home = session->home;
    struct principal observer = *request->principal;
    uint8_t name[16];
    int r;

    observer.is_self = true;
    if (getrandom(name, sizeof(name), 0) != sizeof(name))
        return -errno;
    r = control_init(&session->control, home->bus, &observer, name, &control_ops, refusal);
    if (r)
        return r;
    r = slot_table_init(&session->states, &session->control.region, home->bus->n_endpoints + 1);
    if (r == 0 && home->authority)
        r = authority_client_new(&session->memory, home->authority, name, request->principal, session->control.account,
                                 &session->control.region, VMIBUS_ROLE_SENSOR, &memory_ops, session);
    if (r == 0) {
        session->control.role = VMIBUS_ROLE_SENSOR;
        control_tell_session(&session->control);
        return 0;
    }
    r = region_refusal(refusal, r, &session->control.region);
    control_deinit(&session->control);
    return r;
}

int sensor_session_init(struct sensor_session *session, struct bus_home *home, const struct session_request *request,
                        struct vmibus_ack *refusal) {
    int r;

    *session = (struct sensor_session){
        .session = {.ops = &sensor_session_ops, .owner = request->owner, .gives_fds = true, .is_read_to_the_end = true},
        .home = home};
    list_init(&session->waiting);
    loop_timer_init(&session->answer, home->bus->loop, answer_overdue);
    r = open_channels(session, request, refusal);
    if (r)
        return r;
    if (welcome_queue(&session->control, home, session->memory != NULL, &request->hello->header) == 0)
        return 0;
    session_deinit(&session->session);
    refusal->reason = VMIBUS_REASON_LIMIT_QUEUE;
    return VMIBUS_ERROR_PRESSURE;
}
