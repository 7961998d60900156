/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/acknowledge.h"

#include "util/clock.h"
#include "util/refusal.h"

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

/* What was refused was, and what was written is: a tail only adds to that, and the answer is true without it. */
static bool is_true_without_tail(const struct vmibus_ack *ack) {
    return ack->error || ack->command == VMIBUS_KIND_CMD_MEMWRITE;
}

/* The tail is answered, or why there is none. False: the latter. */
static bool answer_tail(struct event *event, struct account *account, const void *tail, size_t tail_length) {
    int r = event_set_tail(event, account, tail, tail_length);

    if (r == 0 || is_true_without_tail(&event->frame.ack))
        return true;
    event->fds = event_fds_free(event->fds);
    event->frame.header.fd_count = 0;
    /* A store without a fitting block is full for whoever asks, whatever the sum says. */
    (void)refusal_of_charge(&event->frame.ack, r == CHARGE_QUOTA ? CHARGE_QUOTA : CHARGE_PRESSURE, account,
                            RESOURCE_ANSWERS);
    return false;
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
        (void)refusal_of_charge(ack, r, account, RESOURCE_FDS);
    }
}

struct event *acknowledge(struct event_pool *events, const struct acknowledgement *answer, bool *whole) {
    struct vmibus_frame frame;
    struct event *event;
    int r;

    *whole = false;
    ack_frame(&frame, answer->command, answer->ack);
    event = event_new(events, EVENT_ANSWER, &frame);
    if (!event)
        return NULL;
    r = event_dup_fds(event, answer->account, answer->fds, answer->n_fds);
    if (answer->reclaim && (r == CHARGE_QUOTA || r == CHARGE_PRESSURE)) {
        answer->reclaim(answer->context);
        r = event_dup_fds(event, answer->account, answer->fds, answer->n_fds);
    }
    *whole = r == 0 && answer_tail(event, answer->account, answer->tail, answer->tail_length);
    if (r)
        answer_failed(event, answer->account, r);
    return event;
}

struct vmibus_frame connection_error(enum vmibus_error error, enum vmibus_reason reason, uint16_t offender, uint64_t value,
                                     uint64_t bound) {
    return (struct vmibus_frame){
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
}
