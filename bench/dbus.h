/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * D-Bus beside vmibus: a private broker, and clients that do no more than they must.
 *
 * The broker is dbus-broker, for which this program is the controller, or dbus-daemon where that cannot
 * be had.  Clients write prepared messages and read octets, without a D-Bus library, so that what is
 * measured is the broker.  Every message has a body of DBUS_BODY octets: as much as follows the header
 * of a vmibus frame.
 */
#ifndef BENCH_DBUS_H
#define BENCH_DBUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DBUS_BODY 64
#define DBUS_MESSAGE 512
#define DBUS_NAME 64

struct dbus_broker {
    const char *name;       /**< "dbus-broker" or "dbus-daemon" */
    pid_t pid;
    int controller;         /**< -1: none */
    char directory[64];
    char socket[96];
};

/** A message whose octets are ready to be written. */
struct dbus_message {
    size_t length;
    size_t body;            /**< where the DBUS_BODY octets are */
    uint8_t octets[DBUS_MESSAGE];
};

/** Starts a broker where the caller runs. 0 or a negative errno: -ENOENT there is none. */
int dbus_broker_start(struct dbus_broker *broker);

/** Ends it. Harmless on one that was not started. */
void dbus_broker_stop(struct dbus_broker *broker);

/** Connects. Returns a descriptor or a negative errno; @a name (DBUS_NAME octets) receives the unique name. */
int dbus_connect(const struct dbus_broker *broker, char *name);

/** Subscribes to the signals of dbus_make_signal(). 0 or a negative errno. */
int dbus_add_match(int fd);

/** Makes a signal, to everybody who subscribed. */
void dbus_make_signal(struct dbus_message *message, uint32_t serial);

/**
 * The length of the message whose octets begin at @a octets.
 * @return 0 if not even its fixed part is there
 */
size_t dbus_length(const uint8_t *octets, size_t n);

/** Whether it is a signal of dbus_make_signal(), and then where its body is: the last DBUS_BODY octets. */
bool dbus_is_signal(const uint8_t *octets, size_t length, const uint8_t **body);

/** A service that answers method calls, in a process of its own, and a connection that calls it. */
struct dbus_echo {
    pid_t pid;
    int fd;
    struct dbus_message call;
};

int dbus_echo_start(struct dbus_echo *echo, const struct dbus_broker *broker);
void dbus_echo_stop(struct dbus_echo *echo);

/** Calls; a bench_sample_fn whose context is the struct dbus_echo. */
int dbus_echo_sample(void *context, uint64_t *samples, size_t n);

#endif
