/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/welcome.h"

#include <errno.h>
#include <string.h>

#include "bus/bus.h"
#include "util/clock.h"

/* What there is where there is a memory authority. */
#define OF_MEMORY                                                                                               \
    (VMIBUS_FEATURE_MEMORY | VMIBUS_FEATURE_MEM_READ | VMIBUS_FEATURE_BUFFERS | VMIBUS_FEATURE_TABLES |         \
     VMIBUS_FEATURE_EPOCH_PAGE)

static enum vmibus_memory_location memory_location(const struct bus_home *home, bool memory_here) {
    if (memory_here)
        return VMIBUS_MEMORY_LOCATION_HERE;
    return home->memory_path ? VMIBUS_MEMORY_LOCATION_SOCKET : VMIBUS_MEMORY_LOCATION_NONE;
}

int welcome_queue(struct control *control, const struct bus_home *home, bool memory_here, const struct vmibus_header *hello) {
    const struct bus_options *options = &control->bus->options;
    enum vmibus_memory_location location = memory_location(home, memory_here);
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WELCOME,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .correlation = hello->correlation,
                   .timestamp = clock_now()},
        .welcome = {.magic = VMIBUS_MAGIC,
                    .features = (location ? OF_MEMORY : 0) | VMIBUS_FEATURE_QUIESCE | VMIBUS_FEATURE_WATCH,
                    .incarnation = options->incarnation,
                    .tail_bound = home->home.tail_bound,
                    .queue_depth = options->queue_depth,
                    .commands = options->commands,
                    .endpoints = options->n_endpoints,
                    .version = VMIBUS_PROTOCOL_VERSION,
                    .memory = (uint8_t)location,
                    .fds_per_frame = VMIBUS_FDS_PER_FRAME},
    };
    struct event *event;

    memcpy(frame.welcome.session, control->session, sizeof(frame.welcome.session));
    event = event_new(&control->bus->events, EVENT_ANSWER, &frame);
    if (!event)
        return -ENOBUFS;
    /* A WELCOME that cannot say where the memory is would be a lie. */
    if (location == VMIBUS_MEMORY_LOCATION_SOCKET && event_set_tail(event, control->account, home->memory_path,
                                                                    strlen(home->memory_path))) {
        event_unref(event);
        return -ENOBUFS;
    }
    outbox_push_answer(&control->outbox, event);
    control_wake(control);
    return 0;
}
