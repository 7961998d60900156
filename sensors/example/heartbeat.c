/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * heartbeat: the shortest useful sensor, to be copied.
 *
 * It introduces one VM named "heartbeat", which sleeps and is woken.  While it is awake, a timer
 * publishes its run state over and over; after a few beats it sleeps again.  CMD_POWER WAKEUP wakes
 * it.
 *
 * Everything below runs on one thread, the host's loop: no locks.  Nothing below waits: a sensor
 * that has to wait watches a descriptor (watch_fd), sets a timer (timer_set), or gives the waiting
 * to the worker (work).  vmibus-sensor(7) explains every call.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/sensor.h>
#include <vmibus/visibility.h>

#define NS_PER_MS UINT64_C(1000000)
#define BEATS 5
#define INTERVAL_MS_DEFAULT 1000
#define INTERVAL_MS_MAXIMUM 3600000

/* All state of one instance. Nothing is global: an embedder may start the sensor twice. */
struct heartbeat {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct vmibus_sensor_endpoint *endpoint; /* the VM, as the host knows it */
    struct vmibus_sensor_timer *timer;
    uint64_t interval_ns;
    unsigned beats_left; /* 0: it sleeps */
};

/* An event is a frame: kind and body are ours, the host fills the rest of the header. */
static int publish(struct heartbeat *heartbeat, enum vmibus_lifecycle_cause cause, uint16_t flags) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_LIFECYCLE}};

    frame.lifecycle.state =
        heartbeat->beats_left ? VMIBUS_VM_STATE_RUNNING : VMIBUS_VM_STATE_SUSPENDED;
    frame.lifecycle.cause = (uint8_t)cause;
    frame.lifecycle.flags = flags;
    return heartbeat->api->publish(heartbeat->endpoint, &frame, NULL, 0);
}

/* A timer fires once; who wants more sets it again. */
static void beat(void *userdata) {
    struct heartbeat *heartbeat = userdata;

    heartbeat->beats_left--;
    publish(heartbeat,
            heartbeat->beats_left ? VMIBUS_LIFECYCLE_CAUSE_OBSERVED
                                  : VMIBUS_LIFECYCLE_CAUSE_SUSPENDED,
            0);
    if (heartbeat->beats_left)
        heartbeat->api->timer_set(heartbeat->timer, heartbeat->interval_ns);
}

/*
 * Executing a command: 0 promises that complete() follows, now or later, exactly once.  What the
 * command names was checked by the bus: lease, capability, deadline.  The frame is gone when this
 * function returns: a sensor that answers later copies what it needs.
 */
static int heartbeat_execute(void *instance, void *userdata,
                             const struct vmibus_sensor_command *command) {
    struct heartbeat *heartbeat = instance;
    struct vmibus_ack ack = {.command = command->frame->header.kind};

    (void)userdata; /* what offer() was given: with one VM, the instance says it all */
    if (command->frame->header.kind != VMIBUS_KIND_CMD_POWER ||
        command->frame->cmd_power.operation != VMIBUS_POWER_OPERATION_WAKEUP) {
        ack.error = VMIBUS_ERROR_UNSUPPORTED;
        ack.reason = VMIBUS_REASON_BAD_FIELD;
    } else if (heartbeat->beats_left == 0) {
        ack.started = heartbeat->api->now();
        heartbeat->beats_left = BEATS;
        heartbeat->api->timer_set(heartbeat->timer, heartbeat->interval_ns);
        publish(heartbeat, VMIBUS_LIFECYCLE_CAUSE_WAKEUP, VMIBUS_LIFECYCLE_BY_BUS);
        ack.count = 1; /* one VM woken; 0 where it is awake already */
    }
    /* Stamps that are left 0 are filled in. */
    heartbeat->api->complete(heartbeat->host, command->id, &ack);
    return 0;
}

/* Bad options are told in a sentence that names the option and what would be right. */
static int parse_options(struct heartbeat *heartbeat, const struct vmibus_sensor_option *options,
                         size_t n_options) {
    unsigned long interval_ms = INTERVAL_MS_DEFAULT;
    char *end;
    size_t i;

    for (i = 0; i < n_options; i++) {
        if (strcmp(options[i].key, "interval_ms") != 0)
            goto invalid;
        interval_ms = strtoul(options[i].value, &end, 10);
        if (end == options[i].value || *end || interval_ms == 0 ||
            interval_ms > INTERVAL_MS_MAXIMUM)
            goto invalid;
    }
    heartbeat->interval_ns = interval_ms * NS_PER_MS;
    return 0;

invalid:
    heartbeat->api->announce(
        heartbeat->host, VMIBUS_SENSOR_STATE_FAILED,
        "the one option is interval_ms, a number of milliseconds from 1 to 3600000");
    return -EINVAL;
}

/* Frees what start() made. The host withdraws the endpoint; sources and timers are ours to free. */
static void heartbeat_stop(void *instance) {
    struct heartbeat *heartbeat = instance;

    heartbeat->api->timer_free(heartbeat->timer);
    free(heartbeat);
}

static int heartbeat_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                           const struct vmibus_sensor_option *options, size_t n_options,
                           void **instancep) {
    struct vmibus_sensor_offer offer = {
        .name = "heartbeat",
        .groups = VMIBUS_GROUP_LIFECYCLE |
                  VMIBUS_GROUP_POWER, /* what we publish and execute for this VM */
    };
    struct heartbeat *heartbeat = calloc(1, sizeof(*heartbeat));
    int r;

    if (!heartbeat)
        return -ENOMEM;
    heartbeat->host = host;
    heartbeat->api = api;
    r = parse_options(heartbeat, options, n_options);
    if (r == 0)
        r = api->timer_new(host, beat, heartbeat, &heartbeat->timer);
    if (r == 0)
        r = api->offer(host, &offer, heartbeat, &heartbeat->endpoint);
    if (r == 0)
        r = publish(heartbeat, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, 0);
    if (r < 0) {
        heartbeat_stop(heartbeat);
        return r;
    }
    api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
    *instancep = heartbeat;
    return 0;
}

/* What the host looks for in the module. Functions that are not needed are left out. */
VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module;

const struct vmibus_sensor_module vmibus_sensor_module = {
    .struct_size = sizeof(vmibus_sensor_module),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "heartbeat",
    .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER,
    .start = heartbeat_start,
    .stop = heartbeat_stop,
    .execute = heartbeat_execute,
};
