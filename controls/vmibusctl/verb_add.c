/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl add, vmibusctl remove: VMs that a sensor follows by their monitors, and no more. */
#include <string.h>

#include "frame_json.h"
#include "report.h"

#define SENSOR_DEFAULT "qemu"
#define TEXT_MAX 511

static int command(struct vmibusctl *ctl, const struct arguments *arguments, enum vmibus_monitor_operation operation) {
    const char *sensor = arguments_get(arguments, "sensor"), *text = arguments->words[0];
    struct vmibus_frame frame;
    struct vmibus_message reply = {};
    int r;

    if (!sensor)
        sensor = SENSOR_DEFAULT;
    if (!*sensor || strlen(sensor) >= sizeof(frame.cmd_monitor.sensor))
        return vmibusctl_usage("sensor", sensor, "a sensor's name has 1 to 31 octets");
    if (!*text || strlen(text) > TEXT_MAX)
        return vmibusctl_usage("word", text, "it has 1 to 511 octets");
    vmibus_command_init(&frame, VMIBUS_KIND_CMD_MONITOR, NULL);
    frame.cmd_monitor.operation = (uint8_t)operation;
    memcpy(frame.cmd_monitor.sensor, sensor, strlen(sensor));
    r = vmibusctl_connect(ctl);
    if (r)
        return r;
    r = vmibus_call(ctl->bus, &frame, text, strlen(text), &reply);
    if (r == VMIBUS_ERROR_BUSY)
        r = report_refusal(ctl, r, &reply, "cannot add %s: a VM of that name is followed already, by another path",
                           printable(text));
    else if (r)
        r = report_refusal(ctl, r, &reply, "cannot %s %s", operation == VMIBUS_MONITOR_OPERATION_ADD ? "add" : "remove",
                           printable(text));
    else if (ctl->json)
        frame_json_print(frame_json_body(&reply.frame));
    vmibus_message_deinit(&reply);
    return r;
}

static int run_add(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *equals = strchr(arguments->words[0], '=');

    if (!equals || equals == arguments->words[0] || equals[1] != '/')
        return vmibusctl_usage("word", arguments->words[0], "NAME=PATH is wanted, with an absolute path of a QMP socket");
    return command(ctl, arguments, VMIBUS_MONITOR_OPERATION_ADD);
}

static int run_remove(struct vmibusctl *ctl, const struct arguments *arguments) {
    return command(ctl, arguments, VMIBUS_MONITOR_OPERATION_REMOVE);
}

static const struct option_description options[] = {
    {"sensor", "NAME", "which sensor (default " SENSOR_DEFAULT ")"},
    {},
};

const struct verb verb_add = {
    .name = "add",
    .synopsis = "NAME=PATH",
    .summary = "follow a VM by its monitor's socket, until the daemon ends",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run_add,
};

const struct verb verb_remove = {
    .name = "remove",
    .synopsis = "VM",
    .summary = "follow a VM no more; the VM itself is left alone",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run_remove,
};
