/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/sensor_api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <vmibus/syscalls.h>

#include "host/sensor_host.h"
#include "host/sensor_unsaid.h"
#include "util/clock.h"
#include "util/fault.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("shutdown")

struct vmibus_sensor_source {
    struct loop_source source;
    struct list link;
    void (*callback)(void *userdata, uint32_t events);
    void *userdata;
};

struct vmibus_sensor_timer {
    struct loop_timer timer;
    struct list link;
    void (*callback)(void *userdata);
    void *userdata;
};

/* --- endpoints --------------------------------------------------------------------------------- */

void sensor_release(struct vmibus_sensor_host *host, const struct vmibus_header *of, uint64_t epoch) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_RELEASE,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = of->slot,
                   .generation = of->generation,
                   .timestamp = clock_now()},
        .mem_release = {.epoch = epoch},
    };

    host->channel->submit(host, &frame, NULL, NULL);
}

void sensor_endpoint_detach_ram(struct vmibus_sensor_endpoint *endpoint) {
    const struct vmibus_header of = {.slot = endpoint->slot, .generation = endpoint->generation};

    if (endpoint->attached)
        sensor_release(endpoint->host, &of, endpoint->attached);
    fds_close(endpoint->fds, endpoint->n_fds);
    free(endpoint->ranges);
    endpoint->ranges = NULL;
    endpoint->n_ranges = endpoint->n_fds = 0;
    endpoint->attached = 0;
}

struct vmibus_sensor_endpoint *sensor_endpoint_new(struct vmibus_sensor_host *host, void *userdata, uint32_t groups) {
    struct vmibus_sensor_endpoint *endpoint = calloc(1, sizeof(*endpoint));

    if (!endpoint)
        return NULL;
    endpoint->host = host;
    endpoint->userdata = userdata;
    endpoint->groups = groups;
    sensor_unsaid_init(endpoint);
    list_append(&host->endpoints, &endpoint->link);
    return endpoint;
}

void sensor_endpoint_identify(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_offer *offer) {
    strncpy(endpoint->name, offer->name, VMIBUS_NAME_BOUND);
    memcpy(endpoint->uuid, offer->uuid, sizeof(endpoint->uuid));
    endpoint->pid = offer->pid;
    endpoint->start_time = offer->start_time;
}

void sensor_endpoint_free(struct vmibus_sensor_endpoint *endpoint) {
    sensor_endpoint_detach_ram(endpoint);
    sensor_unsaid_drop(endpoint);
    list_unlink(&endpoint->link);
    free(endpoint);
}

struct vmibus_sensor_endpoint *sensor_endpoint_find(struct vmibus_sensor_host *host, const struct vmibus_header *header) {
    struct vmibus_sensor_endpoint *endpoint;

    list_for_each(endpoint, &host->endpoints, link)
        if (endpoint->slot == header->slot && endpoint->generation == header->generation)
            return endpoint;
    return NULL;
}

/* Goes by the channel of its kind: now, or once it is known which endpoint it is about. */
static int say_or_keep(struct vmibus_sensor_endpoint *endpoint, struct vmibus_frame *frame, const void *tail, const int *fds,
                       bool to_memory) {
    struct vmibus_sensor_host *host = endpoint->host;

    frame->header.version = VMIBUS_PROTOCOL_VERSION;
    frame->header.slot = endpoint->slot;
    frame->header.generation = endpoint->generation;
    if (!frame->header.timestamp)
        frame->header.timestamp = clock_now();
    if (!endpoint->answered)
        return sensor_unsaid_add(endpoint, frame, tail, fds);
    if (to_memory)
        host->channel->submit(host, frame, tail, fds);
    else
        host->channel->say(host, frame, tail, fds);
    return 0;
}

int sensor_endpoint_say(struct vmibus_sensor_endpoint *endpoint, struct vmibus_frame *frame, const void *tail,
                        size_t tail_length) {
    frame->header.direction = VMIBUS_DIRECTION_UP;
    frame->header.tail_length = (uint32_t)tail_length;
    return say_or_keep(endpoint, frame, tail, NULL, false);
}

static bool is_gone(const struct vmibus_sensor_endpoint *endpoint) {
    return endpoint->withdrawn || (endpoint->answered && !endpoint->slot);
}

/* Says something on the memory channel. */
static int say_memory(struct vmibus_sensor_endpoint *endpoint, struct vmibus_frame *frame, const void *tail, size_t tail_length,
                      const int *fds, size_t n_fds) {
    if (is_gone(endpoint))
        return -ENODEV;
    frame->header.tail_length = (uint32_t)tail_length;
    frame->header.fd_count = (uint8_t)n_fds;
    return say_or_keep(endpoint, frame, tail, fds, true);
}

static void say_withdrawn(struct vmibus_sensor_endpoint *endpoint) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_WITHDRAW},
        .endpoint_withdraw = {.reason = (uint16_t)endpoint->why},
    };

    if (endpoint->slot)
        (void)sensor_endpoint_say(endpoint, &frame, NULL, 0);
    sensor_endpoint_free(endpoint);
}

void sensor_endpoint_answered(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_header *answer,
                              enum vmibus_error error) {
    if (!endpoint->answered && endpoint->groups)
        endpoint->host->n_unanswered--;
    endpoint->answered = true;
    /* Another endpoint turned out to be the same VM. */
    if (!error && endpoint->slot && endpoint->generation != answer->generation)
        sensor_endpoint_detach_ram(endpoint);
    if (!error) {
        endpoint->slot = answer->slot;
        endpoint->generation = answer->generation;
    }
    if (endpoint->slot)
        sensor_unsaid_say(endpoint);
    else
        sensor_unsaid_drop(endpoint);
    if (endpoint->withdrawn)
        say_withdrawn(endpoint);
}

/* --- what a module may ask --------------------------------------------------------------------- */

static int api_announce(struct vmibus_sensor_host *host, enum vmibus_sensor_state state, const char *message) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .tail_length = message ? (uint32_t)strlen(message) : 0},
        .sensor_announce = {.state = (uint8_t)state,
                            .flags = sensor_module_has(host->module, save) ? VMIBUS_SENSOR_KEEPS : 0,
                            .groups = host->module->groups,
                            .fallback = host->module->fallback},
    };

    strncpy((char *)frame.sensor_announce.name, host->module->name, sizeof(frame.sensor_announce.name) - 1);
    host->channel->say(host, &frame, message, NULL);
    return 0;
}

static int api_offer(struct vmibus_sensor_host *host, const struct vmibus_sensor_offer *offer, void *userdata,
                     struct vmibus_sensor_endpoint **endpointp) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .timestamp = clock_now()},
        .endpoint_offer = {.start_time = offer->start_time, .pid = offer->pid, .groups = offer->groups},
    };
    size_t length = strlen(offer->name);
    struct vmibus_sensor_endpoint *endpoint;

    if (length == 0 || offer->groups == 0)
        return -EINVAL;
    if (length > VMIBUS_NAME_BOUND)
        return -E2BIG;
    endpoint = sensor_endpoint_new(host, userdata, offer->groups);
    if (!endpoint)
        return -ENOMEM;
    sensor_endpoint_identify(endpoint, offer);
    memcpy(frame.endpoint_offer.uuid, offer->uuid, sizeof(offer->uuid));
    endpoint->offer = frame.header.correlation = ++host->last_offer;
    frame.header.tail_length = (uint32_t)length;
    *endpointp = endpoint;
    host->n_unanswered++;
    host->channel->say(host, &frame, offer->name, NULL);
    return 0;
}

static int api_provide(struct vmibus_sensor_endpoint *endpoint, uint32_t groups) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER},
        .endpoint_offer = {.groups = groups},
    };

    if (is_gone(endpoint))
        return -ENODEV;
    if (!groups && endpoint->groups)
        return -EINVAL;
    frame.header.correlation = endpoint->offer;
    return sensor_endpoint_say(endpoint, &frame, endpoint->host->module->name, strlen(endpoint->host->module->name));
}

static int api_identify(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_offer *what) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER, .correlation = endpoint->offer},
        .endpoint_offer = {.start_time = what->start_time, .pid = what->pid, .groups = endpoint->groups},
    };

    if (is_gone(endpoint))
        return -ENODEV;
    if (!endpoint->groups)
        return -EINVAL;
    sensor_endpoint_identify(endpoint, what);
    memcpy(frame.endpoint_offer.uuid, what->uuid, sizeof(what->uuid));
    return sensor_endpoint_say(endpoint, &frame, what->name, strlen(what->name));
}

static void api_withdraw(struct vmibus_sensor_endpoint *endpoint, enum vmibus_reason reason) {
    endpoint->withdrawn = true;
    endpoint->why = reason;
    if (endpoint->answered)
        say_withdrawn(endpoint);
}

static int api_publish(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame, const void *tail,
                       size_t tail_length) {
    struct vmibus_frame copy = *frame;

    if (is_gone(endpoint))
        return -ENODEV;
    if (tail_length > endpoint->host->tail_bound)
        return -E2BIG;
    copy.header.fd_count = 0;
    return sensor_endpoint_say(endpoint, &copy, tail, tail_length);
}

static int api_complete_with(struct vmibus_sensor_host *host, uint64_t id, const struct vmibus_ack *ack, const void *tail,
                             size_t tail_length, const int *fds, size_t n_fds) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ACK,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .correlation = id,
                   .tail_length = (uint32_t)tail_length,
                   .fd_count = (uint8_t)n_fds},
        .ack = *ack,
    };

    if (tail_length > host->tail_bound || n_fds > VMIBUS_FDS_PER_FRAME)
        return -E2BIG;
    host->channel->say(host, &frame, tail, fds);
    return 0;
}

static void api_complete(struct vmibus_sensor_host *host, uint64_t id, const struct vmibus_ack *ack) {
    (void)api_complete_with(host, id, ack, NULL, 0, NULL, 0);
}

/* A mistake in it is told with the layout. */
static int say_identity(struct vmibus_sensor_endpoint *endpoint) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_IDENTITY, .direction = VMIBUS_DIRECTION_UP, .flags = VMIBUS_FRAME_NO_ACK},
        .mem_identity = {.start_time = endpoint->start_time, .pid = endpoint->pid},
    };

    memcpy(frame.mem_identity.uuid, endpoint->uuid, sizeof(endpoint->uuid));
    return say_memory(endpoint, &frame, endpoint->name, strlen(endpoint->name), NULL, 0);
}

static int api_layout(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_layout *layout) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_LAYOUT, .direction = VMIBUS_DIRECTION_UP},
        .mem_layout = {.start_time = layout->start_time, .pid = layout->pid, .range_count = (uint16_t)layout->n_ranges},
    };
    int r;

    if (layout->n_ranges > UINT16_MAX || layout->n_fds > VMIBUS_FDS_PER_FRAME)
        return -E2BIG;
    r = say_identity(endpoint);
    if (r < 0)
        return r;
    return say_memory(endpoint, &frame, layout->ranges, layout->n_ranges * sizeof(*layout->ranges), layout->fds, layout->n_fds);
}

static int api_root(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_mem_root *root) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_ROOT, .direction = VMIBUS_DIRECTION_UP},
        .mem_root = *root,
    };

    return say_memory(endpoint, &frame, NULL, 0, NULL, 0);
}

static int api_end_epoch(struct vmibus_sensor_endpoint *endpoint, enum vmibus_reason reason) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_END, .direction = VMIBUS_DIRECTION_UP},
        .mem_end = {.reason = (uint16_t)reason},
    };

    return say_memory(endpoint, &frame, NULL, 0, NULL, 0);
}

static int api_memory_busy(struct vmibus_sensor_endpoint *endpoint, bool busy, enum vmibus_reason reason) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_BUSY, .direction = VMIBUS_DIRECTION_UP},
        .mem_busy = {.busy = busy, .reason = (uint16_t)reason},
    };

    return say_memory(endpoint, &frame, NULL, 0, NULL, 0);
}

static int api_attach(struct vmibus_sensor_endpoint *endpoint, uint64_t epoch) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_ATTACH, .direction = VMIBUS_DIRECTION_DOWN},
        .mem_attach = {.epoch = epoch},
    };

    return say_memory(endpoint, &frame, NULL, 0, NULL, 0);
}

static int api_detach(struct vmibus_sensor_endpoint *endpoint, uint64_t epoch) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_RELEASE, .direction = VMIBUS_DIRECTION_DOWN},
        .mem_release = {.epoch = epoch},
    };

    if (endpoint->attached == 0 || endpoint->attached != epoch)
        return say_memory(endpoint, &frame, NULL, 0, NULL, 0);
    sensor_endpoint_detach_ram(endpoint);
    return 0;
}

static void source_ready(struct loop_source *source, uint32_t events) {
    struct vmibus_sensor_source *watched = container_of(source, struct vmibus_sensor_source, source);

    /* A module cannot ask for faults; what it talks to can hang up. */
    if (fault_hit(FAULT_MONITOR) < 0)
        (void)shutdown(source->fd, SHUT_RDWR);
    watched->callback(watched->userdata, events);
}

static int api_watch_fd(struct vmibus_sensor_host *host, int fd, uint32_t events, void (*callback)(void *userdata, uint32_t events),
                        void *userdata, struct vmibus_sensor_source **sourcep) {
    struct vmibus_sensor_source *watched = calloc(1, sizeof(*watched));
    int r;

    if (!watched)
        return -ENOMEM;
    watched->callback = callback;
    watched->userdata = userdata;
    r = loop_source_init(&watched->source, host->loop, fd, events, source_ready);
    if (r < 0) {
        free(watched);
        return r;
    }
    list_append(&host->sources, &watched->link);
    *sourcep = watched;
    return 0;
}

static int api_change_fd(struct vmibus_sensor_source *source, uint32_t events) {
    return loop_source_modify(&source->source, events);
}

static void api_unwatch_fd(struct vmibus_sensor_source *source) {
    if (!source)
        return;
    loop_source_deinit(&source->source);
    list_unlink(&source->link);
    free(source);
}

static void timer_fired(struct loop_timer *loop_timer) {
    struct vmibus_sensor_timer *timer = container_of(loop_timer, struct vmibus_sensor_timer, timer);

    timer->callback(timer->userdata);
}

static int api_timer_new(struct vmibus_sensor_host *host, void (*callback)(void *userdata), void *userdata,
                         struct vmibus_sensor_timer **timerp) {
    struct vmibus_sensor_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        return -ENOMEM;
    timer->callback = callback;
    timer->userdata = userdata;
    loop_timer_init(&timer->timer, host->loop, timer_fired);
    list_append(&host->timers, &timer->link);
    *timerp = timer;
    return 0;
}

static void api_timer_set(struct vmibus_sensor_timer *timer, uint64_t delay_ns) {
    loop_timer_cancel(&timer->timer);
    if (delay_ns)
        (void)loop_timer_set(&timer->timer, clock_now() + delay_ns);
}

static void api_timer_free(struct vmibus_sensor_timer *timer) {
    if (!timer)
        return;
    loop_timer_cancel(&timer->timer);
    list_unlink(&timer->link);
    free(timer);
}

static int api_work(struct vmibus_sensor_host *host, void (*work)(void *data), void (*done)(void *data), void *data) {
    return sensor_worker_run(&host->worker, work, done, data);
}

static uint64_t api_now(void) {
    return clock_now();
}

static int api_saved(struct vmibus_sensor_host *host, struct vmibus_sensor_saved *state) {
    if (!host->saved)
        return -ENOENT;
    *state = *host->saved;
    return 0;
}

const struct vmibus_sensor_api sensor_api = {
    .struct_size = sizeof(sensor_api),
    .abi = VMIBUS_SENSOR_ABI,
    .announce = api_announce,
    .offer = api_offer,
    .withdraw = api_withdraw,
    .publish = api_publish,
    .complete = api_complete,
    .layout = api_layout,
    .root = api_root,
    .end_epoch = api_end_epoch,
    .memory_busy = api_memory_busy,
    .attach = api_attach,
    .detach = api_detach,
    .watch_fd = api_watch_fd,
    .change_fd = api_change_fd,
    .unwatch_fd = api_unwatch_fd,
    .timer_new = api_timer_new,
    .timer_set = api_timer_set,
    .timer_free = api_timer_free,
    .work = api_work,
    .now = api_now,
    .complete_with = api_complete_with,
    .provide = api_provide,
    .identify = api_identify,
    .saved = api_saved,
};

/* --- coming and going -------------------------------------------------------------------------- */

void sensor_api_init(struct vmibus_sensor_host *host) {
    list_init(&host->endpoints);
    list_init(&host->sources);
    list_init(&host->timers);
}

void sensor_api_deinit(struct vmibus_sensor_host *host) {
    struct vmibus_sensor_endpoint *endpoint;

    while ((endpoint = list_first(&host->endpoints, struct vmibus_sensor_endpoint, link))) {
        if (!endpoint->answered)
            sensor_endpoint_free(endpoint); /* it ends with the channel */
        else
            api_withdraw(endpoint, VMIBUS_REASON_WITHDRAWN);
    }
    host->n_unanswered = 0;
    while (!list_is_empty(&host->sources))
        api_unwatch_fd(list_first(&host->sources, struct vmibus_sensor_source, link));
    while (!list_is_empty(&host->timers))
        api_timer_free(list_first(&host->timers, struct vmibus_sensor_timer, link));
}
