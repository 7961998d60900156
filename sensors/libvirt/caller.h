/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls into libvirt, all of which may block for as long as libvirtd, or the QEMU behind it, likes.
 *
 * A caller makes its calls one after the other, on a thread and a connection of its own; both are there
 * only while it has calls to make, and CALLER_IDLE_S longer.  So a domain whose QEMU hangs keeps one thread
 * and one request of libvirtd's, and nobody else waits for it.
 *
 * Nobody waits for a caller without a bound.  It is told to leave: calls that were not begun are freed, and
 * the one that is being made when it comes back.  A thread that does not come back while the sensor ends is
 * left to its call: it holds references to all that it touches, and the module stays loaded for it.
 */
#ifndef SENSORS_LIBVIRT_CALLER_H
#define SENSORS_LIBVIRT_CALLER_H

#include <libvirt/libvirt.h>

#include "exchange.h"

/** How long a caller without calls keeps its thread and connection. */
#define CALLER_IDLE_S 10
/** libvirtd is asked this often whether it is there, and given up after so many questions without an answer. */
#define CALLER_KEEPALIVE_S 3
#define CALLER_KEEPALIVE_COUNT 2
/** Longest text taken from libvirt, in octets. */
#define CALLER_TEXT_BOUND ((size_t)1 << 20)

/** What came of a call. */
enum call_outcome {
    CALL_MADE,   /**< run() was called */
    CALL_NO_CONNECTION, /**< there was none, message tells why; run() was not called */
};

/** A call; embedded in what it is about. */
struct call {
    STAILQ_ENTRY(call) link;
    struct caller *caller;
    /** Makes the call, on the caller's thread. */
    void (*run)(struct call *call, virConnectPtr connection);
    /** It was made, on the loop; frees it. */
    void (*done)(struct call *call);
    /** Frees it where nobody waits for it any more, on any thread. */
    void (*discard)(struct call *call);
    enum call_outcome outcome;
    char message[256]; /**< what libvirt says of an error, for people */
};

/** Frees a call that nobody waits for. */
void call_free(struct call *call);

/** Copies the calling thread's last error of libvirt into the call's message. */
void call_note_error(struct call *call);

/** What the owner of a caller does with its connections, on the caller's thread. */
struct caller_hooks {
    /** It was opened; -1 closes it again, and the calls meet CALL_NO_CONNECTION. */
    int (*connected)(virConnectPtr connection, void *userdata);
    /** It is about to be closed. */
    void (*disconnecting)(virConnectPtr connection, void *userdata);
    /** The caller has ended. On any thread. */
    void (*free)(void *userdata);
};

/** Prepares a condition that is waited for on CLOCK_MONOTONIC. */
void caller_condition_init(pthread_cond_t *condition);

/**
 * Makes a caller; no thread yet.
 * @param uri       copied
 * @param hooks     borrowed for ever; NULL: none
 * @param userdata  the caller's from then on, also after a failure
 * @return 0 or a negative errno
 */
int caller_new(struct caller **callerp, struct exchange *exchange, const char *uri, const struct caller_hooks *hooks,
               void *userdata);

/** What the hooks get; it is the thread's, and lives as long as calls do. */
void *caller_userdata(const struct caller *caller);

/** Keeps thread and connection from now on, for events that come by the latter. */
void caller_stay(struct caller *caller);

/** Has a call made, after those before it. 0 or a negative errno: the call stays the caller's. */
int caller_make(struct caller *caller, struct call *call);

/** Leaves: takes and returns NULL; see above. */
struct caller *caller_leave(struct caller *caller);

/** Waits until nothing is left to be made, or for so long. Whether nothing is. */
bool caller_wait(struct caller *caller, int timeout_ms);

/**
 * Waits until the threads of all callers of an exchange have ended, or for so long.
 * @return whether they have
 */
bool callers_wait(struct exchange *exchange, int timeout_ms);

#endif
