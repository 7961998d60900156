/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The second channel of a connection whose memory authority has a process of its own.  It is opened with the first
 * command that goes there, by the user who opened the connection, and is known by the connection's descriptor; so a test
 * says one thing to one connection, wherever the authority is.
 *
 * What comes over the two channels has no order between them.  A connection of which either channel has ended has ended.
 */
#ifndef TESTS_DAEMON_CHANNELS_H
#define TESTS_DAEMON_CHANNELS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

/** Whether the tests' daemons are several processes: $VMIBUS_TEST_APART is set. */
bool channels_are_apart(void);

/**
 * A connection was welcomed.
 * @param path the tail of WELCOME, 0-terminated; "": none
 * @param uid  who connected
 */
void channels_add(int fd, const struct vmibus_frame *welcome, const char *path, uid_t uid);

/** Whether the memory authority of a connection has a process of its own. */
bool channels_are_two(int fd);

/** Where a command of this kind is to be written to: @a fd itself, or the memory channel, which is opened if need be. */
int channels_for(int fd, uint16_t kind);

/** The descriptor to read from: waits until one of the channels has something, or has ended. */
int channels_ready(int fd);

/** Closes a connection with all its channels; any other descriptor is just closed. */
int channels_close(int fd);

#endif
