/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session: what a control is to the inside, whether it comes through a socket or lives in this
 * process.  Its frames go to the bus or to the memory authority, by the channel of their kind; the
 * answers of both leave through the one outbox of its control, so they share one order and one count.
 */
#ifndef TRANSPORT_SESSION_H
#define TRANSPORT_SESSION_H

#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/control.h"
#include "policy/principal.h"

struct authority;
struct authority_client;
struct bus;

/** Where sessions are made: one bus and its memory authority. */
struct session_home {
    struct bus *bus;
    struct authority *authority; /**< NULL: none */
    uint32_t tail_bound;
};

struct session {
    struct control control;
    struct session_home *home;
    struct authority_client *memory;
    uint32_t n_memory; /**< commands at the authority */
};

/**
 * Opens a session; its random name is made here.
 * @param ops as for control_init(); find the session by container_of(control, struct session, control)
 * @param refusal says which limit was hit, if one was
 * @return 0, an enum vmibus_error (QUOTA, PRESSURE) or a negative errno
 */
int session_init(struct session *session, struct session_home *home, const struct principal *principal,
                 const struct control_ops *ops, struct vmibus_ack *refusal);

/** Closes it: leases, commands and attachments end. */
void session_deinit(struct session *session);

/** Queues the WELCOME that answers HELLO, also a repeated one. 0 or -ENOBUFS. */
int session_welcome(struct session *session, const struct vmibus_header *hello);

/**
 * Takes a frame from the control: refuses what the definition of the wire does not allow, routes the rest.
 * @param frame    its framing has been checked
 * @param tail     header.tail_length octets, borrowed
 * @param received CLOCK_MONOTONIC nanoseconds
 */
void session_submit(struct session *session, const struct vmibus_frame *frame, const void *tail, uint64_t received);

/** Answers a command without executing it. @a refusal: error, reason and what they tell; its stamps are set here. */
void session_refuse_with(struct session *session, const struct vmibus_frame *frame, uint64_t received, struct vmibus_ack *refusal);

/** The same with no more than an error, a reason and a value. */
void session_refuse(struct session *session, const struct vmibus_frame *frame, uint64_t received, enum vmibus_error error,
                    enum vmibus_reason reason, uint64_t value);

#endif
