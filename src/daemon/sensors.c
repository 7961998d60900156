/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sensors.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <vmibus/client.h>
#include <vmibus/core.h>
#include <vmibus/names.h>

#include "core/sensor_host.h"
#include "daemon/log.h"
#include "daemon/manifest.h"

/* --- telling ----------------------------------------------------------------------------------- */

static void sensor_spoke(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    const struct vmibus_sensor *sensor = &message->frame.sensor;
    int length = (int)message->frame.header.tail_length;
    const char *text = length ? message->tail : "";
    const char *state = vmibus_sensor_state_name(sensor->state);

    (void)bus;
    (void)userdata;
    if (message->frame.header.kind != VMIBUS_KIND_SENSOR)
        return;
    log_line(sensor->state == VMIBUS_SENSOR_STATE_FAILED     ? LOG_LEVEL_ERROR
             : sensor->state == VMIBUS_SENSOR_STATE_DEGRADED ? LOG_LEVEL_WARNING
                                                             : LOG_LEVEL_INFO,
             "sensor %.31s: %s%s%.*s", (const char *)sensor->name, state ? state : "?", length ? ": " : "", length, text);
}

static void watch_ready(struct loop_source *source, uint32_t events) {
    struct sensor_watch *watch = container_of(source, struct sensor_watch, source);

    (void)events;
    if (vmibus_dispatch(watch->bus) < 0)
        sensor_watch_deinit(watch);
}

int sensor_watch_init(struct sensor_watch *watch, struct vmibus_core *core) {
    int r;

    *watch = (struct sensor_watch){};
    r = vmibus_core_connect(core, &watch->bus, "vmibusd");
    if (r)
        return r < 0 ? r : -EUSERS;
    vmibus_set_handler(watch->bus, sensor_spoke, NULL);
    r = vmibus_subscribe(watch->bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR));
    if (r == 0)
        r = loop_source_init(&watch->source, core->loop, vmibus_get_fd(watch->bus), EPOLLIN, watch_ready);
    if (r) {
        sensor_watch_deinit(watch);
        return r < 0 ? r : -EACCES;
    }
    return 0;
}

void sensor_watch_deinit(struct sensor_watch *watch) {
    loop_source_deinit(&watch->source);
    watch->bus = vmibus_free(watch->bus);
}

/* --- loading ----------------------------------------------------------------------------------- */

static void tell_failure(const char *sensor, const char *path, int r) {
    switch (r) {
    case -ELIBACC: {
        /* dlerror(3) knows what is missing, a library for instance. */
        const char *why = dlerror();

        log_error("sensor %s: %s cannot be loaded: %s", sensor, path, why ? why : "unknown reason");
        break;
    }
    case -ENOTUNIQ:
        log_error("sensor %s: %s is not what its manifest says: name, provides and fallback-only must be the module's own", sensor,
                  path);
        break;
    case -ELIBBAD:
        log_error("sensor %s: %s is no sensor of this version's interface; rebuild it", sensor, path);
        break;
    default:
        log_error("sensor %s: does not start: %s", sensor, strerror(-r));
        break;
    }
}

/* A sensor that keeps state gets a folder of its own in the state directory, unless the configuration names another. */
static int give_state_directory(const struct config *config, struct config_sensor *sensor) {
    char *directory = realpath(config->state_directory, NULL);
    char path[PATH_MAX];
    int r = 0;

    for (size_t i = 0; i < sensor->n_options; i++)
        if (strcmp(sensor->options[i].key, "state-directory") == 0)
            goto done;
    r = -ENAMETOOLONG;
    if (!directory || snprintf(path, sizeof(path), "%s/sensor-%s", directory, sensor->name) >= (int)sizeof(path))
        goto done;
    r = mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : config_sensor_set(sensor, "state-directory", path);
done:
    free(directory);
    return r;
}

static int load(struct vmibus_core *core, const struct config *config, struct config_sensor *sensor) {
    struct config_error error;
    struct sensor_expectation expected;
    struct manifest manifest;
    char path[PATH_MAX];
    int r;

    r = manifest_read(&manifest, config->sensor_directory, sensor->name, &error);
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
    if (snprintf(path, sizeof(path), "%s/%s", config->sensor_directory, manifest.module) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    expected = (struct sensor_expectation){.name = manifest.name, .groups = manifest.provides, .fallback = manifest.fallback};
    r = manifest.keeps_state ? give_state_directory(config, sensor) : 0;
    if (r < 0)
        log_warning("sensor %s: it has nowhere to keep its state: %s", sensor->name, strerror(-r));
    r = sensor_host_load(core, path, &expected, sensor->options, sensor->n_options);
    if (r < 0)
        tell_failure(sensor->name, path, r);
    return r;
}

unsigned sensors_load(struct vmibus_core *core, const struct config *config) {
    struct config_sensor *sensor;
    unsigned failed = 0;

    list_for_each(sensor, &config->sensors, link)
        if (load(core, config, sensor) < 0)
            failed++;
    return failed;
}
