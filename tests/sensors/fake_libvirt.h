/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A libvirt in the place of the real one: the functions that the libvirt sensor calls, over domains that the
 * test makes up.  It hangs where the test says, dies and comes back, answers with garbage, and tells of
 * events before or after the call that caused them has returned.
 *
 * One in a process.  The test's thread changes it; the sensor's threads call it.
 */
#ifndef TESTS_SENSORS_FAKE_LIBVIRT_H
#define TESTS_SENSORS_FAKE_LIBVIRT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** Where the event of a change comes, beside the answer of the call that caused it. */
enum fake_event_order {
    FAKE_EVENT_LATER,  /**< when the test says fake_libvirt_deliver() */
    FAKE_EVENT_BEFORE, /**< before the call returns */
};

/** Begins; the service is there and has no domains. */
void fake_libvirt_begin(void);

/** Ends: nothing hangs any more, all is freed. */
void fake_libvirt_end(void);

/** The uri option that fits: its socket's folder is where pid files are found. */
const char *fake_libvirt_option(void);

/**
 * Makes a domain that runs, in a process of its own.
 * @param number tells its UUID: 16 octets of it
 */
void fake_libvirt_add(const char *name, uint8_t number);

/** Its process, which may be killed. */
pid_t fake_libvirt_pid(const char *name);

/** Gives the domain a new process, as a start does; no event. */
void fake_libvirt_restart(const char *name);

/** The domain does not run any more; its process ends; no event. */
void fake_libvirt_shut_off(const char *name);

/** State and reason of the domain, as virDomainGetState() tells them. */
void fake_libvirt_set_state(const char *name, int state, int reason);
int fake_libvirt_state(const char *name);

/** Tells an event: enum virDomainEventID, for LIFECYCLE with event and detail. */
void fake_libvirt_tell(const char *name, int id, int event, int detail);

/** When events of Suspend and Resume come. */
void fake_libvirt_order(enum fake_event_order order);

/** Delivers those that are to come later. */
void fake_libvirt_deliver(void);

/** Whether all that was told has been passed on to the sensor. */
bool fake_libvirt_is_drained(void);

/** The next call of a function, of a domain or (NULL) of any, hangs. */
void fake_libvirt_hang(const char *function, const char *name);

/** Whether a call hangs now. */
bool fake_libvirt_hangs(void);

/** What hangs goes on. */
void fake_libvirt_go_on(void);

/** The next call of a function, of whichever domain, fails with a code of libvirt's. */
void fake_libvirt_fail(const char *function, int code);

/** Whether it has. */
bool fake_libvirt_failed(void);

/** The service dies: calls fail, connections are closed; and is there again. */
void fake_libvirt_kill(void);
void fake_libvirt_revive(void);

/** What the monitor answers; NULL: an error of QMP's. Called on the sensor's threads. */
void fake_libvirt_answers(const char *(*answer)(const char *command, bool human));

/** How often a function was called since the beginning. */
unsigned int fake_libvirt_calls(const char *function);

/** Connections, domains and callbacks that were not given back. */
unsigned int fake_libvirt_left(void);

#endif
