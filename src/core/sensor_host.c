/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/sensor_host.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "bus/bus.h"
#include "core/core.h"
#include "core/sensor_api.h"
#include "core/sensor_inbox.h"
#include "core/sensor_observer.h"
#include "memory/authority.h"

static int open_channels(struct vmibus_sensor_host *host) {
    struct vmibus_core *core = host->core;
    uint8_t session[16];
    int r;

    if (getrandom(session, sizeof(session), 0) != sizeof(session))
        return -errno;
    r = sensor_init(&host->sensor, core->bus, &sensor_inbox_ops);
    if (r)
        return r < 0 ? r : -EUSERS;
    strncpy(host->sensor.name, host->module->name, sizeof(host->sensor.name) - 1);
    host->sensor.groups = host->module->groups;
    host->sensor.fallback = host->module->fallback;
    r = authority_client_new(&host->memory, core->authority, session, &core->self, host->account, &host->region, VMIBUS_ROLE_SENSOR,
                             &sensor_inbox_memory_ops, host);
    if (r)
        return r < 0 ? r : -EUSERS;
    if (host->module->endpoint_appeared || host->module->memctx_changed)
        return sensor_observer_start(host, session);
    return 0;
}

static int check_module(const struct vmibus_sensor_module *module, const struct sensor_expectation *expected) {
    if (!module || module->abi != VMIBUS_SENSOR_ABI || module->struct_size < SENSOR_MODULE_LEAST)
        return -ELIBBAD;
    if (expected && (strcmp(module->name, expected->name) != 0 || module->groups != expected->groups ||
                     module->fallback != expected->fallback))
        return -ENOTUNIQ;
    return 0;
}

int sensor_host_new(struct vmibus_core *core, const struct vmibus_sensor_module *module, void *library,
                    const struct vmibus_sensor_option *options, size_t n_options) {
    struct vmibus_sensor_host *host = NULL;
    int r = 0;

    r = check_module(module, NULL);
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
    sensor_api_init(host);
    sensor_inbox_init(host, core->loop);
    sensor_observer_init(host, core->loop);
    sensor_worker_init(&host->worker, core->loop);
    list_append(&core->sensor_hosts, &host->link);
    r = ledger_ref_account(&core->ledger, core->self.uid, core->policy->limits, &host->account);
    if (r == 0) {
        region_init(&host->region, &core->bus->regions, host->account);
        r = open_channels(host);
    }
    if (r == 0)
        r = module->start(host, &sensor_api, options, n_options, &host->instance);
    if (r < 0)
        sensor_host_free(host);
    else
        host->started = true;
    return r;
}

struct vmibus_sensor_host *sensor_host_free(struct vmibus_sensor_host *host) {
    if (!host)
        return NULL;
    sensor_observer_deinit(host);
    sensor_worker_deinit(&host->worker);
    if (host->started)
        host->module->stop(host->instance);
    sensor_api_deinit(host);
    host->memory = authority_client_free(host->memory);
    if (host->sensor.bus)
        sensor_deinit(&host->sensor);
    sensor_inbox_deinit(host);
    region_deinit(&host->region);
    account_unref(host->account);
    list_unlink(&host->link);
    if (host->library)
        dlclose(host->library);
    free(host);
    return NULL;
}

int sensor_host_load(struct vmibus_core *core, const char *path, const struct sensor_expectation *expected,
                     const struct vmibus_sensor_option *options, size_t n_options) {
    const struct vmibus_sensor_module *module;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    int r;

    if (!library)
        return -ELIBACC;
    module = dlsym(library, "vmibus_sensor_module");
    r = check_module(module, expected);
    if (r < 0) {
        dlclose(library);
        return r;
    }
    return sensor_host_new(core, module, library, options, n_options);
}

int vmibus_core_load_sensor(struct vmibus_core *core, const char *path, const struct vmibus_sensor_option *options,
                            size_t n_options) {
    return sensor_host_load(core, path, NULL, options, n_options);
}
