/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/hello.h"

#include <errno.h>
#include <string.h>

#include "util/clock.h"

/* A WELCOME that tells a larger bound is not believed: a receiver allocates up to it. */
#define TAIL_BOUND_MAX (256u * 1024 * 1024)

static void write_hello(struct vmibus_frame *frame, const struct hello *hello) {
    size_t length = strnlen(hello->name, sizeof(frame->hello.name) - 1);

    vmibus_command_init(frame, VMIBUS_KIND_HELLO, NULL);
    frame->header.version = VMIBUS_PROTOCOL_VERSION;
    frame->header.correlation = hello->correlation;
    frame->header.timestamp = clock_now();
    frame->hello.magic = VMIBUS_MAGIC;
    frame->hello.version_min = VMIBUS_PROTOCOL_VERSION;
    frame->hello.version_max = VMIBUS_PROTOCOL_VERSION;
    frame->hello.role = (uint8_t)hello->role;
    frame->hello.channel = (uint8_t)hello->channel;
    if (hello->session)
        memcpy(frame->hello.session, hello->session, sizeof(frame->hello.session));
    memcpy(frame->hello.name, hello->name, length);
}

static int refusal(uint16_t error, uint16_t reason) {
    if (reason == VMIBUS_REASON_BAD_VERSION)
        return -EPROTONOSUPPORT;
    /* The library's own HELLO is lawful: whoever calls it malformed is no bus that we know. */
    if (error == VMIBUS_ERROR_OK || error == VMIBUS_ERROR_VALIDATION)
        return -EPROTO;
    return error;
}

static int read_welcome(const struct vmibus_message *message, struct hello_answer *answer) {
    const struct vmibus_welcome *welcome = &message->frame.welcome;
    size_t length = message->frame.header.tail_length;

    if (welcome->magic != VMIBUS_MAGIC || message->frame.header.fd_count)
        return -EPROTO;
    if (welcome->version != VMIBUS_PROTOCOL_VERSION)
        return -EPROTONOSUPPORT;
    if (welcome->tail_bound > TAIL_BOUND_MAX)
        return -EPROTO;
    if (length >= sizeof(answer->memory_path) || (length == 0) != (welcome->memory != VMIBUS_MEMORY_LOCATION_SOCKET))
        return -EPROTO;
    if (length) {
        memcpy(answer->memory_path, message->tail, length);
        if (strnlen(answer->memory_path, length) < length)
            return -EPROTO;
    }
    answer->memory_path[length] = '\0';
    answer->welcome = *welcome;
    answer->bounds = (struct hello_bounds){
        .tail_bound = welcome->tail_bound,
        .version = welcome->version,
        .fds_per_frame = welcome->fds_per_frame < VMIBUS_FDS_PER_FRAME ? welcome->fds_per_frame : VMIBUS_FDS_PER_FRAME,
    };
    return 0;
}

/* Judges one frame. -EAGAIN: not the answer yet. */
static int read_answer(const struct hello *hello, const struct vmibus_message *message, struct hello_answer *answer) {
    const struct vmibus_frame *frame = &message->frame;
    bool ours = frame->header.correlation == hello->correlation;

    if (frame->header.direction == VMIBUS_DIRECTION_UP) {
        if (frame->header.kind == VMIBUS_KIND_WELCOME && ours)
            return read_welcome(message, answer);
        if (frame->header.kind == VMIBUS_KIND_ERROR && (ours || frame->error.closing)) {
            answer->refusal = frame->error;
            return refusal(frame->error.error, frame->error.reason);
        }
        if (frame->header.kind == VMIBUS_KIND_ACK && ours)
            return refusal(frame->ack.error, frame->ack.reason);
    }
    return hello->established ? -EAGAIN : -EPROTO;
}

static int await_answer(const struct vmibus_link_ops *ops, void *context, const struct hello *hello, uint64_t deadline,
                        struct hello_answer *answer) {
    struct vmibus_message message;
    int r;

    for (;;) {
        uint64_t now = clock_now();

        r = now < deadline ? ops->wait(context, (int)((deadline - now + NS_PER_MS - 1) / NS_PER_MS)) : -ETIMEDOUT;
        if (r < 0 && r != -EINTR)
            return r;
        while ((r = ops->receive(context, &message)) == 1) {
            r = read_answer(hello, &message, answer);
            vmibus_message_deinit(&message);
            if (r != -EAGAIN)
                return r;
        }
        if (r < 0)
            return r;
    }
}

int hello_exchange(const struct vmibus_link_ops *ops, void *context, const struct hello *hello, struct hello_answer *answer) {
    uint64_t deadline = clock_now() + (uint64_t)hello->timeout_ms * NS_PER_MS;
    struct vmibus_frame frame;
    int r;

    answer->refusal = (struct vmibus_error_body){};
    write_hello(&frame, hello);
    r = ops->send(context, &frame, NULL, NULL);
    /* Whoever refuses a connection may have closed it already, and said why before. */
    if (r < 0 && r != -ECONNRESET)
        return r;
    return await_answer(ops, context, hello, deadline, answer);
}
