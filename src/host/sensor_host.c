/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/sensor_host.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "host/sensor_api.h"
#include "host/sensor_inbox.h"
#include "host/sensor_observer.h"

int sensor_module_check(const struct vmibus_sensor_module *module) {
    if (!module || module->abi != VMIBUS_SENSOR_ABI || module->struct_size < SENSOR_MODULE_LEAST)
        return -ELIBBAD;
    return 0;
}

bool sensor_module_observes(const struct vmibus_sensor_module *module) {
    return module->endpoint_appeared || module->memctx_changed;
}

int sensor_library_load(struct sensor_library *library, const char *path, const struct sensor_expectation *expected) {
    int r;

    *library = (struct sensor_library){.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (!library->handle)
        return -ELIBACC;
    library->module = dlsym(library->handle, "vmibus_sensor_module");
    r = sensor_module_check(library->module);
    if (r == 0 && expected &&
        (strcmp(library->module->name, expected->name) != 0 || library->module->groups != expected->groups ||
         library->module->fallback != expected->fallback))
        r = -ENOTUNIQ;
    if (r < 0)
        sensor_library_unload(library);
    return r;
}

void sensor_library_unload(struct sensor_library *library) {
    if (library->handle)
        dlclose(library->handle);
    *library = (struct sensor_library){};
}

void sensor_host_init(struct vmibus_sensor_host *host, struct loop *loop, const struct vmibus_sensor_module *module,
                      const struct sensor_channel_ops *channel, uint32_t tail_bound) {
    *host = (struct vmibus_sensor_host){.loop = loop, .channel = channel, .module = module, .tail_bound = tail_bound};
    sensor_api_init(host);
    sensor_inbox_init(host);
    sensor_observer_init(host);
    sensor_worker_init(&host->worker, loop);
}

int sensor_host_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_option *options, size_t n_options) {
    int r = host->module->start(host, &sensor_api, options, n_options, &host->instance);

    host->started = r >= 0;
    return r;
}

int sensor_host_save(struct vmibus_sensor_host *host, struct vmibus_sensor_saved *state) {
    *state = (struct vmibus_sensor_saved){};
    if (!host->started || !sensor_module_has(host->module, save))
        return -ENOTSUP;
    return host->module->save(host->instance, state);
}

void sensor_host_stop(struct vmibus_sensor_host *host) {
    sensor_worker_deinit(&host->worker);
    if (host->started)
        host->module->stop(host->instance);
    host->started = false;
    sensor_api_deinit(host);
}

void sensor_host_deinit(struct vmibus_sensor_host *host) {
    sensor_inbox_deinit(host);
    sensor_observer_deinit(host);
}
