/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault injection: what fails in the field, made to fail on purpose.
 *
 * A location is a real boundary at which something outside can fail.  The code there asks fault_hit()
 * and, where it answers an errno, does what it does when the outside fails.  Rules (one per location)
 * come from the configuration; without them, and in a build without --enable-fault-injection, nothing
 * ever fails here: the question is then a constant.
 *
 * Everything here may be called on any thread at any time: rules, counts and the state of the random
 * numbers are atomic.  They are the process's, because what they stand for is.
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

#include <stddef.h>
#include <stdint.h>

/** The rules of all locations, as text that was read; zeros: nothing fails. */
struct fault_rules {
    struct {
        uint32_t action;    /**< enum of fault.c; 0: off */
        uint32_t argument;
    } at[N_FAULT_LOCATIONS];
    uint64_t seed;          /**< of rate:N; 0: as it is */
};

/** How often a location was asked, and how often it failed. */
struct fault_counts {
    uint64_t asked;
    uint64_t failed;
};

/**
 * A negative errno if what happens here is to fail now, else 0; it may have waited first (delay-ms).
 * At the sockets it is -EAGAIN where the attempt is to do only a part of its work, and is made again; else a failure that lasts.
 */
int fault_hit(enum fault_location location);

/**
 * Sets the rule of a location: "off", "fail", "drop-every:N", "fail-after:N", "rate:N" (one in N, at random), "delay-ms:N".
 * @return 0 or -EINVAL (no such location or rule)
 */
int fault_set(const char *location, const char *rule);

/**
 * Adds to rules that are not in force yet.
 * @param location the name of one, or "seed"
 * @param rule     as for fault_set(); of "seed" a number from 1
 * @return 0, -ENOENT (no such location) or -EINVAL (no such rule)
 */
int fault_rules_add(struct fault_rules *rules, const char *location, const char *rule);

/**
 * Adds what stands in VMIBUS_FAULTS: "location=rule,location=rule".
 * @return 0, or -EINVAL, and @a wrong (borrowed from the environment) is where the mistake begins
 */
int fault_rules_add_environment(struct fault_rules *rules, const char **wrong);

/** Puts rules in force, in place of all others; every count begins anew. */
void fault_apply(const struct fault_rules *rules);

/** The rule of a location as text, "off" if there is none. */
void fault_describe(enum fault_location location, char *text, size_t size);

/** What has happened since fault_apply() or fault_set(). */
struct fault_counts fault_count(enum fault_location location);

/** The name of a location. */
const char *fault_name(enum fault_location location);

/** What the random numbers of rate:N began with: whoever gives it again, and asks in the same order, sees the same failures. */
uint64_t fault_seed(void);

#else

static inline int fault_hit(enum fault_location location) {
    (void)location;
    return 0;
}

#endif

#endif
