/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a core hands over: what its bus, its memory authority and its sensors do, in this order; a listener of the core's, if
 * there is one, writes and reads its own in between core_handover_begin() and core_handover_end().
 *
 * Sensors end with the process and are started anew, so that what they provide is claimed until they offer it again (bus/claim.h).
 * One that can keep what it knows (save() of its module) gives that along.
 */
#ifndef CORE_HANDOVER_H
#define CORE_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "memory/authority.h"
#include "transport/bus_home.h"
#include "util/handover.h"
#include "util/list.h"

struct vmibus_core;

/** Records of a whole file; never reused. */
enum core_handover_record {
    CORE_HANDOVER_BUS = 1,
    CORE_HANDOVER_MEMORY = 2,
    CORE_HANDOVER_LISTENER = 3, /**< its owner's */
    CORE_HANDOVER_SENSOR = 4,
    CORE_HANDOVER_LINK = 5, /**< to an authority that has a process of its own */
};

/** What a sensor of the process before gave. */
struct saved_sensor {
    struct list link;
    char name[32];
    struct vmibus_sensor_saved state;   /**< octets and descriptors owned */
};

/** No more commands come: ends what no restart survives. */
void core_settle_begin(struct vmibus_core *core);

/** Whether nothing is under way at sensors and in guests' memory. */
bool core_is_settled(const struct vmibus_core *core);

/** Answers what is still under way. */
void core_settle(struct vmibus_core *core);

/** Begins either side: @a handover must stay until core_handover_end(). */
void core_handover_begin(struct vmibus_core *core, struct bus_home_handover *handover);

/** Ends it. */
void core_handover_end(struct vmibus_core *core);

/** Writes bus, authority and sensors. */
void core_handover_save(struct vmibus_core *core, struct handover_writer *writer);

/** Writes the link to an authority that has a process of its own, if there is one: the last thing that is written. */
void core_handover_save_link(struct vmibus_core *core, struct handover_writer *writer);

/** Stops the sensors after they were handed over: they withdraw nothing. */
void core_stop_handed_over(struct vmibus_core *core);

/** The incarnation of what is handed over; 0: there is none. */
uint32_t core_handover_incarnation(struct handover *handover);

/** Reads it into a core that has just been made with that incarnation. False: something was wrong. */
bool core_handover_restore(struct vmibus_core *core, struct handover *whole);

/** All is there, the listener's share too: notes what is missing. False: something was wrong. */
bool core_handover_check(struct vmibus_core *core, struct handover *whole);

/** The core goes on. @param pages epoch pages that were kept; duplicated */
void core_handover_go_on(struct vmibus_core *core, const struct authority_page *pages, size_t n_pages);

/** What a sensor of this name gave; NULL: nothing. */
const struct vmibus_sensor_saved *core_find_saved(const struct vmibus_core *core, const char *name);

/** All sensors have been started that are going to be. */
void core_forget_saved(struct vmibus_core *core);

#endif
