/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/sensor_host.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "bus/bus.h"
#include "core/core.h"
#include "memory/authority.h"
#include "util/clock.h"
#include "util/fds.h"

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

/* An answer of the authority on its way to the module. */
struct reply {
    struct list link;
    struct vmibus_frame frame;
    void *tail;
    int fds[VMIBUS_FDS_PER_FRAME];
};

static struct vmibus_sensor_host *host_of(struct sensor *sensor) {
    return container_of(sensor, struct vmibus_sensor_host, sensor);
}

static struct vmibus_sensor_endpoint *find_endpoint(struct vmibus_sensor_host *host, const struct vmibus_header *header) {
    struct vmibus_sensor_endpoint *endpoint;

    list_for_each(endpoint, &host->endpoints, link)
        if (endpoint->slot == header->slot && endpoint->generation == header->generation)
            return endpoint;
    return NULL;
}

/* --- endpoints --------------------------------------------------------------------------------- */

static void endpoint_detach_ram(struct vmibus_sensor_endpoint *endpoint) {
    fds_close(endpoint->fds, endpoint->n_fds);
    free(endpoint->ranges);
    endpoint->ranges = NULL;
    endpoint->n_ranges = endpoint->n_fds = 0;
    endpoint->attached = 0;
}

static struct vmibus_sensor_endpoint *endpoint_handle_new(struct vmibus_sensor_host *host, void *userdata, uint32_t groups) {
    struct vmibus_sensor_endpoint *endpoint = calloc(1, sizeof(*endpoint));

    if (!endpoint)
        return NULL;
    endpoint->host = host;
    endpoint->userdata = userdata;
    endpoint->groups = groups;
    list_append(&host->endpoints, &endpoint->link);
    return endpoint;
}

static void endpoint_handle_free(struct vmibus_sensor_endpoint *endpoint) {
    endpoint_detach_ram(endpoint);
    list_unlink(&endpoint->link);
    free(endpoint);
}

static void say(struct vmibus_sensor_endpoint *endpoint, struct vmibus_frame *frame, const void *tail, size_t tail_length) {
    frame->header.direction = VMIBUS_DIRECTION_UP;
    frame->header.version = VMIBUS_PROTOCOL_VERSION;
    frame->header.slot = endpoint->slot;
    frame->header.generation = endpoint->generation;
    frame->header.tail_length = (uint32_t)tail_length;
    if (!frame->header.timestamp)
        frame->header.timestamp = clock_now();
    sensor_hear(&endpoint->host->sensor, frame, tail);
}

/* Says something on the memory channel. */
static int say_memory(struct vmibus_sensor_endpoint *endpoint, struct vmibus_frame *frame, const void *tail, size_t tail_length,
                      const int *fds, size_t n_fds) {
    if (!endpoint->slot || endpoint->withdrawn)
        return -ENODEV;
    frame->header.version = VMIBUS_PROTOCOL_VERSION;
    frame->header.slot = endpoint->slot;
    frame->header.generation = endpoint->generation;
    frame->header.tail_length = (uint32_t)tail_length;
    frame->header.fd_count = (uint8_t)n_fds;
    frame->header.timestamp = clock_now();
    authority_client_submit(endpoint->host->memory, frame, tail, fds, frame->header.timestamp);
    return 0;
}

/* --- what a module may ask --------------------------------------------------------------------- */

static int api_announce(struct vmibus_sensor_host *host, enum vmibus_sensor_state state, const char *message) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .tail_length = message ? (uint32_t)strlen(message) : 0},
        .sensor_announce = {.state = (uint8_t)state, .groups = host->module->groups, .fallback = host->module->fallback},
    };

    strncpy((char *)frame.sensor_announce.name, host->module->name, sizeof(frame.sensor_announce.name) - 1);
    sensor_hear(&host->sensor, &frame, message);
    return 0;
}

static int api_offer(struct vmibus_sensor_host *host, const struct vmibus_sensor_offer *offer, void *userdata,
                     struct vmibus_sensor_endpoint **endpointp) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER},
        .endpoint_offer = {.start_time = offer->start_time, .pid = offer->pid, .groups = offer->groups},
    };
    size_t length = strlen(offer->name);
    struct vmibus_sensor_endpoint *endpoint;

    if (length == 0 || offer->groups == 0)
        return -EINVAL;
    if (length > VMIBUS_NAME_BOUND)
        return -E2BIG;
    endpoint = endpoint_handle_new(host, userdata, offer->groups);
    if (!endpoint)
        return -ENOMEM;
    memcpy(frame.endpoint_offer.uuid, offer->uuid, sizeof(offer->uuid));
    frame.header.correlation = (uint64_t)(uintptr_t)endpoint;
    *endpointp = endpoint;
    say(endpoint, &frame, offer->name, length);
    return 0;
}

static void api_withdraw(struct vmibus_sensor_endpoint *endpoint, enum vmibus_reason reason) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_WITHDRAW},
        .endpoint_withdraw = {.reason = (uint16_t)reason},
    };

    endpoint->withdrawn = true;
    if (endpoint->slot)
        say(endpoint, &frame, NULL, 0);
    endpoint_handle_free(endpoint);
}

static int api_publish(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame, const void *tail,
                       size_t tail_length) {
    struct vmibus_frame copy = *frame;

    if (!endpoint->slot || endpoint->withdrawn)
        return -ENODEV;
    say(endpoint, &copy, tail, tail_length);
    return 0;
}

static void api_complete(struct vmibus_sensor_host *host, uint64_t id, const struct vmibus_ack *ack) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ACK,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .correlation = id},
        .ack = *ack,
    };

    sensor_hear(&host->sensor, &frame, NULL);
}

static int api_layout(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_sensor_layout *layout) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEM_LAYOUT, .direction = VMIBUS_DIRECTION_UP},
        .mem_layout = {.start_time = layout->start_time, .pid = layout->pid, .range_count = (uint16_t)layout->n_ranges},
    };

    if (layout->n_ranges > UINT16_MAX || layout->n_fds > VMIBUS_FDS_PER_FRAME)
        return -E2BIG;
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

    if (endpoint->attached == epoch)
        endpoint_detach_ram(endpoint);
    return say_memory(endpoint, &frame, NULL, 0, NULL, 0);
}

static void source_ready(struct loop_source *source, uint32_t events) {
    struct vmibus_sensor_source *watched = container_of(source, struct vmibus_sensor_source, source);

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
    r = loop_source_init(&watched->source, host->core->loop, fd, events, source_ready);
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
    loop_timer_init(&timer->timer, host->core->loop, timer_fired);
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

static const struct vmibus_sensor_api api = {
    .struct_size = sizeof(api),
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
};

/* --- what the bus sends ------------------------------------------------------------------------ */

static void hear_offer_answer(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    struct vmibus_sensor_endpoint *endpoint;

    list_for_each(endpoint, &host->endpoints, link)
        if ((uint64_t)(uintptr_t)endpoint == frame->header.correlation) {
            endpoint->slot = frame->header.slot;
            endpoint->generation = frame->header.generation;
            break;
        }
    if (frame->ack.error)
        api_announce(host, VMIBUS_SENSOR_STATE_DEGRADED, "a VM was not accepted: every endpoint slot is in use, raise max-endpoints");
}

static void hear_command(struct vmibus_sensor_host *host, struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame,
                         const void *tail) {
    const struct vmibus_sensor_command command = {.id = frame->header.correlation, .frame = frame, .tail = tail};
    int r = -ENODEV;

    if (endpoint && !endpoint->withdrawn && host->module->execute)
        r = host->module->execute(host->instance, endpoint->userdata, &command);
    if (r < 0) {
        const struct vmibus_ack ack = {
            .error = r == -ENODEV ? VMIBUS_ERROR_GONE : VMIBUS_ERROR_IO,
            .reason = r == -ENODEV ? VMIBUS_REASON_WITHDRAWN : VMIBUS_REASON_SENSOR_FAILED,
            .value = (uint64_t)-r,
        };

        api_complete(host, command.id, &ack);
    }
}

static void bus_sends(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_sensor_host *host = host_of(sensor);
    struct vmibus_sensor_endpoint *endpoint;

    if (frame->header.kind == VMIBUS_KIND_ACK) {
        hear_offer_answer(host, frame);
        return;
    }
    endpoint = find_endpoint(host, &frame->header);
    switch (frame->header.kind) {
    case VMIBUS_KIND_CANCEL:
        if (endpoint && host->module->cancel)
            host->module->cancel(host->instance, endpoint->userdata, frame->header.correlation);
        break;
    case VMIBUS_KIND_DEMAND:
        if (endpoint && host->module->demand)
            host->module->demand(host->instance, endpoint->userdata, frame->demand.kinds);
        break;
    default:
        hear_command(host, endpoint, frame, tail);
        break;
    }
}

static const struct sensor_ops bus_ops = {.send = bus_sends};

/* --- what the authority answers ---------------------------------------------------------------- */

static void reply_free(struct reply *reply) {
    fds_close(reply->fds, reply->frame.header.fd_count);
    free(reply->tail);
    free(reply);
}

/* An answer that cannot be kept is as good as one that never came: the sensor's own timeouts see to it. */
static void memory_replied(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct vmibus_sensor_host *host = context;
    struct reply *reply = calloc(1, sizeof(*reply));

    if (!reply)
        return;
    reply->frame = *frame;
    reply->frame.header.fd_count = 0;
    if (frame->header.tail_length) {
        reply->tail = malloc(frame->header.tail_length);
        if (!reply->tail) {
            reply_free(reply);
            return;
        }
        memcpy(reply->tail, tail, frame->header.tail_length);
    }
    for (size_t i = 0; i < frame->header.fd_count; i++) {
        int fd = fd_dup(fds[i]);

        if (fd < 0) {
            reply_free(reply);
            return;
        }
        reply->fds[reply->frame.header.fd_count++] = fd;
    }
    list_append(&host->replies, &reply->link);
    loop_defer(&host->reply);
}

static void hand_on_ram(struct vmibus_sensor_host *host, struct vmibus_sensor_endpoint *endpoint, struct reply *reply) {
    const struct vmibus_ack *ack = &reply->frame.ack;
    struct vmibus_sensor_ram ram;

    if (!host->module->attached)
        return;
    if (ack->error || reply->frame.header.fd_count == 0) {
        host->module->attached(host->instance, endpoint->userdata, NULL, (enum vmibus_error)ack->error,
                               (enum vmibus_reason)ack->reason);
        return;
    }
    endpoint_detach_ram(endpoint);
    endpoint->attached = ack->epoch;
    endpoint->ranges = reply->tail;
    endpoint->n_ranges = reply->frame.header.tail_length / sizeof(*endpoint->ranges);
    endpoint->n_fds = reply->frame.header.fd_count;
    memcpy(endpoint->fds, reply->fds, sizeof(endpoint->fds));
    reply->tail = NULL;
    reply->frame.header.fd_count = 0;
    ram = (struct vmibus_sensor_ram){
        .epoch = endpoint->attached,
        .ranges = endpoint->ranges,
        .n_ranges = endpoint->n_ranges,
        .fds = endpoint->fds,
        .n_fds = endpoint->n_fds,
    };
    host->module->attached(host->instance, endpoint->userdata, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

static void hand_on(struct vmibus_sensor_host *host, struct reply *reply) {
    struct vmibus_sensor_endpoint *endpoint = find_endpoint(host, &reply->frame.header);
    const struct vmibus_ack *ack = &reply->frame.ack;
    enum vmibus_error error = (enum vmibus_error)ack->error;
    enum vmibus_reason reason = (enum vmibus_reason)ack->reason;

    if (!endpoint)
        return;
    switch (ack->command) {
    case VMIBUS_KIND_MEM_LAYOUT:
        if (host->module->layout_result)
            host->module->layout_result(host->instance, endpoint->userdata, ack->epoch, error, reason);
        break;
    case VMIBUS_KIND_MEM_ROOT:
        if (host->module->root_result)
            host->module->root_result(host->instance, endpoint->userdata, ack->epoch, error, reason);
        break;
    case VMIBUS_KIND_MEM_ATTACH:
        hand_on_ram(host, endpoint, reply);
        break;
    default:
        break;
    }
}

static void hand_on_replies(struct loop_deferred *deferred) {
    struct vmibus_sensor_host *host = container_of(deferred, struct vmibus_sensor_host, reply);

    while (!list_is_empty(&host->replies)) {
        struct reply *reply = list_first(&host->replies, struct reply, link);

        list_unlink(&reply->link);
        hand_on(host, reply);
        reply_free(reply);
    }
}

/* --- what is observed ------------------------------------------------------------------------- */

/*
 * A sensor hears of memory contexts, its own VMs' too: the authority may end one by itself.  Of others' VMs it is told only if it
 * wants to add to them.
 */
static void appeared(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const struct tail *name) {
    struct vmibus_frame join = {.header = {.kind = VMIBUS_KIND_ENDPOINT_OFFER}};
    char text[VMIBUS_NAME_BOUND + 1] = "";
    struct vmibus_sensor_offer offer = {
        .name = text,
        .pid = frame->roster.pid,
        .start_time = frame->roster.start_time,
        .groups = frame->roster.groups,
    };
    struct vmibus_sensor_endpoint *endpoint = find_endpoint(host, &frame->header);

    if (endpoint || !name || !host->module->endpoint_appeared)
        return;
    endpoint = endpoint_handle_new(host, NULL, 0);
    if (!endpoint)
        return;
    memcpy(text, name->data, name->length < VMIBUS_NAME_BOUND ? name->length : VMIBUS_NAME_BOUND);
    memcpy(offer.uuid, frame->roster.uuid, sizeof(offer.uuid));
    endpoint->slot = frame->header.slot;
    endpoint->generation = frame->header.generation;
    join.header.correlation = (uint64_t)(uintptr_t)endpoint;
    say(endpoint, &join, name->data, name->length);
    host->module->endpoint_appeared(host->instance, endpoint, &offer, &endpoint->userdata);
}

static void vanished(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    struct vmibus_sensor_endpoint *endpoint = find_endpoint(host, &frame->header);

    if (!endpoint || endpoint->groups)
        return;
    endpoint->withdrawn = true;
    if (host->module->endpoint_vanished)
        host->module->endpoint_vanished(host->instance, endpoint->userdata);
    endpoint_handle_free(endpoint);
}

static void observed(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const struct tail *tail) {
    struct vmibus_sensor_endpoint *endpoint = find_endpoint(host, &frame->header);
    struct vmibus_memctx memctx = {};

    switch (frame->header.kind) {
    case VMIBUS_KIND_ROSTER:
        if (frame->roster.change == VMIBUS_ROSTER_CHANGE_ADDED)
            appeared(host, frame, tail);
        else
            vanished(host, frame);
        break;
    case VMIBUS_KIND_MEMCTX:
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        if (frame->header.kind == VMIBUS_KIND_MEMCTX) {
            memctx = frame->memctx;
        } else {
            memctx.epoch = frame->memctx_invalidated.epoch;
            memctx.reason = frame->memctx_invalidated.reason;
        }
        if (endpoint && host->module->memctx_changed)
            host->module->memctx_changed(host->instance, endpoint->userdata, &memctx);
        break;
    default:
        break;
    }
}

static void take_observations(struct loop_deferred *deferred) {
    struct vmibus_sensor_host *host = container_of(deferred, struct vmibus_sensor_host, observe);
    struct control_item item;

    while (control_take(&host->observer, &item)) {
        observed(host, &item.frame, item.tail);
        control_item_deinit(&item);
    }
}

static void observer_wake(struct control *control) {
    loop_defer(&container_of(control, struct vmibus_sensor_host, observer)->observe);
}

static void observer_fail(struct control *control) {
    (void)control; /* only a control that takes nothing fails, and this one takes everything */
}

static const struct control_ops observer_ops = {.wake = observer_wake, .fail = observer_fail};

/* What a sensor is told of the bus it learns as any control does. */
static int observe(struct vmibus_sensor_host *host, const uint8_t *session) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SUBSCRIBE,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .flags = VMIBUS_FRAME_NO_ACK,
                   .tail_length = 1},
        .subscribe = {.kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |
                               VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED)},
    };
    int r = control_init(&host->observer, host->core->bus, &host->core->self, session, &observer_ops);

    if (r)
        return r < 0 ? r : -EUSERS;
    host->observes = true;
    control_submit(&host->observer, &frame, "*", clock_now());
    return 0;
}

/* --- starting and stopping --------------------------------------------------------------------- */

static int open_channels(struct vmibus_sensor_host *host) {
    struct vmibus_core *core = host->core;
    uint8_t session[16];
    int r;

    if (getrandom(session, sizeof(session), 0) != sizeof(session))
        return -errno;
    r = sensor_init(&host->sensor, core->bus, &bus_ops);
    if (r)
        return r < 0 ? r : -EUSERS;
    strncpy(host->sensor.name, host->module->name, sizeof(host->sensor.name) - 1);
    host->sensor.groups = host->module->groups;
    host->sensor.fallback = host->module->fallback;
    r = authority_client_new(&host->memory, core->authority, session, &core->self, host->account, VMIBUS_ROLE_SENSOR, memory_replied,
                             host);
    if (r)
        return r < 0 ? r : -EUSERS;
    if (host->module->endpoint_appeared || host->module->memctx_changed)
        return observe(host, session);
    return 0;
}

int sensor_host_new(struct vmibus_core *core, const struct vmibus_sensor_module *module, void *library,
                    const struct vmibus_sensor_option *options, size_t n_options) {
    struct vmibus_sensor_host *host = NULL;
    int r = 0;

    if (module->abi != VMIBUS_SENSOR_ABI || module->struct_size < sizeof(*module))
        r = -ELIBBAD;
    if (r == 0) {
        host = calloc(1, sizeof(*host));
        r = host ? 0 : -ENOMEM;
    }
    if (r < 0) {
        if (library)
            dlclose(library);
        return r;
    }
    host->core = core;
    host->module = module;
    host->library = library;
    list_init(&host->endpoints);
    list_init(&host->replies);
    list_init(&host->sources);
    list_init(&host->timers);
    loop_deferred_init(&host->reply, core->loop, hand_on_replies);
    loop_deferred_init(&host->observe, core->loop, take_observations);
    sensor_worker_init(&host->worker, core->loop);
    list_append(&core->sensor_hosts, &host->link);
    r = ledger_ref_account(&core->ledger, core->self.uid, core->policy->limits, &host->account);
    if (r == 0)
        r = open_channels(host);
    if (r == 0)
        r = module->start(host, &api, options, n_options, &host->instance);
    if (r < 0)
        sensor_host_free(host);
    else
        host->started = true;
    return r;
}

struct vmibus_sensor_host *sensor_host_free(struct vmibus_sensor_host *host) {
    if (!host)
        return NULL;
    if (host->observes)
        control_deinit(&host->observer);
    sensor_worker_deinit(&host->worker);
    if (host->started)
        host->module->stop(host->instance);
    while (!list_is_empty(&host->endpoints))
        api_withdraw(list_first(&host->endpoints, struct vmibus_sensor_endpoint, link), VMIBUS_REASON_WITHDRAWN);
    while (!list_is_empty(&host->sources))
        api_unwatch_fd(list_first(&host->sources, struct vmibus_sensor_source, link));
    while (!list_is_empty(&host->timers))
        api_timer_free(list_first(&host->timers, struct vmibus_sensor_timer, link));
    host->memory = authority_client_free(host->memory);
    if (host->sensor.bus)
        sensor_deinit(&host->sensor);
    while (!list_is_empty(&host->replies)) {
        struct reply *reply = list_first(&host->replies, struct reply, link);

        list_unlink(&reply->link);
        reply_free(reply);
    }
    loop_deferred_cancel(&host->reply);
    loop_deferred_cancel(&host->observe);
    account_unref(host->account);
    list_unlink(&host->link);
    if (host->library)
        dlclose(host->library);
    free(host);
    return NULL;
}

int vmibus_core_load_sensor(struct vmibus_core *core, const char *path, const struct vmibus_sensor_option *options,
                            size_t n_options) {
    const struct vmibus_sensor_module *module;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return -ELIBACC;
    module = dlsym(library, "vmibus_sensor_module");
    if (!module) {
        dlclose(library);
        return -ELIBBAD;
    }
    return sensor_host_new(core, module, library, options, n_options);
}
