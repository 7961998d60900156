/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a peer speaks with inside, once its HELLO was accepted: a control's place on the bus
 * (control_session.h), a sensor's (sensor_session.h), a client of a memory authority that has a process of its own
 * (memory_session.h).  The peer knows octets, turns and deadlines; what a frame means, the session knows.
 *
 * A home is where the sessions of one listener are made: it says whom it lets in, and what each HELLO opens.
 */
#ifndef TRANSPORT_SESSION_H
#define TRANSPORT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/control.h"
#include "policy/policy.h"
#include "transport/frame_check.h"
#include "util/handover.h"
#include "util/ledger.h"

struct session;
struct session_home;

/** Whoever has the other end of a session, and has it embedded or points to it. */
struct session_owner {
    /** There is something to take. Called often; must be cheap and must not take at once. */
    void (*wake)(struct session *session);
    /** The session must go: an ERROR that says why is the last thing to take. */
    void (*fail)(struct session *session);
    /** Releases the charges of descriptors that the other end has read by now. May be NULL. */
    void (*reclaim)(struct session *session);
};

struct session_ops {
    /**
     * Takes a frame: refuses what the definition of the wire does not allow, executes the rest.
     * @param frame    its framing has been checked
     * @param tail     header.tail_length octets, borrowed
     * @param fds      header.fd_count descriptors, borrowed; NULL: none came
     * @param received CLOCK_MONOTONIC nanoseconds
     */
    void (*submit)(struct session *session, const struct vmibus_frame *frame, const void *tail, const int *fds, uint64_t received);
    /** Answers a frame without executing it. @a refusal: error, reason and what they tell; its stamps are set. */
    void (*refuse)(struct session *session, const struct vmibus_frame *frame, uint64_t received, struct vmibus_ack *refusal);
    /** How many frames can be submitted with room for all their answers; 0: none is read now. */
    size_t (*room)(const struct session *session);
    /** Takes the next frame to send; release it with control_item_deinit(). False: nothing waits. */
    bool (*take)(struct session *session, struct control_item *item);
    /** Queues an ERROR about the connection, and has its owner close it. @a offender: kind of the frame at fault, or 0. */
    void (*fail)(struct session *session, const struct frame_fault *fault, uint16_t offender);
    /** Ends it: leases, commands and attachments end. */
    void (*deinit)(struct session *session);
    /** Reads a frame that was taken from it, and handed over on its way out. NULL: none can be. False: something was wrong. */
    bool (*restore_item)(struct session *session, struct control_item *item, struct handover_records records);
};

/** Embedded first in what implements it. */
struct session {
    const struct session_ops *ops;
    const struct session_owner *owner;
    bool gives_fds; /**< its frames may bring descriptors */
    bool is_read_to_the_end; /**< also while the listener is paused: others wait for what it says */
};

/** What came of a HELLO. */
enum session_outcome {
    SESSION_OPEN,
    SESSION_REFUSED, /**< a fault tells why */
    SESSION_WAIT,    /**< what it names is not known yet: it is shown again, by listener_hello_again() */
    SESSION_ELSEWHERE, /**< no session: the home takes the connection, by home->ops->take_consume_fd() */
};

/** A HELLO, and who says it. */
struct session_request {
    const struct vmibus_frame *hello;   /**< passed by frame_check_hello() */
    const struct principal *principal;
    struct account *account;            /**< of the principal's uid; outlives the session */
    struct session *session;            /**< home->session_octets octets to make it in */
    const struct session_owner *owner;
};

struct session_home_ops {
    /** Whether somebody may connect at all; no octet of it has been read. False: @a fault tells why not. */
    bool (*admit)(struct session_home *home, const struct principal *principal, struct frame_fault *fault);
    /** The policy in force, for the limits of users. */
    const struct policy *(*policy)(const struct session_home *home);
    /** Makes the session that a HELLO asks for, its WELCOME queued. */
    enum session_outcome (*open)(struct session_home *home, const struct session_request *request, struct frame_fault *fault);
    /** Takes a connection for which open() said SESSION_ELSEWHERE; nothing but its HELLO was read. NULL: there is none such. */
    void (*take_consume_fd)(struct session_home *home, const struct session_request *request, int fd);
    /** Whether a session is handed over; the others end before anything is written. NULL: none is. */
    bool (*keeps)(const struct session_home *home, const struct session *session);
    /** Writes one that is into a record. */
    void (*save)(struct session_home *home, struct session *session, struct handover_writer *writer);
    /** Makes a session that was handed over; @a request has no hello. False: something was wrong, there is none. */
    bool (*take_over)(struct session_home *home, const struct session_request *request, struct handover_records records);
    /** Called before a peer is read: what others said before it is to be heard before it. NULL: nothing is. */
    void (*before_reading)(struct session_home *home);
};

struct session_home {
    const struct session_home_ops *ops;
    struct ledger *ledger;      /**< borrowed: whom connections and tails are charged to */
    uint64_t *n_refused;        /**< counts connections that were refused */
    size_t session_octets;      /**< of the largest session that it makes */
    uint32_t tail_bound;        /**< octets of a command's tail */
};

#endif
