/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sensor_module.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <vmibus/syscalls.h>

#include "daemon/log.h"

VMIBUS_SYSCALLS("mkdir mkdirat readlink readlinkat")

void sensor_module_tell(const struct config_sensor *sensor, const struct sensor_module *module, int r) {
    switch (r) {
    case -ELIBACC: {
        /* dlerror(3) knows what is missing, a library for instance. */
        const char *why = dlerror();

        log_error("sensor %s: %s cannot be loaded: %s", sensor->name, module->path, why ? why : "unknown reason");
        break;
    }
    case -ENOTUNIQ:
        log_error("sensor %s: %s is not what its manifest says: name, provides and fallback-only must be the module's own",
                  sensor->name, module->path);
        break;
    case -ELIBBAD:
        log_error("sensor %s: %s is no sensor of this version's interface; rebuild it", sensor->name, module->path);
        break;
    default:
        log_error("sensor %s: does not start: %s", sensor->name, strerror(-r));
        break;
    }
}

/* A sensor that keeps state gets a folder of its own in the state directory, unless the configuration names another. */
static int give_state_directory(const struct config *config, struct config_sensor *sensor) {
    char *directory = realpath(config->state_directory, NULL);
    char path[PATH_MAX];
    int r;

    if (!directory)
        return -errno;
    if (snprintf(path, sizeof(path), "%s/sensor-%s", directory, sensor->name) >= (int)sizeof(path))
        r = -ENAMETOOLONG;
    else
        r = mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : config_sensor_set(sensor, "state-directory", path);
    free(directory);
    return r;
}

static bool has_state_directory(const struct config_sensor *sensor) {
    for (size_t i = 0; i < sensor->n_options; i++)
        if (strcmp(sensor->options[i].key, "state-directory") == 0)
            return true;
    return false;
}

int sensor_module_find(struct sensor_module *module, const struct config *config, struct config_sensor *sensor) {
    const struct manifest *manifest = &module->manifest;
    struct config_error error = {};
    int r = manifest_read(&module->manifest, config->sensor_directory, sensor->name, &error);

    if (r == -ENOENT) {
        log_error("sensor %s: there is no %s/%s.sensor; is the package of that sensor installed?", sensor->name,
                  config->sensor_directory, sensor->name);
        return r;
    }
    if (r < 0) {
        log_error("%s/%s.sensor:%d: %s", config->sensor_directory, sensor->name, error.line,
                  error.text[0] ? error.text : strerror(-r));
        return r;
    }
    if (snprintf(module->path, sizeof(module->path), "%s/%s", config->sensor_directory, manifest->module) >=
        (int)sizeof(module->path)) {
        sensor_module_tell(sensor, module, -ENAMETOOLONG);
        return -ENAMETOOLONG;
    }
    module->expected =
        (struct sensor_expectation){.name = manifest->name, .groups = manifest->provides, .fallback = manifest->fallback};
    r = manifest->keeps_state && !has_state_directory(sensor) ? give_state_directory(config, sensor) : 0;
    if (r < 0)
        log_warning("sensor %s: it has nowhere to keep its state: %s: %s; give a directory with --state-directory", sensor->name,
                    config->state_directory, strerror(-r));
    return 0;
}
