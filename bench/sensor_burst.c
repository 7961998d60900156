/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * burst: a sensor that publishes on command, for measuring.
 *
 * Its VMs are named burst-0, burst-1, and so on.  CMD_VM PAUSE publishes `burst` events of its VM at
 * once, CMD_VM RESUME one event every `pace_us` microseconds, `paced` times; CMD_POWER RESET publishes
 * `burst` events of all VMs in turns; anything else does nothing.  The command is answered first.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/sensor.h>
#include <vmibus/visibility.h>

#define NS_PER_US UINT64_C(1000)
#define VMS_MAXIMUM 1024

struct burst {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct vmibus_sensor_timer *timer;
    struct vmibus_sensor_endpoint *paced_endpoint;
    struct vmibus_sensor_endpoint **endpoints;
    unsigned vms, burst, pace_us, paced;
    unsigned paced_left;
    uint64_t due;
};

static void publish(struct burst *burst, struct vmibus_sensor_endpoint *endpoint) {
    const struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_LIFECYCLE},
        .lifecycle = {.state = VMIBUS_VM_STATE_RUNNING, .cause = VMIBUS_LIFECYCLE_CAUSE_OBSERVED},
    };

    burst->api->publish(endpoint, &frame, NULL, 0);
}

/* The times are those of the first one and its multiples, however late the timer comes. */
static void pace(void *userdata) {
    struct burst *burst = userdata;
    uint64_t now = burst->api->now();

    publish(burst, burst->paced_endpoint);
    burst->due += burst->pace_us * NS_PER_US;
    if (--burst->paced_left)
        burst->api->timer_set(burst->timer, burst->due > now ? burst->due - now : 1);
}

static void obey(struct burst *burst, struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame) {
    if (frame->header.kind == VMIBUS_KIND_CMD_VM && frame->cmd_vm.operation == VMIBUS_VM_OPERATION_RESUME) {
        burst->paced_endpoint = endpoint;
        burst->paced_left = burst->paced;
        burst->due = burst->api->now() + burst->pace_us * NS_PER_US;
        burst->api->timer_set(burst->timer, burst->pace_us * NS_PER_US);
        return;
    }
    if (frame->header.kind == VMIBUS_KIND_CMD_POWER && frame->cmd_power.operation != VMIBUS_POWER_OPERATION_RESET)
        return;
    for (unsigned i = 0; i < burst->burst; i++)
        publish(burst, frame->header.kind == VMIBUS_KIND_CMD_VM ? endpoint : burst->endpoints[i % burst->vms]);
}

static int burst_execute(void *instance, void *userdata, const struct vmibus_sensor_command *command) {
    const struct vmibus_frame frame = *command->frame;
    struct vmibus_sensor_endpoint **endpoint = userdata;
    struct burst *burst = instance;

    burst->api->complete(burst->host, command->id, &(struct vmibus_ack){.command = frame.header.kind});
    obey(burst, *endpoint, &frame);
    return 0;
}

static int parse_options(struct burst *burst, const struct vmibus_sensor_option *options, size_t n_options) {
    struct {
        const char *key;
        unsigned *value;
    } known[] = {{"vms", &burst->vms}, {"burst", &burst->burst}, {"pace_us", &burst->pace_us}, {"paced", &burst->paced}};

    for (size_t i = 0; i < n_options; i++) {
        size_t k = 0;

        while (k < 4 && strcmp(options[i].key, known[k].key) != 0)
            k++;
        if (k == 4)
            return -EINVAL;
        *known[k].value = (unsigned)strtoul(options[i].value, NULL, 10);
    }
    return burst->vms && burst->vms <= VMS_MAXIMUM && burst->pace_us ? 0 : -EINVAL;
}

static int offer(struct burst *burst) {
    burst->endpoints = calloc(burst->vms, sizeof(struct vmibus_sensor_endpoint *));
    if (!burst->endpoints)
        return -ENOMEM;
    for (unsigned i = 0; i < burst->vms; i++) {
        char name[32];
        const struct vmibus_sensor_offer vm = {.name = name, .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER};
        int r;

        snprintf(name, sizeof(name), "burst-%u", i);
        r = burst->api->offer(burst->host, &vm, &burst->endpoints[i], &burst->endpoints[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static void burst_stop(void *instance) {
    struct burst *burst = instance;

    burst->api->timer_free(burst->timer);
    free(burst->endpoints);
    free(burst);
}

static int burst_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                       const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    struct burst *burst = calloc(1, sizeof(*burst));
    int r;

    if (!burst)
        return -ENOMEM;
    *burst = (struct burst){.host = host, .api = api, .vms = 1, .burst = 1000, .pace_us = 1000, .paced = 1000};
    r = parse_options(burst, options, n_options);
    if (r == 0)
        r = api->timer_new(host, pace, burst, &burst->timer);
    if (r == 0)
        r = offer(burst);
    if (r < 0) {
        burst_stop(burst);
        return r;
    }
    api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
    *instancep = burst;
    return 0;
}

VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module;

const struct vmibus_sensor_module vmibus_sensor_module = {
    .struct_size = sizeof(vmibus_sensor_module),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "burst",
    .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER,
    .start = burst_start,
    .stop = burst_stop,
    .execute = burst_execute,
};
