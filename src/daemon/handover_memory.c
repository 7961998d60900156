/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/handover_memory.h"

#include <errno.h>

#include "memory/handover.h"
#include "transport/handover.h"
#include "transport/listener.h"
#include "transport/memory_home.h"

/* Records of the file; never reused, and others than vmibusd's (core/handover.h). */
enum {
    MEMD_AUTHORITY = 17,
    MEMD_LISTENER = 18,
    MEMD_LINK = 19,
};

static void settle_begin(void *context) {
    const struct memory_handover_parts *parts = context;

    listener_pause(parts->listener);
    authority_settle_begin(parts->home->authority);
}

static bool is_settled(void *context) {
    const struct memory_handover_parts *parts = context;

    return authority_is_settled(parts->home->authority);
}

static void settle(void *context) {
    const struct memory_handover_parts *parts = context;

    authority_settle(parts->home->authority);
    listener_handover_end_others(parts->listener);
}

/* The link last: what ends with a peer that is not handed over is said on it before. */
static void save(void *context, struct handover_writer *writer) {
    const struct memory_handover_parts *parts = context;
    struct memory_home *home = parts->home;
    struct authority_handover handover;

    authority_handover_init(&handover, home->authority);
    home->handover = &handover;
    handover_begin(writer, MEMD_AUTHORITY);
    authority_handover_save(&handover, writer);
    handover_end(writer);
    handover_begin(writer, MEMD_LISTENER);
    listener_handover_save(parts->listener, writer, parts->with_socket);
    handover_end(writer);
    if (memory_home_is_linked(home)) {
        handover_begin(writer, MEMD_LINK);
        link_handover_save(&home->link, writer);
        handover_end(writer);
    }
    home->handover = NULL;
    authority_handover_deinit(&handover);
}

static uint32_t incarnation_of(struct handover *handover) {
    struct handover_record record;

    if (!handover_find(handover_all(handover), MEMD_AUTHORITY, &record))
        return 0;
    return authority_handover_incarnation(handover_in(&record));
}

int memory_handover_take_socket(struct handover *handover) {
    struct handover_record record;

    return handover_find(handover_all(handover), MEMD_LISTENER, &record) ? listener_handover_take_socket(handover_in(&record)) : -1;
}

/* The authority first, sessions that peers name among it; then whoever is attached, and whom the bus is told of. */
static void restore_all(struct memory_handover_parts *parts, struct handover *handover) {
    struct handover_records records = handover_all(handover);
    struct memory_home *home = parts->home;
    struct handover_record record;

    if (!handover_find(records, MEMD_AUTHORITY, &record) || !authority_handover_restore(home->handover, handover_in(&record)) ||
        !handover_find(records, MEMD_LISTENER, &record) || !listener_handover_restore(parts->listener, handover_in(&record))) {
        handover_wrong(handover, -EBADMSG);
        return;
    }
    if (handover_find(records, MEMD_LINK, &record))
        parts->is_linked = link_handover_restore(&home->link, handover_in(&record));
}

static void restore(void *context, struct handover *handover) {
    struct memory_handover_parts *parts = context;
    struct authority_handover share;

    authority_handover_init(&share, parts->home->authority);
    parts->home->handover = &share;
    restore_all(parts, handover);
    parts->home->handover = NULL;
    authority_handover_deinit(&share);
}

const struct handover_ops memory_handover_ops = {
    .settle_begin = settle_begin,
    .is_settled = is_settled,
    .settle = settle,
    .save = save,
    .incarnation = incarnation_of,
    .restore = restore,
};
