/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client of one QEMU monitor (QMP over a unix stream socket): greeting, negotiation, commands
 * with a deadline each, events.
 *
 * Rules: the peer is hostile.  A line is bounded, json is strict and of bounded depth, each field's
 * type is checked, and whatever does not fit fails the connection with a sentence that says why.
 * Nothing blocks.  One command that misses its deadline fails the connection: a monitor answers in
 * order, so nothing behind that command would be answered either.
 *
 * Everything runs on the loop's thread.  A client must not be freed inside one of its callbacks,
 * except in failed(), which is the last one.
 */
#ifndef SENSORS_QEMU_QMP_H
#define SENSORS_QEMU_QMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>
#include <vmibus/sensor.h>

#include "machine/monitor.h"

/**
 * Longest line taken from a monitor, in octets. `info mtree -f` of a large machine takes some tens
 * of KiB.
 */
#define QMP_LINE_BOUND ((size_t)1 << 20)
/** Octets that may wait for a monitor that does not read. */
#define QMP_OUT_BOUND ((size_t)1 << 18)
/** Commands that may be unanswered. */
#define QMP_PENDING_BOUND 64
/** Nesting of json taken. */
#define QMP_DEPTH_BOUND 32
/** How long a greeting may take before the monitor is said to be in use. */
#define QMP_GREETING_NS (UINT64_C(1) * 1000 * 1000 * 1000)

struct qmp;

/** Why there is no connection (any more). */
enum qmp_failure {
    QMP_ABSENT = 1,  /**< nothing listens at the path */
    QMP_IN_USE = 2,  /**< others wait already to be served: QEMU serves one client at a time */
    QMP_CLOSED = 3,  /**< the peer closed the connection */
    QMP_SILENT = 4,  /**< a command was not answered in time */
    QMP_GARBAGE = 5, /**< the peer does not speak QMP, or broke a bound */
    QMP_REFUSED = 6, /**< the peer answered the negotiation with an error */
    QMP_SYSTEM = 7,  /**< the host's kernel refused */
};

/** What the owner of a client learns. All are called on the loop, never from within qmp_new(). */
struct qmp_callbacks {
    /** The monitor takes commands. */
    void (*ready)(void *userdata);
    /**
     * No greeting came in time: somebody else uses the monitor, or QEMU hangs. The client goes on
     * waiting.
     */
    void (*waiting)(void *userdata);
    /** An event; @a data may be NULL and is borrowed. */
    void (*event)(void *userdata, const char *name, json_object *data);
    /**
     * The connection is over; pending commands were told LOST before. The owner may free the client
     * here.
     */
    void (*failed)(void *userdata, enum qmp_failure failure, const char *message);
};

/**
 * Connects to a monitor.
 * @param qmpp       receives the client
 * @param api        the host's functions
 * @param host       the host
 * @param path       path of the socket
 * @param callbacks  borrowed for the client's life
 * @return 0, QMP_ABSENT, QMP_IN_USE, or a negative errno
 */
int qmp_new(struct qmp **qmpp, const struct vmibus_sensor_api *api, struct vmibus_sensor_host *host,
            const char *path, const struct qmp_callbacks *callbacks, void *userdata);

/**
 * Closes and frees a client; pending commands are forgotten without a callback. Takes NULL, returns
 * NULL.
 */
struct qmp *qmp_free(struct qmp *qmp);

/**
 * When QEMU says that the event happened which is being told: CLOCK_MONOTONIC nanoseconds, not later
 * than now; now if it says nothing. For event() only.
 */
uint64_t qmp_event_time(const struct qmp *qmp);

/** The client as a monitor, borrowed; it lives as long as the client. */
struct monitor *qmp_monitor(struct qmp *qmp);

/** The connected socket, borrowed. */
int qmp_socket(const struct qmp *qmp);

/** Whether commands can be given. */
bool qmp_is_ready(const struct qmp *qmp);

/**
 * Gives a command.
 * @param command    its name
 * @param arguments  consumed in every case; NULL for none
 * @param reply      called exactly once if 0 is returned (unless the client is freed); may be NULL
 * @return 0, -ENOTCONN, -ENOBUFS (too much is unanswered), -ENOMEM
 */
int qmp_execute(struct qmp *qmp, const char *command, json_object *arguments, monitor_reply_fn reply,
                void *userdata);

/**
 * The same, with a descriptor for add-fd and the like.
 * @param fd duplicated; -1: none. One at a time waits to be sent: -EBUSY
 */
int qmp_execute_with_fd(struct qmp *qmp, const char *command, json_object *arguments, int fd,
                        monitor_reply_fn reply, void *userdata);

/**
 * Gives a command of the human monitor; the answer's value is a string. Returns as qmp_execute().
 */
int qmp_execute_human(struct qmp *qmp, const char *line, monitor_reply_fn reply, void *userdata);

/**
 * Waits until the peer has answered the last command, or for so long: QEMU drops what it has not read when its client
 * closes (measured). For a last command only, before qmp_free(); the one function that blocks.
 */
void qmp_linger(struct qmp *qmp, int timeout_ms);

#endif
