/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/remote_sensor.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <vmibus/names.h>

#include "client/hello.h"
#include "host/sensor_inbox.h"
#include "host/sensor_observer.h"
#include "util/clock.h"

/* Frames handed on in one go, before timers and what the module watches have their turn. */
#define BATCH 64

static struct remote_sensor *remote_of(struct vmibus_sensor_host *host) {
    return container_of(host, struct remote_sensor, host);
}

/* --- the end of a connection --------------------------------------------------------------------- */

static void channel_stop(struct remote_channel *channel) {
    loop_source_deinit(&channel->source);
    loop_deferred_cancel(&channel->again);
}

/* Nothing goes in or out any more; whoever owns the sensor learns it from the loop. */
static void lose(struct remote_sensor *remote, int error) {
    if (remote->error)
        return;
    remote->error = error;
    channel_stop(&remote->bus);
    channel_stop(&remote->memory);
    loop_defer(&remote->end);
}

/* Whoever closes a connection says why before; it may be a failing send that finds it closed. */
static void read_why(struct remote_channel *channel) {
    struct vmibus_message message;

    while (channel->link && socket_link_ops.receive(channel->link, &message) == 1) {
        if (message.frame.header.kind == VMIBUS_KIND_ERROR)
            channel->remote->why = message.frame.error;
        vmibus_message_deinit(&message);
    }
}

static void tell_lost(struct loop_deferred *deferred) {
    struct remote_sensor *remote = container_of(deferred, struct remote_sensor, end);
    struct vmibus_error_body why;

    read_why(&remote->bus);
    read_why(&remote->memory);
    why = remote->why;
    remote->lost(remote->context, remote->error, &why);
}

/* --- sending ------------------------------------------------------------------------------------- */

/* A link that could not send all waits for room too; one that holds whole frames is read before the loop waits again. */
static void wait_for(struct remote_channel *channel) {
    uint32_t events = EPOLLIN | EPOLLRDHUP;

    if (channel->remote->error || channel->remote->dispatching == channel || !channel->source.loop)
        return;
    if (socket_link_ops.get_poll_events(channel->link) & POLLOUT)
        events |= EPOLLOUT;
    (void)loop_source_modify(&channel->source, events);
}

static void channel_send(struct remote_channel *channel, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct remote_sensor *remote = channel->remote;
    int r;

    if (remote->error)
        return;
    r = socket_link_ops.send(channel->link, frame, tail, fds);
    /* An answer whose descriptors the kernel does not take along is a failed one, but an answer. */
    if (r == -ETOOMANYREFS && frame->header.kind == VMIBUS_KIND_ACK) {
        struct vmibus_frame without = *frame;

        without.header.fd_count = 0;
        without.header.tail_length = 0;
        without.ack.error = VMIBUS_ERROR_PRESSURE;
        without.ack.reason = VMIBUS_REASON_LIMIT_FDS;
        r = socket_link_ops.send(channel->link, &without, NULL, NULL);
    }
    if (r < 0)
        lose(remote, r);
    else
        wait_for(channel);
}

static void say(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    channel_send(&remote_of(host)->bus, frame, tail, fds);
}

/* There is no authority on this bus: its answer is ours to give. */
static void answer_unsupported(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    const struct vmibus_frame answer = {
        .header = {.kind = VMIBUS_KIND_ACK,
                   .direction = VMIBUS_DIRECTION_UP,
                   .slot = frame->header.slot,
                   .generation = frame->header.generation,
                   .correlation = frame->header.correlation},
        .ack = {.error = VMIBUS_ERROR_UNSUPPORTED, .reason = VMIBUS_REASON_NOT_BUILT, .command = frame->header.kind},
    };

    sensor_inbox_hear_memory(host, &answer, NULL, NULL);
}

static void submit(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct remote_sensor *remote = remote_of(host);

    if (remote->location == VMIBUS_MEMORY_LOCATION_NONE)
        answer_unsupported(host, frame);
    else
        channel_send(remote->memory.link ? &remote->memory : &remote->bus, frame, tail, fds);
}

static const struct sensor_channel_ops channel_ops = {.say = say, .submit = submit};

/* --- receiving ----------------------------------------------------------------------------------- */

static bool is_of_memory(unsigned kind) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(kind);

    return description && description->channels == VMIBUS_ON_MEMORY;
}

static void hear_up(struct remote_sensor *remote, const struct vmibus_message *message) {
    const struct vmibus_frame *frame = &message->frame;

    switch (frame->header.kind) {
    case VMIBUS_KIND_ACK:
        if (is_of_memory(frame->ack.command))
            sensor_inbox_hear_memory(&remote->host, frame, message->tail, message->fds);
        else if (frame->ack.command == VMIBUS_KIND_ENDPOINT_OFFER)
            sensor_inbox_hear_bus(&remote->host, frame, message->tail);
        break;
    case VMIBUS_KIND_ROSTER:
    case VMIBUS_KIND_MEMCTX:
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        sensor_observer_hear(&remote->host, frame, message->tail);
        break;
    case VMIBUS_KIND_ERROR:
        remote->why = frame->error;
        break;
    default:
        break; /* a GAP is followed by what was lost: all that is observed is retained */
    }
}

static void hear(struct remote_sensor *remote, const struct vmibus_message *message) {
    const struct vmibus_frame *frame = &message->frame;

    if (frame->header.direction == VMIBUS_DIRECTION_UP)
        hear_up(remote, message);
    else if (is_of_memory(frame->header.kind))
        sensor_inbox_hear_memory(&remote->host, frame, message->tail, message->fds);
    else
        sensor_inbox_hear_bus(&remote->host, frame, message->tail);
}

static void dispatch(struct remote_channel *channel) {
    struct remote_sensor *remote = channel->remote;
    struct vmibus_message message;
    int r = 0;

    remote->dispatching = channel;
    for (int i = 0; i < BATCH && !remote->error; i++) {
        r = socket_link_ops.receive(channel->link, &message);
        if (r != 1)
            break;
        hear(remote, &message);
        vmibus_message_deinit(&message);
    }
    remote->dispatching = NULL;
    if (remote->error)
        return;
    if (r < 0) {
        lose(remote, r);
        return;
    }
    if (r == 1)
        loop_defer(&channel->again);
    wait_for(channel);
}

static void channel_ready(struct loop_source *source, uint32_t events) {
    (void)events;
    dispatch(container_of(source, struct remote_channel, source));
}

static void channel_again(struct loop_deferred *deferred) {
    dispatch(container_of(deferred, struct remote_channel, again));
}

/* --- coming and going ---------------------------------------------------------------------------- */

static void channel_init(struct remote_channel *channel, struct remote_sensor *remote, struct loop *loop) {
    channel->remote = remote;
    loop_deferred_init(&channel->again, loop, channel_again);
}

/* The channel keeps what it opened, whatever the outcome. As hello_exchange(). */
static int channel_open(struct remote_channel *channel, const char *path, struct hello *hello, struct hello_answer *answer) {
    int r = socket_link_connect(&channel->link, path);

    if (r < 0) {
        channel->link = NULL;
        return r;
    }
    hello->role = VMIBUS_ROLE_SENSOR;
    hello->correlation = 1;
    hello->timeout_ms = HELLO_TIMEOUT_MS;
    r = hello_exchange(&socket_link_ops, channel->link, hello, answer);
    if (r == 0) {
        socket_link_set_bounds(channel->link, answer->bounds.tail_bound, answer->bounds.fds_per_frame);
        socket_link_set_unsent_bound(channel->link, REMOTE_SENSOR_UNSENT);
    }
    return r;
}

/* What a sensor tells the memory authority, RAM descriptors among it, is not for whom a bus that was taken over would name. */
static bool is_wanted(const struct remote_sensor_options *options, const struct hello_answer *answer) {
    return !options->memory || (answer->welcome.memory == VMIBUS_MEMORY_LOCATION_SOCKET &&
                                strcmp(options->memory, answer->memory_path) == 0);
}

static int open_channels(struct remote_sensor *remote, const struct remote_sensor_options *options,
                         struct remote_sensor_failure *failure) {
    struct hello hello = {.channel = VMIBUS_CHANNEL_BUS, .name = options->module->name};
    struct hello_answer answer = {}, of_memory = {};
    int r = channel_open(&remote->bus, options->socket, &hello, &answer);

    failure->refusal = answer.refusal;
    if (r)
        return r;
    failure->of_another = !is_wanted(options, &answer);
    if (failure->of_another)
        return -EPERM;
    remote->host.tail_bound = answer.bounds.tail_bound;
    remote->location = (enum vmibus_memory_location)answer.welcome.memory;
    if (remote->location != VMIBUS_MEMORY_LOCATION_SOCKET)
        return 0;
    hello.channel = VMIBUS_CHANNEL_MEMORY;
    hello.session = answer.welcome.session;
    r = channel_open(&remote->memory, answer.memory_path, &hello, &of_memory);
    failure->refusal = of_memory.refusal;
    failure->of_memory = r != 0;
    return r;
}

static int watch_channel(struct remote_channel *channel, struct loop *loop) {
    int fd = channel->link ? socket_link_get_fd(channel->link) : -1, r;

    if (!channel->link)
        return 0;
    r = loop_source_init(&channel->source, loop, fd, EPOLLIN | EPOLLRDHUP, channel_ready);
    /* What came behind WELCOME has been received already. */
    if (r == 0)
        loop_defer(&channel->again);
    return r;
}

static void announce(struct remote_sensor *remote, enum vmibus_sensor_state state) {
    const struct vmibus_sensor_module *module = remote->host.module;
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .timestamp = clock_now()},
        .sensor_announce = {.state = (uint8_t)state,
                            .flags = sensor_module_has(module, save) ? VMIBUS_SENSOR_KEEPS : 0,
                            .groups = module->groups,
                            .fallback = module->fallback},
    };

    strncpy((char *)frame.sensor_announce.name, module->name, sizeof(frame.sensor_announce.name) - 1);
    channel_send(&remote->bus, &frame, NULL, NULL);
}

static void introduce(struct remote_sensor *remote) {
    struct vmibus_frame frame;

    announce(remote, VMIBUS_SENSOR_STATE_LOADED);
    if (!sensor_module_observes(remote->host.module))
        return;
    sensor_observer_subscribe(&frame);
    channel_send(&remote->bus, &frame, SENSOR_OBSERVER_PATTERN, NULL);
}

int remote_sensor_new(struct remote_sensor **remotep, const struct remote_sensor_options *options,
                      struct remote_sensor_failure *failure) {
    struct remote_sensor *remote = calloc(1, sizeof(*remote));
    int r;

    *failure = (struct remote_sensor_failure){};
    if (!remote)
        return -ENOMEM;
    remote->lost = options->lost;
    remote->context = options->context;
    loop_deferred_init(&remote->end, options->loop, tell_lost);
    channel_init(&remote->bus, remote, options->loop);
    channel_init(&remote->memory, remote, options->loop);
    sensor_host_init(&remote->host, options->loop, options->module, &channel_ops, 0);
    remote->host.has_pages = true;
    r = open_channels(remote, options, failure);
    if (r == 0)
        r = watch_channel(&remote->bus, options->loop);
    if (r == 0)
        r = watch_channel(&remote->memory, options->loop);
    if (r == 0) {
        introduce(remote);
        remote->host.saved = options->saved;
        r = sensor_host_start(&remote->host, options->options, options->n_options);
        remote->host.saved = NULL;
        failure->of_module = r < 0;
    }
    if (r) {
        remote_sensor_free(remote);
        return r;
    }
    *remotep = remote;
    return 0;
}

static void channel_close(struct remote_channel *channel) {
    channel_stop(channel);
    if (channel->link)
        socket_link_ops.close(channel->link);
    channel->link = NULL;
}

void remote_sensor_restarts(struct remote_sensor *remote) {
    announce(remote, VMIBUS_SENSOR_STATE_RESTARTING);
    if (!remote->error)
        remote->error = -ESHUTDOWN;
}

struct remote_sensor *remote_sensor_free(struct remote_sensor *remote) {
    if (!remote)
        return NULL;
    sensor_host_stop(&remote->host);
    if (!remote->error)
        remote->error = -ESHUTDOWN;
    loop_deferred_cancel(&remote->end);
    channel_close(&remote->memory);
    channel_close(&remote->bus);
    sensor_host_deinit(&remote->host);
    free(remote);
    return NULL;
}
