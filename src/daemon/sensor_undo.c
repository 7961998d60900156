/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sensor_undo.h"

#include "host/sensor_inbox.h"

/* --- a channel that leads nowhere -------------------------------------------------------------- */

static void say(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct sensor_undo *undo = container_of(host, struct sensor_undo, host);
    struct vmibus_frame answer = {
        .header = {.kind = VMIBUS_KIND_ACK, .direction = VMIBUS_DIRECTION_UP, .correlation = frame->header.correlation},
        .ack = {.command = VMIBUS_KIND_ENDPOINT_OFFER},
    };

    (void)tail;
    (void)fds;
    if (frame->header.kind != VMIBUS_KIND_ENDPOINT_OFFER)
        return;
    answer.header.slot = frame->header.slot ? frame->header.slot : ++undo->last_slot;
    answer.header.generation = answer.header.slot;
    sensor_inbox_hear_bus(host, &answer, NULL);
}

static void submit(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    (void)host;
    (void)frame;
    (void)tail;
    (void)fds;
}

static const struct sensor_channel_ops channel_ops = {.say = say, .submit = submit};

/* --- coming and going -------------------------------------------------------------------------- */

int sensor_undo_begin(struct sensor_undo *undo, struct loop *loop, const struct vmibus_sensor_module *module,
                      const struct vmibus_sensor_option *options, size_t n_options, const struct sensor_keeping *keeping) {
    int r;

    undo->last_slot = 0;
    sensor_host_init(&undo->host, loop, module, &channel_ops, VMIBUS_TAIL_BOUND_DEFAULT);
    undo->host.saved = sensor_keeping_state(keeping);
    r = sensor_host_start(&undo->host, options, n_options);
    undo->host.saved = NULL;
    if (r < 0) {
        sensor_host_stop(&undo->host);
        sensor_host_deinit(&undo->host);
        return r;
    }
    undo->is_running = true;
    return 0;
}

void sensor_undo_end(struct sensor_undo *undo, struct sensor_keeping *keeping) {
    if (!undo->is_running)
        return;
    (void)sensor_keeping_take(keeping, &undo->host); /* without memory it keeps nothing, as after a crash */
    sensor_host_stop(&undo->host);
    sensor_host_deinit(&undo->host);
    undo->is_running = false;
}
