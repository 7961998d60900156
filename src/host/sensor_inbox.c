/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/sensor_inbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/sensor_api.h"
#include "host/sensor_host.h"
#include "host/sensor_observer.h"
#include "util/fault.h"
#include "util/fds.h"

/* An answer of the authority on its way to the module. */
struct reply {
    struct list link;
    struct vmibus_frame frame;
    void *tail;
    int fds[VMIBUS_FDS_PER_FRAME];
};

/* --- what the bus sends ------------------------------------------------------------------------ */

static void tell_offered(struct vmibus_sensor_host *host, const struct vmibus_sensor_endpoint *endpoint,
                         const struct vmibus_ack *ack) {
    if (!ack->error && !endpoint->withdrawn && endpoint->groups && sensor_module_has(host->module, offered))
        host->module->offered(host->instance, endpoint->userdata, ack->count != 0);
}

static void hear_offer_answer(struct vmibus_sensor_host *host, const struct vmibus_frame *frame) {
    struct vmibus_sensor_endpoint *endpoint;

    list_for_each(endpoint, &host->endpoints, link)
        if (endpoint->offer == frame->header.correlation) {
            bool is_first = !endpoint->answered;

            sensor_endpoint_answered(endpoint, &frame->header, (enum vmibus_error)frame->ack.error);
            if (is_first)
                tell_offered(host, endpoint, &frame->ack);
            break;
        }
    if (frame->ack.error == VMIBUS_ERROR_VALIDATION && frame->ack.reason == VMIBUS_REASON_SAME_VM)
        sensor_api.announce(host, VMIBUS_SENSOR_STATE_DEGRADED,
                            "a VM was not accepted: several VMs have its UUID, and its process is not known to tell which it is");
    /* Another sensor's VM may be gone by the time that somebody joins it. */
    if (frame->ack.error == VMIBUS_ERROR_PRESSURE)
        sensor_api.announce(host, VMIBUS_SENSOR_STATE_DEGRADED,
                            "a VM was not accepted: every endpoint slot is in use, raise max-endpoints");
    else if (frame->ack.error == VMIBUS_ERROR_QUOTA)
        sensor_api.announce(host, VMIBUS_SENSOR_STATE_DEGRADED,
                            "a VM was not accepted: the sensor offers as many as it may, raise sensor-endpoints");
    sensor_observer_go_on(host);
}

static void hear_command(struct vmibus_sensor_host *host, struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame,
                         const void *tail) {
    const struct vmibus_sensor_command command = {.id = frame->header.correlation, .frame = frame, .tail = tail};
    int r = -ENODEV;

    if (endpoint && !endpoint->withdrawn && host->module->execute)
        r = fault_hit(FAULT_MONITOR);
    if (r == 0)
        r = host->module->execute(host->instance, endpoint->userdata, &command);
    if (r < 0) {
        const struct vmibus_ack ack = {
            .error = r == -ENODEV ? VMIBUS_ERROR_GONE : VMIBUS_ERROR_IO,
            .reason = r == -ENODEV ? VMIBUS_REASON_WITHDRAWN : VMIBUS_REASON_SENSOR_FAILED,
            .value = (uint64_t)-r,
        };

        sensor_api.complete(host, command.id, &ack);
    }
}

/* For the sensor as such: only one that says so is given it, since there is no endpoint with it. */
static void hear_monitor_command(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_sensor_module *module = host->module;
    const struct vmibus_sensor_command command = {.id = frame->header.correlation, .frame = frame, .tail = tail};
    struct vmibus_ack ack = {.error = VMIBUS_ERROR_UNSUPPORTED, .reason = VMIBUS_REASON_BAD_KIND};
    int r;

    if (sensor_module_has(module, takes_monitors) && module->execute) {
        r = module->execute(host->instance, NULL, &command);
        if (r >= 0)
            return;
        ack = (struct vmibus_ack){
            .error = VMIBUS_ERROR_IO, .reason = VMIBUS_REASON_SENSOR_FAILED, .value = (uint64_t)-(int64_t)r};
    }
    sensor_api.complete(host, command.id, &ack);
}

void sensor_inbox_hear_bus(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_sensor_endpoint *endpoint;

    if (frame->header.kind == VMIBUS_KIND_ACK) {
        hear_offer_answer(host, frame);
        return;
    }
    endpoint = sensor_endpoint_find(host, &frame->header);
    switch (frame->header.kind) {
    case VMIBUS_KIND_CANCEL:
        if (endpoint && host->module->cancel)
            host->module->cancel(host->instance, endpoint->userdata, frame->header.correlation);
        break;
    case VMIBUS_KIND_DEMAND:
        if (endpoint && endpoint->appearing)
            endpoint->demand = frame->demand.kinds;
        else if (endpoint && host->module->demand)
            host->module->demand(host->instance, endpoint->userdata, frame->demand.kinds);
        break;
    case VMIBUS_KIND_ACTIVE:
        if (endpoint && sensor_module_has(host->module, active))
            host->module->active(host->instance, endpoint->userdata, frame->active.groups);
        break;
    case VMIBUS_KIND_CMD_MONITOR:
        hear_monitor_command(host, frame, tail);
        break;
    default:
        hear_command(host, endpoint, frame, tail);
        break;
    }
}

/* --- what the authority answers ---------------------------------------------------------------- */

static void reply_free(struct reply *reply) {
    fds_close(reply->fds, reply->frame.header.fd_count);
    free(reply->tail);
    free(reply);
}

/* An answer that cannot be kept is as good as one that never came: the sensor's own timeouts see to it. */
void sensor_inbox_hear_memory(struct vmibus_sensor_host *host, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct reply *reply = calloc(1, sizeof(*reply));

    if (!reply)
        return;
    reply->frame = *frame;
    reply->frame.header.fd_count = 0;
    if (frame->header.tail_length) {
        reply->tail = malloc(frame->header.tail_length);
        if (!reply->tail) {
            reply_free(reply);
            return;
        }
        memcpy(reply->tail, tail, frame->header.tail_length);
    }
    for (size_t i = 0; i < frame->header.fd_count; i++) {
        int fd = fd_dup(fds[i]);

        if (fd < 0) {
            reply_free(reply);
            return;
        }
        reply->fds[reply->frame.header.fd_count++] = fd;
    }
    list_append(&host->replies, &reply->link);
    loop_defer(&host->reply);
}

static void hand_on_ram(struct vmibus_sensor_host *host, struct vmibus_sensor_endpoint *endpoint, struct reply *reply) {
    const struct vmibus_ack *ack = &reply->frame.ack;
    struct vmibus_sensor_ram ram;

    if (host->has_pages && reply->frame.header.fd_count) {
        reply->frame.header.fd_count--;
        fd_close(reply->fds[reply->frame.header.fd_count]);
    }
    /* What the module cannot use holds nobody up. */
    if (!ack->error && (!host->module->attached || reply->frame.header.fd_count == 0))
        sensor_release(host, &reply->frame.header, ack->epoch);
    if (!host->module->attached)
        return;
    if (ack->error || reply->frame.header.fd_count == 0) {
        host->module->attached(host->instance, endpoint->userdata, NULL, (enum vmibus_error)ack->error,
                               (enum vmibus_reason)ack->reason);
        return;
    }
    sensor_endpoint_detach_ram(endpoint);
    endpoint->attached = ack->epoch;
    endpoint->ranges = reply->tail;
    endpoint->n_ranges = reply->frame.header.tail_length / sizeof(*endpoint->ranges);
    endpoint->n_fds = reply->frame.header.fd_count;
    memcpy(endpoint->fds, reply->fds, sizeof(endpoint->fds));
    reply->tail = NULL;
    reply->frame.header.fd_count = 0;
    ram = (struct vmibus_sensor_ram){
        .epoch = endpoint->attached,
        .ranges = endpoint->ranges,
        .n_ranges = endpoint->n_ranges,
        .fds = endpoint->fds,
        .n_fds = endpoint->n_fds,
        .pagemap_fd = -1,
    };
    if (ack->reason == VMIBUS_REASON_PRIVATE_RAM)
        ram.pagemap_fd = endpoint->fds[--ram.n_fds];
    host->module->attached(host->instance, endpoint->userdata, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

static void hand_on(struct vmibus_sensor_host *host, struct reply *reply) {
    struct vmibus_sensor_endpoint *endpoint = sensor_endpoint_find(host, &reply->frame.header);
    const struct vmibus_ack *ack = &reply->frame.ack;
    enum vmibus_error error = (enum vmibus_error)ack->error;
    enum vmibus_reason reason = (enum vmibus_reason)ack->reason;

    if (!endpoint) {
        /* Its handle was withdrawn while the RAM was on its way. */
        if (ack->command == VMIBUS_KIND_MEM_ATTACH && reply->frame.header.kind == VMIBUS_KIND_ACK && !error)
            sensor_release(host, &reply->frame.header, ack->epoch);
        return;
    }
    if (reply->frame.header.kind == VMIBUS_KIND_MEM_RETIRED) {
        if (sensor_module_has(host->module, retired))
            host->module->retired(host->instance, endpoint->userdata, reply->frame.mem_retired.epoch);
        return;
    }
    switch (ack->command) {
    case VMIBUS_KIND_MEM_LAYOUT:
        if (host->module->layout_result)
            host->module->layout_result(host->instance, endpoint->userdata, ack->epoch, error, reason);
        break;
    case VMIBUS_KIND_MEM_ROOT:
        if (host->module->root_result)
            host->module->root_result(host->instance, endpoint->userdata, ack->epoch, error, reason);
        break;
    case VMIBUS_KIND_MEM_ATTACH:
        hand_on_ram(host, endpoint, reply);
        break;
    default:
        break;
    }
}

static void hand_on_replies(struct loop_deferred *deferred) {
    struct vmibus_sensor_host *host = container_of(deferred, struct vmibus_sensor_host, reply);

    while (!list_is_empty(&host->replies)) {
        struct reply *reply = list_first(&host->replies, struct reply, link);

        list_unlink(&reply->link);
        hand_on(host, reply);
        reply_free(reply);
    }
}

/* --- coming and going -------------------------------------------------------------------------- */

void sensor_inbox_init(struct vmibus_sensor_host *host) {
    list_init(&host->replies);
    loop_deferred_init(&host->reply, host->loop, hand_on_replies);
}

void sensor_inbox_deinit(struct vmibus_sensor_host *host) {
    while (!list_is_empty(&host->replies)) {
        struct reply *reply = list_first(&host->replies, struct reply, link);

        list_unlink(&reply->link);
        reply_free(reply);
    }
    loop_deferred_cancel(&host->reply);
}
