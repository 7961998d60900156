/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault injection: what fails in the field, made to fail on purpose.
 *
 * A location is a real boundary at which something outside can fail.  The code there asks fault_hit()
 * and, where it answers an errno, does what it does when the outside fails.  Rules (one per location)
 * come from the configuration; without them, and in a build without --enable-fault-injection, nothing
 * ever fails here: the question is then a constant.
 *
 * Rules are set before threads start; fault_hit() may be asked on any thread.
 */
#ifndef UTIL_FAULT_H
#define UTIL_FAULT_H

/** Where something can be made to fail. */
enum fault_location {
    FAULT_ALLOCATION,       /**< memory for a peer */
    FAULT_SOCKET_SEND,      /**< sending to a peer */
    FAULT_SOCKET_RECEIVE,   /**< receiving from a peer */
    FAULT_FD_PASSING,       /**< descriptors that travel to a peer */
    FAULT_MONITOR,          /**< a VM's monitor */
    FAULT_TRANSLATE,        /**< a page walk for a command */
    FAULT_WRITE,            /**< octets into a guest */
    FAULT_AUDIT,            /**< the audit log */
    FAULT_TIMER,            /**< arming a timer */
    N_FAULT_LOCATIONS,
};

#ifdef HAVE_FAULT_INJECTION

/** A negative errno if what happens here is to fail now, else 0; it may have waited first (delay-ms). */
int fault_hit(enum fault_location location);

/**
 * Sets the rule of a location: "off", "fail", "drop-every:N", "fail-after:N", "rate:N" (one in N, at random), "delay-ms:N".
 * @return 0 or -EINVAL (no such location or rule)
 */
int fault_set(const char *location, const char *rule);

#else

static inline int fault_hit(enum fault_location location) {
    (void)location;
    return 0;
}

#endif

#endif
