/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/handover_bus.h"

#include "core/core.h"
#include "core/handover.h"
#include "transport/handover.h"
#include "transport/listener.h"

static void settle_begin(void *context) {
    const struct bus_handover_parts *parts = context;

    listener_pause(parts->listener);
    core_settle_begin(parts->core);
}

static bool is_settled(void *context) {
    const struct bus_handover_parts *parts = context;

    return core_is_settled(parts->core);
}

static void settle(void *context) {
    const struct bus_handover_parts *parts = context;

    core_settle(parts->core);
    listener_handover_end_others(parts->listener);
}

/* The link last: what ends with a peer that is not handed over is said on it before. */
static void save(void *context, struct handover_writer *writer) {
    const struct bus_handover_parts *parts = context;
    struct bus_home_handover handover;

    core_handover_begin(parts->core, &handover);
    core_handover_save(parts->core, writer);
    handover_begin(writer, CORE_HANDOVER_LISTENER);
    listener_handover_save(parts->listener, writer, parts->with_socket);
    handover_end(writer);
    core_handover_save_link(parts->core, writer);
    core_handover_end(parts->core);
}

static void restore(void *context, struct handover *handover) {
    const struct bus_handover_parts *parts = context;
    struct bus_home_handover share;
    struct handover_record record;

    core_handover_begin(parts->core, &share);
    if (core_handover_restore(parts->core, handover) &&
        handover_find(handover_all(handover), CORE_HANDOVER_LISTENER, &record))
        (void)listener_handover_restore(parts->listener, handover_in(&record));
    (void)core_handover_check(parts->core, handover);
    core_handover_end(parts->core);
}

const struct handover_ops bus_handover_ops = {
    .settle_begin = settle_begin,
    .is_settled = is_settled,
    .settle = settle,
    .save = save,
    .incarnation = core_handover_incarnation,
    .restore = restore,
};
