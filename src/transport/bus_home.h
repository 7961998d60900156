/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where sessions of a bus are made, by the role that HELLO names: one bus, and its memory authority here or elsewhere. */
#ifndef TRANSPORT_BUS_HOME_H
#define TRANSPORT_BUS_HOME_H

#include "bus/handover.h"
#include "memory/handover.h"
#include "transport/session.h"

struct authority;
struct bus;

/** Both parts that a control's session has a share in. */
struct bus_home_handover {
    struct bus_handover bus;
    struct authority_handover memory;
};

struct bus_home {
    struct session_home home;
    struct bus *bus;
    struct authority *authority;    /**< in this process; NULL: none */
    const char *memory_path;        /**< where one listens that has a process of its own; NULL: nowhere. Borrowed */
    uint32_t sensor_endpoints;      /**< VMs that a sensor behind a socket may offer; 0: no bound but that of all */
    struct bus_home_handover *handover; /**< while sessions are handed over, either way; borrowed */
    uint32_t sensor_answer_ms;      /**< how long it may take to answer a command */
};

/** Octets of the largest session that a bus makes. */
size_t bus_home_session_octets(void);

/** Prepares it; the rest is filled by whoever has the authority. */
void bus_home_init(struct bus_home *home, struct bus *bus, uint32_t tail_bound);

#endif
