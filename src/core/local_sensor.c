/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/local_sensor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "bus/bus.h"
#include "bus/sensor_place.h"
#include "core/core.h"
#include "core/handover.h"
#include "host/sensor_inbox.h"
#include "host/sensor_observer.h"
#include "memory/authority.h"
#include "util/clock.h"

static struct local_sensor *local_of(struct vmibus_sensor_host *host) {
    return container_of(host, struct local_sensor, host);
}

/* --- the channels ------------------------------------------------------------------------------ */

static void say(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    if (!local_of(host)->handed_over)
        sensor_hear(&local_of(host)->sensor, frame, tail, fds);
}

/* An authority in another process takes no memory from this one: whoever brings some has a process of its own too. */
static void refuse_memory(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    struct vmibus_frame answer = {
        .header = frame->header,
        .ack = {.error = VMIBUS_ERROR_UNSUPPORTED, .reason = VMIBUS_REASON_NOT_BUILT, .command = frame->header.kind},
    };

    answer.header.kind = VMIBUS_KIND_ACK;
    answer.header.direction = VMIBUS_DIRECTION_UP;
    answer.header.tail_length = 0;
    answer.header.fd_count = 0;
    answer.ack.finished = clock_now();
    sensor_inbox_hear_memory(host, &answer, NULL, NULL);
}

static void submit(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct local_sensor *local = local_of(host);

    if (local->handed_over)
        return;
    if (local->memory)
        authority_client_submit(local->memory, frame, tail, fds, frame->header.timestamp);
    else
        refuse_memory(host, frame);
}

static const struct sensor_channel_ops channel_ops = {.say = say, .submit = submit};

static void bus_sends(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    sensor_inbox_hear_bus(&container_of(sensor, struct local_sensor, sensor)->host, frame, tail);
}

static const struct sensor_ops sensor_ops = {.send = bus_sends};

static void memory_says(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct local_sensor *local = context;

    sensor_inbox_hear_memory(&local->host, frame, tail, fds);
}

/* A sensor in this process cannot be disconnected. */
static const struct authority_client_ops memory_ops = {.reply = memory_says};

/* --- what it sees ------------------------------------------------------------------------------ */

static void take_observations(struct loop_deferred *deferred) {
    struct local_sensor *local = container_of(deferred, struct local_sensor, observe);
    struct control_item item;

    while (control_take(&local->observer, &item)) {
        sensor_observer_hear(&local->host, &item.frame, item.tail ? item.tail->data : NULL);
        control_item_deinit(&item);
    }
}

static void observer_wake(struct control *control) {
    loop_defer(&container_of(control, struct local_sensor, observer)->observe);
}

static void observer_fail(struct control *control) {
    (void)control; /* only a control that takes nothing fails, and this one takes everything */
}

static const struct control_ops observer_ops = {.wake = observer_wake, .fail = observer_fail};

static int begin_observing(struct local_sensor *local, const uint8_t *session) {
    struct vmibus_frame frame;
    struct vmibus_ack refusal = {};
    int r = control_init(&local->observer, local->core->bus, &local->core->self, session, &observer_ops, &refusal);

    if (r)
        return r < 0 ? r : -EUSERS;
    local->observes = true;
    sensor_observer_subscribe(&frame);
    control_submit(&local->observer, &frame, SENSOR_OBSERVER_PATTERN, clock_now());
    /* What is there already is replayed, and nobody is woken for that: an answer would, and there is none. */
    observer_wake(&local->observer);
    return 0;
}

/* --- coming and going -------------------------------------------------------------------------- */

static int open_channels(struct local_sensor *local) {
    const struct vmibus_sensor_module *module = local->host.module;
    struct vmibus_core *core = local->core;
    uint8_t session[16];
    int r;

    if (getrandom(session, sizeof(session), 0) != sizeof(session))
        return -errno;
    r = sensor_init(&local->sensor, core->bus, &sensor_ops);
    if (r)
        return r < 0 ? r : -EUSERS;
    memcpy(local->sensor.session, session, sizeof(local->sensor.session));
    strncpy(local->sensor.name, module->name, sizeof(local->sensor.name) - 1);
    sensor_place_take(&local->sensor);
    local->sensor.groups = module->groups;
    local->sensor.fallback = module->fallback;
    local->sensor.keeps = sensor_module_has(module, save);
    if (core->authority)
        r = authority_client_new(&local->memory, core->authority, session, &core->self, local->account, &local->region,
                                 VMIBUS_ROLE_SENSOR, &memory_ops, local);
    if (r)
        return r < 0 ? r : -EUSERS;
    return sensor_module_observes(module) ? begin_observing(local, session) : 0;
}

int local_sensor_new(struct vmibus_core *core, struct sensor_library library, const struct vmibus_sensor_option *options,
                     size_t n_options) {
    struct local_sensor *local = NULL;
    int r = sensor_module_check(library.module);

    if (r == 0) {
        local = calloc(1, sizeof(*local));
        r = local ? 0 : -ENOMEM;
    }
    if (!local) {
        sensor_library_unload(&library);
        return r;
    }
    local->core = core;
    local->library = library;
    sensor_host_init(&local->host, core->loop, library.module, &channel_ops, core->bus->options.tail_bound);
    loop_deferred_init(&local->observe, core->loop, take_observations);
    list_append(&core->sensors, &local->link);
    r = ledger_ref_account(&core->ledger, core->self.uid, core->policy->limits, &local->account);
    if (r == 0) {
        region_init(&local->region, &core->bus->regions, local->account);
        r = open_channels(local);
    }
    local->host.saved = core_find_saved(core, library.module->name);
    if (r == 0)
        r = sensor_host_start(&local->host, options, n_options);
    local->host.saved = NULL;
    if (r < 0)
        local_sensor_free(local);
    return r;
}

void local_sensor_stop_handed_over(struct local_sensor *local) {
    local->handed_over = true;
    sensor_host_stop(&local->host);
}

struct local_sensor *local_sensor_free(struct local_sensor *local) {
    if (!local)
        return NULL;
    if (local->observes)
        control_deinit(&local->observer);
    loop_deferred_cancel(&local->observe);
    sensor_host_stop(&local->host);
    local->memory = authority_client_free(local->memory);
    if (local->sensor.bus)
        sensor_deinit(&local->sensor);
    sensor_host_deinit(&local->host);
    region_deinit(&local->region);
    account_unref(local->account);
    list_unlink(&local->link);
    sensor_library_unload(&local->library);
    free(local);
    return NULL;
}

int local_sensor_load(struct vmibus_core *core, const char *path, const struct sensor_expectation *expected,
                      const struct vmibus_sensor_option *options, size_t n_options) {
    struct sensor_library library;
    int r = sensor_library_load(&library, path, expected);

    return r < 0 ? r : local_sensor_new(core, library, options, n_options);
}

int vmibus_core_load_sensor(struct vmibus_core *core, const char *path, const struct vmibus_sensor_option *options,
                            size_t n_options) {
    return local_sensor_load(core, path, NULL, options, n_options);
}

int vmibus_core_add_sensor(struct vmibus_core *core, const struct vmibus_sensor_module *module,
                           const struct vmibus_sensor_option *options, size_t n_options) {
    const struct sensor_library library = {.module = module};

    return local_sensor_new(core, library, options, n_options);
}
