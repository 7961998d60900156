/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "private_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/sensor.h>

/* The one that the sensor tells of: a sensor's options are text. */
static const struct private_vm *described;

/* Field 22 of proc(5)'s stat. The name of this program has no blank. */
static uint64_t start_time_of(pid_t pid) {
    unsigned long long start_time = 0;
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start_time) != 1)
        start_time = 0;
    fclose(file);
    return start_time;
}

static int sensor_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                        const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    const struct vmibus_layout_range range = {.len = PRIVATE_VM_RAM, .location = described->ram, .object = 0xffff};
    const struct vmibus_sensor_offer offer = {
        .name = "private",
        .pid = (uint32_t)described->pid,
        .start_time = start_time_of(described->pid),
        .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_MEMORY,
    };
    const struct vmibus_sensor_layout layout = {
        .pid = offer.pid,
        .start_time = offer.start_time,
        .ranges = &range,
        .n_ranges = 1,
    };
    struct vmibus_sensor_endpoint *endpoint;
    int r;

    (void)options;
    (void)n_options;
    *instancep = NULL;
    r = api->offer(host, &offer, NULL, &endpoint);
    if (r == 0)
        r = api->layout(endpoint, &layout);
    return r < 0 ? r : api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
}

static void sensor_stop(void *instance) {
    (void)instance;
}

static const struct vmibus_sensor_module sensor = {
    .struct_size = sizeof(sensor),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "private",
    .groups = VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_MEMORY,
    .start = sensor_start,
    .stop = sensor_stop,
};

static void heard(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct private_vm *vm = userdata;

    (void)bus;
    if (message->frame.header.kind != VMIBUS_KIND_MEMCTX)
        return;
    vm->endpoint.slot = message->frame.header.slot;
    vm->endpoint.generation = message->frame.header.generation;
    vm->epoch = message->frame.memctx.epoch;
}

/* A process that has all of its RAM, and waits. */
static int fork_vm(struct private_vm *vm) {
    void *ram = mmap(NULL, PRIVATE_VM_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char path[64], octet;
    int ready[2];

    if (ram == MAP_FAILED || pipe2(ready, O_CLOEXEC) < 0)
        return -errno;
    vm->ram = (uint64_t)(uintptr_t)ram;
    vm->pid = fork();
    if (vm->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memset(ram, 1, PRIVATE_VM_RAM);
        if (write(ready[1], "", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    close(ready[1]);
    if (vm->pid < 0 || read(ready[0], &octet, 1) != 1) {
        close(ready[0]);
        return -ECHILD;
    }
    close(ready[0]);
    munmap(ram, PRIVATE_VM_RAM);
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)vm->pid);
    vm->memory = open(path, O_RDWR | O_CLOEXEC);
    return vm->memory < 0 ? -errno : 0;
}

int private_vm_start(struct private_vm *vm) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};
    int r;

    *vm = (struct private_vm){.memory = -1};
    r = fork_vm(vm);
    described = vm;
    if (r == 0)
        r = vmibus_core_new(&vm->core, &options);
    if (r == 0)
        r = vmibus_core_add_sensor(vm->core, &sensor, NULL, 0);
    if (r == 0)
        r = vmibus_core_connect(vm->core, &vm->bus, "bench");
    if (r == 0) {
        vmibus_set_handler(vm->bus, heard, vm);
        r = vmibus_subscribe(vm->bus, "private", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    }
    while (r == 0 && !vm->epoch)
        r = vmibus_wait(vm->bus, 10000);
    return r > 0 ? -EACCES : r;
}

void private_vm_stop(struct private_vm *vm) {
    vmibus_free(vm->bus);
    vmibus_core_free(vm->core);
    if (vm->pid > 0) {
        kill(vm->pid, SIGKILL);
        waitpid(vm->pid, NULL, 0);
    }
    if (vm->memory >= 0)
        close(vm->memory);
    *vm = (struct private_vm){.memory = -1};
}
