/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/memory_session.h"

#include <errno.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/acknowledge.h"
#include "bus/handover.h"
#include "memory/authority.h"
#include "memory/sessions.h"
#include "transport/frame_check.h"
#include "util/clock.h"
#include "util/refusal.h"

#define FEATURES                                                                                                \
    (VMIBUS_FEATURE_MEMORY | VMIBUS_FEATURE_MEM_READ | VMIBUS_FEATURE_BUFFERS | VMIBUS_FEATURE_TABLES |         \
     VMIBUS_FEATURE_EPOCH_PAGE | VMIBUS_FEATURE_QUIESCE)

static struct memory_session *session_of(struct session *session) {
    return container_of(session, struct memory_session, session);
}

/* --- what is sent ------------------------------------------------------------------------------ */

static void push(struct memory_session *session, struct event *event) {
    outbox_push_answer(&session->outbox, event);
    session->session.owner->wake(&session->session);
}

static void fail(struct memory_session *session, const struct frame_fault *fault, uint16_t offender) {
    const struct vmibus_frame frame = connection_error(fault->error, fault->reason, offender, fault->value, fault->bound);
    struct event *event;

    if (session->failed)
        return;
    session->failed = true;
    event = event_new(&session->home->events, EVENT_ANSWER, &frame);
    if (event)
        outbox_push_answer(&session->outbox, event);
    session->session.owner->fail(&session->session);
}

void memory_session_fail(struct memory_session *session, enum vmibus_error error, enum vmibus_reason reason) {
    const struct frame_fault fault = {.error = error, .reason = reason};

    fail(session, &fault, 0);
}

static void reclaim(void *context) {
    memory_home_reclaim(context);
}

/* False: it could not be answered as it is. */
static bool answer(struct memory_session *session, const struct vmibus_header *command, const struct vmibus_ack *ack,
                   const void *tail, size_t tail_length, const int *fds, size_t n_fds) {
    const struct acknowledgement acknowledgement = {.command = command,
                                                    .ack = ack,
                                                    .tail = tail,
                                                    .tail_length = tail_length,
                                                    .fds = fds,
                                                    .n_fds = n_fds,
                                                    .account = session->account,
                                                    .reclaim = reclaim,
                                                    .context = session->home};
    struct event *event;
    bool whole;

    if (!ack->error && command->flags & VMIBUS_FRAME_NO_ACK)
        return true;
    event = acknowledge(&session->home->events, &acknowledgement, &whole);
    if (event)
        push(session, event);
    else
        memory_session_fail(session, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE);
    return whole;
}

static int welcome(struct memory_session *session, const struct vmibus_header *hello) {
    const struct memory_home_options *options = &session->home->options;
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WELCOME,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .correlation = hello->correlation,
                   .timestamp = clock_now()},
        .welcome = {.magic = VMIBUS_MAGIC,
                    .features = FEATURES,
                    .incarnation = options->incarnation,
                    .tail_bound = options->tail_bound,
                    .commands = options->commands,
                    .endpoints = options->n_endpoints,
                    .version = VMIBUS_PROTOCOL_VERSION,
                    .memory = VMIBUS_MEMORY_LOCATION_HERE,
                    .fds_per_frame = VMIBUS_FDS_PER_FRAME},
    };
    struct event *event;

    memcpy(frame.welcome.session, session->name, sizeof(session->name));
    event = event_new(&session->home->events, EVENT_ANSWER, &frame);
    if (!event)
        return -ENOBUFS;
    push(session, event);
    return 0;
}

/* --- the authority's end ----------------------------------------------------------------------- */

static void authority_replies(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct memory_session *session = context;
    struct vmibus_header command = frame->header;
    struct event *event;

    if (frame->header.kind != VMIBUS_KIND_ACK) {
        event = event_new(&session->home->events, EVENT_ANSWER, frame);
        if (event)
            push(session, event);
        else
            memory_session_fail(session, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE);
        return;
    }
    session->n_commands--;
    command.kind = frame->ack.command;
    if (!answer(session, &command, &frame->ack, tail, frame->header.tail_length, fds, frame->header.fd_count) &&
        command.kind == VMIBUS_KIND_MEM_ATTACH)
        authority_client_undo_attach(session->client, frame->ack.epoch);
}

static void authority_disconnects(void *context, enum vmibus_reason reason, uint64_t value, uint64_t bound) {
    const struct frame_fault fault = {.error = VMIBUS_ERROR_EXPIRED, .reason = reason, .value = value, .bound = bound};

    fail(context, &fault, VMIBUS_KIND_MEM_ATTACH);
}

static void bus_closes(void *context) {
    memory_session_fail(context, VMIBUS_ERROR_GONE, VMIBUS_REASON_BAD_SESSION);
}

static const struct authority_client_ops client_ops = {
    .reply = authority_replies, .disconnect = authority_disconnects, .closed = bus_closes};

/* --- the peer's end ---------------------------------------------------------------------------- */

static void session_refuse(struct session *base, const struct vmibus_frame *frame, uint64_t received, struct vmibus_ack *refusal) {
    refusal->received = refusal->started = received;
    (void)answer(session_of(base), &frame->header, refusal, NULL, 0, NULL, 0);
}

static void refuse(struct memory_session *session, const struct vmibus_frame *frame, uint64_t received,
                   const struct frame_fault *fault) {
    struct vmibus_ack ack = {.error = (uint16_t)fault->error, .reason = (uint16_t)fault->reason, .value = fault->value};

    session_refuse(&session->session, frame, received, &ack);
}

/* Again by the same, for the same: whoever has the descriptor may have handed it on. */
static void hello_again(struct memory_session *session, const struct vmibus_frame *frame, uint64_t received) {
    struct frame_fault fault = {.error = VMIBUS_ERROR_DENIED, .reason = VMIBUS_REASON_BAD_SESSION};

    if (frame_check_hello(frame, &fault) == FRAME_OK && frame->hello.role == session->role &&
        frame->hello.channel == VMIBUS_CHANNEL_MEMORY &&
        memcmp(frame->hello.session, session->name, sizeof(session->name)) == 0) {
        if (welcome(session, &frame->header) < 0)
            memory_session_fail(session, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_QUEUE);
        return;
    }
    refuse(session, frame, received, &fault);
}

static bool is_for_memory(const struct vmibus_frame *frame) {
    return vmibus_frame_describe(frame->header.kind)->channels == VMIBUS_ON_MEMORY;
}

static void submit_command(struct memory_session *session, const struct vmibus_frame *frame, const void *tail, const int *fds,
                           uint64_t received) {
    uint32_t commands = session->home->options.commands;
    struct vmibus_ack ack = {};

    if (session->n_commands >= commands) {
        (void)refusal_of_bound(&ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_COMMANDS, commands, session->n_commands,
                               session->principal.uid);
        session_refuse(&session->session, frame, received, &ack);
        return;
    }
    session->n_commands++;
    authority_client_submit(session->client, frame, tail, fds, received);
}

static void session_submit(struct session *base, const struct vmibus_frame *frame, const void *tail, const int *fds,
                           uint64_t received) {
    struct memory_session *session = session_of(base);
    unsigned sender = session->role == VMIBUS_ROLE_SENSOR ? VMIBUS_SENDER_SENSOR : VMIBUS_SENDER_CONTROL;
    struct frame_fault fault = {.error = VMIBUS_ERROR_VALIDATION, .reason = VMIBUS_REASON_BAD_KIND};

    if (frame_check_command(frame, sender, &fault) != FRAME_OK)
        refuse(session, frame, received, &fault);
    else if (frame->header.kind == VMIBUS_KIND_HELLO)
        hello_again(session, frame, received);
    else if (is_for_memory(frame))
        submit_command(session, frame, tail, fds, received);
    else
        refuse(session, frame, received,
               &(struct frame_fault){
                   .error = VMIBUS_ERROR_VALIDATION, .reason = VMIBUS_REASON_BAD_KIND, .value = frame->header.kind});
}

static size_t session_room(const struct session *base) {
    const struct memory_session *session = container_of(base, const struct memory_session, session);
    uint32_t commands = session->home->options.commands;

    return session->failed || session->outbox.n_answers >= commands ? 0 : commands - session->outbox.n_answers;
}

static bool session_take(struct session *base, struct control_item *item) {
    struct memory_session *session = session_of(base);
    struct delivery *delivery = session->ended ? NULL : outbox_take(&session->outbox);

    if (!delivery)
        return false;
    item->frame = delivery->event->frame;
    item->tail = tail_ref(delivery->event->tail);
    item->fds = delivery->event->fds;
    delivery->event->fds = NULL;
    outbox_finish(&session->outbox, delivery);
    session->ended = item->frame.header.kind == VMIBUS_KIND_ERROR;
    item->frame.header.delivery = ++session->outbox.sequence;
    return true;
}

static void session_fail(struct session *base, const struct frame_fault *fault, uint16_t offender) {
    fail(session_of(base), fault, offender);
}

/* --- coming and going -------------------------------------------------------------------------- */

static void release(struct memory_session *session) {
    list_unlink(&session->link);
    outbox_deinit(&session->outbox);
    region_deinit(&session->region);
}

static void session_deinit(struct session *base) {
    struct memory_session *session = session_of(base);

    session->failed = true; /* nobody is told anything any more */
    session->client = authority_client_free(session->client);
    authority_leave_session(session->home->authority, session->name);
    release(session);
}

static struct event_handover answers_of(const struct memory_session *session) {
    return (struct event_handover){
        .pool = &session->home->events, .tail_bound = session->home->options.tail_bound, .account = session->account};
}

static bool session_restore_item(struct session *base, struct control_item *item, struct handover_records records) {
    const struct event_handover where = answers_of(session_of(base));

    return control_item_handover_restore(&where, item, records);
}

static const struct session_ops memory_session_ops = {
    .submit = session_submit,
    .refuse = session_refuse,
    .room = session_room,
    .take = session_take,
    .fail = session_fail,
    .deinit = session_deinit,
    .restore_item = session_restore_item,
};

/* Without anything said yet. As memory_session_init(). */
static int begin(struct memory_session *session, struct memory_home *home, const struct session_request *request,
                 const struct vmibus_hello *hello, struct vmibus_ack *refusal) {
    int r;

    *session = (struct memory_session){
        .session = {.ops = &memory_session_ops,
                    .owner = request->owner,
                    .gives_fds = hello->role == VMIBUS_ROLE_SENSOR},
        .home = home,
        .account = request->account,
        .principal = *request->principal,
        .role = (enum vmibus_role)hello->role,
    };
    memcpy(session->name, hello->session, sizeof(session->name));
    outbox_init(&session->outbox, &home->deliveries, session->account, 0);
    region_init(&session->region, &home->regions, session->account);
    list_append(&home->sessions, &session->link);
    r = authority_client_new(&session->client, home->authority, session->name, &session->principal, session->account,
                             &session->region, session->role, &client_ops, session);
    if (r) {
        r = region_refusal(refusal, r, &session->region);
        release(session);
        return r;
    }
    authority_join_session(home->authority, session->name);
    return 0;
}

int memory_session_init(struct memory_session *session, struct memory_home *home, const struct session_request *request,
                        struct vmibus_ack *refusal) {
    int r = begin(session, home, request, &request->hello->hello, refusal);

    if (r)
        return r;
    if (welcome(session, &request->hello->header) == 0)
        return 0;
    session_deinit(&session->session);
    refusal->reason = VMIBUS_REASON_LIMIT_QUEUE;
    return VMIBUS_ERROR_PRESSURE;
}

/* --- over a restart ---------------------------------------------------------------------------- */

/* Never reused. */
enum {
    SESSION_NAME = 1,
    SESSION_ROLE = 2,
    SESSION_CLIENT = 3,
    SESSION_ANSWER = 4,
    SESSION_SEQUENCE = 5,
};

void memory_session_save(struct memory_session *session, struct handover_writer *writer) {
    handover_put(writer, SESSION_NAME, session->name, sizeof(session->name));
    handover_put_number(writer, SESSION_ROLE, session->role);
    handover_put_number(writer, SESSION_SEQUENCE, session->outbox.sequence);
    handover_begin(writer, SESSION_CLIENT);
    authority_client_handover_save(session->home->handover, writer, session->client);
    handover_end(writer);
    for (size_t i = 0; i < OUTBOX_LANES; i++)
        for (const struct delivery *delivery = session->outbox.lanes[i].first; delivery; delivery = delivery->next) {
            handover_begin(writer, SESSION_ANSWER);
            answer_handover_save(writer, delivery->event);
            handover_end(writer);
        }
}

static void take_answer(struct memory_session *session, const struct handover_record *record) {
    const struct event_handover where = answers_of(session);
    struct event *event = answer_handover_restore(&where, handover_in(record));

    if (!event)
        return;
    if (outbox_has_room_for_answer(&session->outbox)) {
        outbox_push_answer(&session->outbox, event);
        return;
    }
    event_unref(event);
    handover_wrong(record->handover, -ENOBUFS);
}

static void take_members(struct memory_session *session, struct handover_records records) {
    struct handover_record record;

    while (handover_next(&records, &record))
        switch (record.tag) {
        case SESSION_CLIENT:
            (void)authority_client_handover_restore(session->home->handover, session->client, handover_in(&record));
            break;
        case SESSION_ANSWER:
            take_answer(session, &record);
            break;
        case SESSION_SEQUENCE:
            session->outbox.sequence = handover_number(&record);
            break;
        default:
            break;
        }
}

/* Whose it is; the policy is looked at once all is there. False: nobody's that the bus told of. */
static bool take_name(struct handover_records records, const struct memory_home *home, const struct principal *principal,
                      struct vmibus_hello *hello) {
    const struct known_session *known;
    struct handover_record record;

    if (!handover_find(records, SESSION_NAME, &record) || record.length != sizeof(hello->session))
        return handover_wrong(records.handover, -EBADMSG);
    handover_copy(&record, hello->session, sizeof(hello->session));
    if (!handover_find(records, SESSION_ROLE, &record))
        return handover_wrong(records.handover, -EBADMSG);
    hello->role = (uint8_t)handover_number_below(&record, UINT8_MAX);
    known = authority_find_session(home->authority, hello->session);
    return (known && known->uid == principal->uid && known->role == hello->role) || handover_wrong(records.handover, -EBADMSG);
}

bool memory_session_take_over(struct memory_session *session, struct memory_home *home, const struct session_request *request,
                              struct handover_records records) {
    struct vmibus_hello hello = {};
    struct vmibus_ack refusal = {};
    int r;

    if (!take_name(records, home, request->principal, &hello))
        return false;
    r = begin(session, home, request, &hello, &refusal);
    if (r)
        return handover_wrong(records.handover, r < 0 ? r : -ENOBUFS);
    take_members(session, records);
    if (records.handover->error)
        session_deinit(&session->session);
    return !records.handover->error;
}
