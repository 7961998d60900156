/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a control is to the inside of a bus, whether it comes through a socket or lives in this process.
 * Its frames go to the bus or to the memory authority, by the channel of their kind; the
 * answers of both leave through the one outbox of its control, so they share one order and one count.
 * Where the authority has a process of its own, this is the place on the bus alone, and WELCOME says where
 * the other is.
 */
#ifndef TRANSPORT_CONTROL_SESSION_H
#define TRANSPORT_CONTROL_SESSION_H

#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/control.h"
#include "policy/principal.h"
#include "transport/bus_home.h"
#include "transport/session.h"

struct authority_client;

struct control_session {
    struct session session;
    struct control control;
    struct bus_home *home;
    struct authority_client *memory;
    uint32_t n_memory; /**< commands at the authority */
};

/**
 * Opens a session; its random name is made here.
 * @param refusal says which limit was hit, if one was
 * @return 0, an enum vmibus_error (QUOTA, PRESSURE) or a negative errno
 */
int control_session_init(struct control_session *session, struct bus_home *home, const struct principal *principal,
                         const struct session_owner *owner, struct vmibus_ack *refusal);

/** Whether a session is a control's. */
bool session_is_control(const struct session *session);

/** Writes it into a record, to be handed over: home->handover is there. */
void control_session_save(struct control_session *session, struct handover_writer *writer);

/** Makes one that was handed over. False: something was wrong, there is none. */
bool control_session_take_over(struct control_session *session, struct bus_home *home, const struct principal *principal,
                               const struct session_owner *owner, struct handover_records records);

/** Queues the WELCOME that answers HELLO, also a repeated one. 0 or -ENOBUFS. */
int control_session_welcome(struct control_session *session, const struct vmibus_header *hello);

#endif
