/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/sensor_unsaid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "host/sensor_api.h"
#include "host/sensor_host.h"
#include "util/fds.h"

struct unsaid {
    struct list link;
    struct vmibus_frame frame;
    int fds[VMIBUS_FDS_PER_FRAME];
    uint8_t tail[];
};

static void unsaid_free(struct unsaid *unsaid) {
    list_unlink(&unsaid->link);
    fds_close(unsaid->fds, unsaid->frame.header.fd_count);
    free(unsaid);
}

void sensor_unsaid_init(struct vmibus_sensor_endpoint *endpoint) {
    list_init(&endpoint->unsaid);
    endpoint->n_unsaid = 0;
}

int sensor_unsaid_add(struct vmibus_sensor_endpoint *endpoint, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    struct unsaid *unsaid;

    if (endpoint->n_unsaid >= SENSOR_UNSAID_MAX)
        return -ENOBUFS;
    unsaid = malloc(sizeof(*unsaid) + frame->header.tail_length);
    if (!unsaid)
        return -ENOMEM;
    list_init(&unsaid->link);
    unsaid->frame = *frame;
    if (frame->header.tail_length)
        memcpy(unsaid->tail, tail, frame->header.tail_length);
    for (uint8_t i = 0; i < frame->header.fd_count; i++) {
        unsaid->fds[i] = fd_dup(fds[i]);
        if (unsaid->fds[i] < 0) {
            int r = unsaid->fds[i];

            unsaid->frame.header.fd_count = i;
            unsaid_free(unsaid);
            return r;
        }
    }
    list_append(&endpoint->unsaid, &unsaid->link);
    endpoint->n_unsaid++;
    return 0;
}

void sensor_unsaid_say(struct vmibus_sensor_endpoint *endpoint) {
    struct vmibus_sensor_host *host = endpoint->host;

    while (!list_is_empty(&endpoint->unsaid)) {
        struct unsaid *unsaid = list_first(&endpoint->unsaid, struct unsaid, link);
        struct vmibus_frame *frame = &unsaid->frame;

        frame->header.slot = endpoint->slot;
        frame->header.generation = endpoint->generation;
        if (vmibus_frame_describe(frame->header.kind)->channels == VMIBUS_ON_MEMORY)
            host->channel->submit(host, frame, unsaid->tail, unsaid->fds);
        else
            host->channel->say(host, frame, unsaid->tail, unsaid->fds);
        unsaid_free(unsaid);
        endpoint->n_unsaid--;
    }
}

void sensor_unsaid_drop(struct vmibus_sensor_endpoint *endpoint) {
    while (!list_is_empty(&endpoint->unsaid))
        unsaid_free(list_first(&endpoint->unsaid, struct unsaid, link));
    endpoint->n_unsaid = 0;
}
