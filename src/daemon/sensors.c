/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sensors.h"

#include <errno.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/core.h>
#include <vmibus/names.h>

#include "core/local_sensor.h"
#include "daemon/log.h"
#include "daemon/sensor_module.h"

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

static int load(struct vmibus_core *core, const struct config *config, struct config_sensor *sensor) {
    struct sensor_module module;
    int r = sensor_module_find(&module, config, sensor);

    if (r < 0)
        return r;
    r = local_sensor_load(core, module.path, &module.expected, sensor->options, sensor->n_options);
    if (r < 0)
        sensor_module_tell(sensor, &module, r);
    return r;
}

unsigned sensors_load(struct vmibus_core *core, const struct config *config) {
    struct config_sensor *sensor;
    unsigned failed = 0;

    list_for_each(sensor, &config->sensors, link)
        if (!sensor->apart && load(core, config, sensor) < 0)
            failed++;
    return failed;
}
