/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a virtual machine monitor tells a bus in its own process of its VM: a static sensor module. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvm/tiny_vmm.h"

struct instance {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct vmibus_sensor_endpoint *endpoint;
    uint64_t ram;
};

/* Field 22 of proc(5)'s stat; the name before it may hold anything, so the count begins after its last parenthesis. */
static uint64_t own_start_time(void) {
    char text[1024] = "";
    FILE *file = fopen("/proc/self/stat", "re");
    char *field, *rest;

    if (!file)
        return 0;
    if (!fread(text, 1, sizeof(text) - 1, file))
        text[0] = '\0';
    fclose(file);
    rest = strrchr(text, ')');
    for (int i = 2; rest && i < 22; i++) {
        field = strchr(rest + 1, ' ');
        rest = field;
    }
    return rest ? strtoull(rest, NULL, 10) : 0;
}

static int start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api, const struct vmibus_sensor_option *options,
                 size_t n_options, void **instancep) {
    const struct vmibus_sensor_offer offer = {
        .name = "tiny",
        .pid = (uint32_t)getpid(),
        .start_time = own_start_time(),
        .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_MEMORY,
    };
    struct instance *instance;
    int r;

    if (n_options != 1 || strcmp(options[0].key, "ram") != 0)
        return -EINVAL;
    instance = calloc(1, sizeof(*instance));
    if (!instance)
        return -ENOMEM;
    instance->host = host;
    instance->api = api;
    instance->ram = strtoull(options[0].value, NULL, 16);
    r = api->offer(host, &offer, instance, &instance->endpoint);
    if (r == 0) {
        const struct vmibus_layout_range range = {.gpa = 0, .len = TINY_RAM, .location = instance->ram, .object = 0xffff};
        const struct vmibus_sensor_layout layout = {
            .pid = offer.pid,
            .start_time = offer.start_time,
            .ranges = &range,
            .n_ranges = 1,
        };

        r = api->layout(instance->endpoint, &layout);
    }
    if (r < 0) {
        free(instance);
        return r;
    }
    *instancep = instance;
    return api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
}

static void stop(void *instance) {
    free(instance);
}

/* A guest without an operating system leaves no note: its vCPU's own table is all the evidence there is. */
static void layout_result(void *context, void *userdata, uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason) {
    const struct vmibus_mem_root root = {
        .epoch = epoch,
        .cr3 = 0x1000,
        .vcpu_cr3 = 0x1000,
        .probe_gva = TINY_KERNEL_BASE + 0x1000,
        .levels = 4,
        .confidence = VMIBUS_CONFIDENCE_SAMPLED,
    };
    struct instance *instance = context;

    (void)userdata;
    (void)reason;
    if (!error)
        (void)instance->api->root(instance->endpoint, &root);
}

const struct vmibus_sensor_module tiny_vmm_sensor = {
    .struct_size = sizeof(tiny_vmm_sensor),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "tiny-vmm",
    .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_MEMORY,
    .start = start,
    .stop = stop,
    .layout_result = layout_result,
};
