/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stub sensor's module: start, stop, and handing on what the host says to the VM it concerns.
 * 
 */
#include "stub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <vmibus/visibility.h>

#include "stub_command.h"
#include "stub_options.h"
#include "stub_saved.h"
#include "stub_vm.h"

static void stub_stop(void *instance) {
    struct stub *stub = instance;
    uint32_t i;

    stub_jobs_free(stub);
    stub_saved_free(stub);
    for (i = 0; i < stub->options.vms; i++)
        stub_vm_deinit(&stub->vms[i]);
    free(stub->vms);
    free(stub);
}

/* Introduces a VM as it was before a restart, or as a fresh one; one that waited for its respawn has it now. */
static int offer(struct stub_vm *vm) {
    const struct vmibus_sensor_api *api = vm->stub->api;
    struct vmibus_sensor_saved saved;
    struct stub_saved_vm record;
    struct stub_ram *ram;

    if (VMIBUS_SENSOR_API_HAS(api, saved) && api->saved(vm->stub->host, &saved) == 0 &&
        stub_saved_find(&saved, vm->index, &record) && record.is_offered) {
        ram = stub_saved_ram(&saved, &record);
        if (ram)
            return stub_vm_offer_again(vm, &record, ram);
    }
    return stub_vm_offer(vm);
}

/*
 * What was offered before an error stays: the host withdraws what is left when start() fails.  No
 * work is given before nothing can fail any more: it could not be taken back.
 */
static int start_vms(struct stub *stub) {
    uint32_t i;
    int r = 0;

    for (i = 0; i < stub->options.vms && r == 0; i++)
        r = stub_vm_init(&stub->vms[i], stub, i);
    stub->options.vms = i;
    for (i = 0; i < stub->options.vms && r == 0; i++)
        r = offer(&stub->vms[i]);
    for (i = 0; i < stub->options.vms && r == 0; i++)
        stub_vm_go_on(&stub->vms[i]);
    return r;
}

static int stub_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                      const struct vmibus_sensor_option *options, size_t n_options,
                      void **instancep) {
    struct stub *stub = calloc(1, sizeof(*stub));
    char message[STUB_MESSAGE_BOUND];
    int r;

    if (!stub)
        return -ENOMEM;
    stub->host = host;
    stub->api = api;
    r = stub_options_parse(&stub->options, options, n_options, message);
    if (r < 0) {
        api->announce(host, VMIBUS_SENSOR_STATE_FAILED, message);
        free(stub);
        return r;
    }
    stub->vms = calloc(stub->options.vms + 1, sizeof(*stub->vms));
    r = stub->vms ? start_vms(stub) : -ENOMEM;
    if (r < 0) {
        snprintf(message, sizeof(message), "the synthetic VMs could not be made (errno %d)", -r);
        api->announce(host, VMIBUS_SENSOR_STATE_FAILED, message);
        stub->options.vms = stub->vms ? stub->options.vms : 0;
        stub_stop(stub);
        return r;
    }
    snprintf(message, sizeof(message), "%u synthetic VMs", stub->options.vms);
    api->announce(host, VMIBUS_SENSOR_STATE_READY, message);
    *instancep = stub;
    return 0;
}

static int stub_execute(void *instance, void *userdata,
                        const struct vmibus_sensor_command *command) {
    (void)instance;
    return stub_command_execute(userdata, command);
}

static void stub_cancel(void *instance, void *userdata, uint64_t id) {
    (void)instance;
    stub_command_cancel(userdata, id);
}

static void stub_layout_result(void *instance, void *userdata, uint64_t epoch,
                               enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    stub_vm_layout_result(userdata, epoch, error, reason);
}

static void stub_root_result(void *instance, void *userdata, uint64_t epoch,
                             enum vmibus_error error, enum vmibus_reason reason) {
    (void)instance;
    (void)epoch;
    stub_vm_root_result(userdata, error, reason);
}

static int stub_save(void *instance, struct vmibus_sensor_saved *saved) {
    return stub_saved_fill(instance, saved);
}

static void stub_offered(void *instance, void *userdata, bool kept) {
    (void)instance;
    stub_vm_offered(userdata, kept);
}

static void stub_retired(void *instance, void *userdata, uint64_t epoch) {
    (void)instance;
    stub_vm_retired(userdata, epoch);
}

const struct vmibus_sensor_module vmibus_stub_sensor = {
    .struct_size = sizeof(vmibus_stub_sensor),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "stub",
    .groups = STUB_GROUPS,
    .fallback = VMIBUS_GROUP_WATCH, /* where no sensor of its own watches */
    .start = stub_start,
    .stop = stub_stop,
    .execute = stub_execute,
    .cancel = stub_cancel,
    .layout_result = stub_layout_result,
    .root_result = stub_root_result,
    .retired = stub_retired,
    .save = stub_save,
    .offered = stub_offered,
};

/* What a loader looks for. Weak, so that several sensors can be linked into one program. */
VMIBUS_PUBLIC extern const struct vmibus_sensor_module vmibus_sensor_module
    __attribute__((weak, alias("vmibus_stub_sensor")));
