/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memory channel at an authority that has a process of its own: a control's or a sensor's client, with an outbox, a
 * region and descriptor credits that are charged to its user here.  Which session of the bus it belongs to is
 * checked before it is made (memory_home.h).
 */
#ifndef TRANSPORT_MEMORY_SESSION_H
#define TRANSPORT_MEMORY_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/outbox.h"
#include "transport/memory_home.h"
#include "transport/session.h"
#include "util/region.h"

struct authority_client;

struct memory_session {
    struct session session;
    struct memory_home *home;
    struct list link;               /**< home->sessions */
    struct account *account;        /**< borrowed */
    struct principal principal;
    enum vmibus_role role;
    uint8_t name[16];
    struct authority_client *client;
    struct outbox outbox;
    struct region region;
    uint32_t n_commands;            /**< at the authority */
    bool failed;
    bool ended;                     /**< the ERROR was taken: nothing follows it */
};

/**
 * Opens a channel, its WELCOME queued.
 * @param refusal says which limit was hit, if one was
 * @return 0, an enum vmibus_error (QUOTA, PRESSURE) or a negative errno
 */
int memory_session_init(struct memory_session *session, struct memory_home *home, const struct session_request *request,
                        struct vmibus_ack *refusal);

/** Writes it into a record, to be handed over: home->handover is there. */
void memory_session_save(struct memory_session *session, struct handover_writer *writer);

/** Makes one that was handed over. False: something was wrong, there is none. */
bool memory_session_take_over(struct memory_session *session, struct memory_home *home, const struct session_request *request,
                              struct handover_records records);

/** It has to go. */
void memory_session_fail(struct memory_session *session, enum vmibus_error error, enum vmibus_reason reason);

#endif
