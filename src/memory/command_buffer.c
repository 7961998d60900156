/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BUFFER: a client allocates memory that it shares with the authority, or gives it back.  Whoever may read or write
 * memory on some endpoint may allocate; whoever may no longer loses what it has.
 */
#include "memory/answer.h"
#include "memory/buffer.h"
#include "memory/command.h"
#include "util/clock.h"
#include "util/deadline.h"
#include "util/fds.h"

/* Whoever may use a buffer somewhere may have some. */
#define CAPABILITIES (VMIBUS_CAP_MEM_READ | VMIBUS_CAP_MEM_WRITE)

static uint32_t capabilities_anywhere(const struct authority_client *client) {
    return policy_evaluate_any(client->authority->policy, &client->principal).capabilities;
}

void client_review_buffers(struct authority_client *client) {
    if (!list_is_empty(&client->buffers) && !(capabilities_anywhere(client) & CAPABILITIES))
        client_free_buffers(client);
}

static uint16_t check(const struct authority_client *client, const struct vmibus_frame *frame,
                      uint64_t now, struct vmibus_ack *ack) {
    const struct vmibus_buffer *command = &frame->buffer;
    uint32_t capabilities = capabilities_anywhere(client);

    if (frame->header.fd_count)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS,
                             frame->header.fd_count);
    if (command->operation != VMIBUS_BUFFER_OPERATION_ALLOCATE &&
        command->operation != VMIBUS_BUFFER_OPERATION_FREE)
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD,
                             command->operation);
    if (command->operation == VMIBUS_BUFFER_OPERATION_ALLOCATE &&
        (command->size == 0 || command->size > VMIBUS_BUFFER_BOUND))
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH,
                             VMIBUS_BUFFER_BOUND);
    /* What one has may be given back whatever the policy says. */
    if (command->operation == VMIBUS_BUFFER_OPERATION_ALLOCATE && !(capabilities & CAPABILITIES))
        return answer_refuse(ack, VMIBUS_ERROR_DENIED,
                             capabilities ? VMIBUS_REASON_NO_CAPABILITY : VMIBUS_REASON_NO_GRANT,
                             VMIBUS_CAP_MEM_READ);
    if (deadline_has_passed(&frame->header, now))
        return answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
    return 0;
}

static uint16_t allocate(struct authority_client *client, uint64_t size, int *fd,
                         struct vmibus_ack *ack) {
    struct buffer *buffer;

    if (buffer_new(&buffer, client, size, fd, ack))
        return ack->error;
    ack->value = buffer->number;
    ack->count = buffer->size;
    return 0;
}

static void give_back(struct authority_client *client, uint32_t number, struct vmibus_ack *ack) {
    struct buffer *buffer = buffer_find(client, number);

    if (buffer)
        buffer_free(buffer);
    else
        answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER, number);
}

void command_buffer(struct authority_client *client, const struct vmibus_frame *frame,
                    uint64_t received) {
    bool allocates = frame->buffer.operation == VMIBUS_BUFFER_OPERATION_ALLOCATE;
    struct vmibus_frame answer;
    int fd = -1;

    answer_begin(&answer, frame, received);
    if (!check(client, frame, received, &answer.ack)) {
        if (!allocates)
            give_back(client, frame->buffer.buffer, &answer.ack);
        else if (!allocate(client, frame->buffer.size, &fd, &answer.ack))
            answer.header.fd_count = 1;
    }
    answer.ack.finished = clock_now();
    /* The descriptor is the answer: it is wanted whatever the flags say. */
    client_answer(client, &answer, allocates ? 0 : frame->header.flags, NULL, &fd);
    fd_close(fd);
}
