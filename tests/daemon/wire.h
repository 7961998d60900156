/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A peer made of octets: connects to a daemon's socket and says what the test wants, lawful or not.
 * Nothing of the code under test is used, so nothing of it is believed.
 *
 * Every descriptor is blocking; a daemon that does not answer is found by the test's time limit.
 *
 * A connection whose memory authority has a process of its own (channels.h) has two channels behind one descriptor: what is said
 * and received here goes over the right one, octets that a test writes by itself do not.
 */
#ifndef TESTS_DAEMON_WIRE_H
#define TESTS_DAEMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <vmibus/protocol.h>

#include "daemon/channels.h"

/* A test closes a connection like any descriptor. */
#define close(fd) channels_close(fd)

/** Longest tail that wire_receive() takes. */
#define WIRE_TAIL 8192

/** Connects. Returns a descriptor. */
int wire_connect(const char *path);

/** Connects and says HELLO. Fills @a welcome unless NULL. Returns a descriptor. */
int wire_open(const char *path, struct vmibus_frame *welcome);

/** A lawful DOWN frame of a kind, empty but for its header; each has another correlation. */
struct vmibus_frame wire_frame(enum vmibus_kind kind);

/** A lawful HELLO of a control. */
struct vmibus_frame wire_hello(void);

/** Writes octets. False: the other end is gone. */
bool wire_write(int fd, const void *data, size_t length);

/** Writes a frame and a tail, whose length it sets in the header. */
bool wire_send(int fd, struct vmibus_frame *frame, const void *tail, size_t length);

/** Writes octets with descriptors. False: the other end is gone. */
bool wire_send_fds(int fd, const void *data, size_t length, const int *fds, size_t n_fds);

/** Reads exactly so many octets. False: end of file, or reset, before the first. */
bool wire_read(int fd, void *data, size_t length);

/**
 * Descriptors that arrive from now on go to @a fds (room for VMIBUS_FDS_PER_FRAME), counted in @a n_fds, which is set to 0,
 * instead of being closed; NULL ends that.
 */
void wire_keep_fds(int *fds, size_t *n_fds);

/** Reads a frame; its tail goes to @a tail (WIRE_TAIL octets) or, if NULL, nowhere. Descriptors are closed. False: the end. */
bool wire_receive(int fd, struct vmibus_frame *frame, void *tail);

/** From now on some connections are a sensor's, which is sent DOWN frames too. */
void wire_be_sensor(void);

/** Reads until a frame of this kind; fails the test at the end of the connection. */
struct vmibus_frame wire_await(int fd, enum vmibus_kind kind);

/** Reads until the ACK of this correlation; fails the test at the end of the connection. Events before it are lost. */
struct vmibus_frame wire_answer(int fd, uint64_t correlation, void *tail);

/** Sends a command and returns its ACK. */
struct vmibus_frame wire_ask(int fd, struct vmibus_frame *command, const void *tail, size_t length);

/** Reads until the end of the connection. Returns the last frame, all zeros if there was none. */
struct vmibus_frame wire_await_end(int fd);

/** Expects a command to be answered with an error and a reason, and the connection to go on. */
void wire_expect(int fd, struct vmibus_frame *command, const void *tail, size_t length, enum vmibus_error error,
                 enum vmibus_reason reason);

/** Expects the connection to end with ERROR. */
struct vmibus_frame wire_expect_end(int fd, enum vmibus_error error, enum vmibus_reason reason);

/** Subscribes to kinds (VMIBUS_KIND_BITs) of all endpoints; does not wait for the ACK. Returns the correlation. */
uint64_t wire_subscribe(int fd, const char *pattern, uint64_t kinds);

/** An endpoint as a peer knows it. */
struct wire_endpoint {
    uint32_t slot;
    uint64_t generation;
    uint64_t epoch; /**< of its memory context, READY */
};

/** Finds an endpoint by its name and waits until its memory context is READY. Leaves a subscription to it. */
struct wire_endpoint wire_find(int fd, const char *name);

/** A command to an endpoint. */
struct vmibus_frame wire_command(enum vmibus_kind kind, const struct wire_endpoint *endpoint);

/** Acquires a lease, waiting in line for it. Returns the token. */
uint64_t wire_acquire(int fd, const struct wire_endpoint *endpoint, enum vmibus_lease_class lease_class);

/** A counter of the daemon's, all its processes together; needs the capability STATS. */
uint64_t wire_counter(int fd, enum vmibus_counter counter);

/**
 * Asks QUERY LIMITS for one limit, of all processes together.
 * @param uid whose; -1: everybody's. Zeros in @a use, and false, where nothing is told of it.
 */
bool wire_limit(int fd, enum vmibus_reason limit, int64_t uid, struct vmibus_limit_use *use);

#endif
