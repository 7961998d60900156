/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "core/core.h"
#include "core/local_sensor.h"
#include "util/fds.h"

#define SAVED_FDS_MAX 4096

enum {
    SENSOR_NAME = 1,
    SENSOR_OCTETS = 2,
    SENSOR_FD = 3,
};

/* --- settling ---------------------------------------------------------------------------------- */

void core_settle_begin(struct vmibus_core *core) {
    bus_settle_begin(core->bus);
    if (core->authority)
        authority_settle_begin(core->authority);
}

bool core_is_settled(const struct vmibus_core *core) {
    return bus_is_settled(core->bus) && (!core->authority || authority_is_settled(core->authority));
}

void core_settle(struct vmibus_core *core) {
    if (core->authority)
        authority_settle(core->authority);
    bus_settle(core->bus);
}

/* --- written ----------------------------------------------------------------------------------- */

void core_handover_begin(struct vmibus_core *core, struct bus_home_handover *handover) {
    bus_handover_init(&handover->bus, core->bus);
    authority_handover_init(&handover->memory, core->authority);
    core->home.handover = handover;
}

void core_handover_end(struct vmibus_core *core) {
    bus_handover_deinit(&core->home.handover->bus);
    authority_handover_deinit(&core->home.handover->memory);
    core->home.handover = NULL;
}

static void put_sensor(struct handover_writer *writer, struct local_sensor *local) {
    struct vmibus_sensor_saved state;

    if (sensor_host_save(&local->host, &state) < 0)
        return;
    handover_begin(writer, CORE_HANDOVER_SENSOR);
    handover_put(writer, SENSOR_NAME, local->sensor.name, strlen(local->sensor.name));
    handover_put(writer, SENSOR_OCTETS, state.octets, state.n_octets);
    for (size_t i = 0; i < state.n_fds; i++)
        handover_put_fd(writer, SENSOR_FD, state.fds[i]);
    handover_end(writer);
}

void core_handover_save(struct vmibus_core *core, struct handover_writer *writer) {
    struct local_sensor *local;

    handover_begin(writer, CORE_HANDOVER_BUS);
    bus_handover_save(&core->home.handover->bus, writer);
    handover_end(writer);
    if (core->authority) {
        handover_begin(writer, CORE_HANDOVER_MEMORY);
        authority_handover_save(&core->home.handover->memory, writer);
        handover_end(writer);
    }
    list_for_each(local, &core->sensors, link)
        put_sensor(writer, local);
}

void core_handover_save_link(struct vmibus_core *core, struct handover_writer *writer) {
    if (core->authority)
        return;
    handover_begin(writer, CORE_HANDOVER_LINK);
    memory_link_handover_save(&core->memory_link, writer);
    handover_end(writer);
}

void core_stop_handed_over(struct vmibus_core *core) {
    struct local_sensor *local;

    list_for_each(local, &core->sensors, link)
        local_sensor_stop_handed_over(local);
}

/* --- read -------------------------------------------------------------------------------------- */

uint32_t core_handover_incarnation(struct handover *handover) {
    struct handover_record record;

    if (!handover_find(handover_all(handover), CORE_HANDOVER_BUS, &record))
        return 0;
    return bus_handover_incarnation(handover_in(&record));
}

static void saved_free(struct saved_sensor *saved) {
    int *fds = (int *)(uintptr_t)saved->state.fds;

    list_unlink(&saved->link);
    fds_close(fds, saved->state.n_fds);
    free(fds);
    free((void *)(uintptr_t)saved->state.octets);
    free(saved);
}

void core_forget_saved(struct vmibus_core *core) {
    while (!list_is_empty(&core->saved))
        saved_free(list_first(&core->saved, struct saved_sensor, link));
}

const struct vmibus_sensor_saved *core_find_saved(const struct vmibus_core *core, const char *name) {
    const struct saved_sensor *saved;

    list_for_each(saved, &core->saved, link)
        if (strcmp(saved->name, name) == 0)
            return &saved->state;
    return NULL;
}

static void add_fd(struct saved_sensor *saved, const struct handover_record *record) {
    int *fds, fd = handover_take_fd(record);

    if (fd < 0)
        return;
    fds = saved->state.n_fds < SAVED_FDS_MAX
              ? reallocarray((void *)(uintptr_t)saved->state.fds, saved->state.n_fds + 1, sizeof(*fds))
              : NULL;
    if (!fds) {
        fd_close(fd);
        handover_wrong(record->handover, -ENOMEM);
        return;
    }
    fds[saved->state.n_fds++] = fd;
    saved->state.fds = fds;
}

static void set_octets(struct saved_sensor *saved, const struct handover_record *record) {
    void *octets = malloc(record->length + 1);

    if (!octets || saved->state.octets) {
        free(octets);
        handover_wrong(record->handover, octets ? -EBADMSG : -ENOMEM);
        return;
    }
    memcpy(octets, record->octets, record->length);
    saved->state.octets = octets;
    saved->state.n_octets = record->length;
}

static void take_sensor(struct vmibus_core *core, const struct handover_record *record) {
    struct saved_sensor *saved = calloc(1, sizeof(*saved));
    struct handover_records records = handover_in(record);
    struct handover_record member;

    if (!saved) {
        handover_wrong(record->handover, -ENOMEM);
        return;
    }
    list_append(&core->saved, &saved->link);
    while (handover_next(&records, &member))
        if (member.tag == SENSOR_NAME)
            handover_copy(&member, saved->name, sizeof(saved->name) - 1);
        else if (member.tag == SENSOR_OCTETS)
            set_octets(saved, &member);
        else if (member.tag == SENSOR_FD)
            add_fd(saved, &member);
}

/* The authority first: attachments of controls refer to its contexts. */
bool core_handover_restore(struct vmibus_core *core, struct handover *whole) {
    struct handover_records records = handover_all(whole);
    struct handover_record record;

    /* Where the authority is, it stays: what one of the process before held would be nobody's. */
    if (handover_find(records, CORE_HANDOVER_MEMORY, &record) != (core->authority != NULL))
        return handover_wrong(whole, -EBADMSG);
    if (core->authority && !authority_handover_restore(&core->home.handover->memory, handover_in(&record)))
        return handover_wrong(whole, -EBADMSG);
    if (!handover_find(records, CORE_HANDOVER_BUS, &record) ||
        !bus_handover_restore(&core->home.handover->bus, handover_in(&record)))
        return handover_wrong(whole, -EBADMSG);
    if (!core->authority && handover_find(records, CORE_HANDOVER_LINK, &record) &&
        !memory_link_handover_restore(&core->memory_link, handover_in(&record)))
        return handover_wrong(whole, -EBADMSG);
    while (handover_next(&records, &record))
        if (record.tag == CORE_HANDOVER_SENSOR)
            take_sensor(core, &record);
    return !whole->error;
}

bool core_handover_check(struct vmibus_core *core, struct handover *whole) {
    return bus_handover_check(&core->home.handover->bus, whole);
}

void core_handover_go_on(struct vmibus_core *core, const struct authority_page *pages, size_t n_pages) {
    bus_handover_go_on(core->bus);
    if (core->authority)
        authority_handover_go_on(core->authority, pages, n_pages, true);
}
