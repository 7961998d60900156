/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The other end of a connection, played by a script of the test on a thread of its own: it says what
 * the test wants, lawful or not.  All writing is by write(2) and sendmsg(2) of octets, so that nothing
 * of the code under test is believed.
 */
#ifndef TESTS_CLIENT_FAKE_SERVER_H
#define TESTS_CLIENT_FAKE_SERVER_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/client.h>

/** What the server does; fd is its end and is closed afterwards. */
typedef void (*fake_script)(int fd);

struct fake_server {
    pthread_t thread;
    fake_script script;
    int fd;
};

/** Starts a script. Returns the client's end. */
int fake_server_start(struct fake_server *server, fake_script script);

/** Starts a script for the first one to connect to a listening socket, which it takes. */
void fake_server_start_listening(struct fake_server *server, fake_script script, int listening_fd);

/** Waits for the script's end. */
void fake_server_join(struct fake_server *server);

/** Reads exactly so many octets; fails the test at an end of file. */
void fake_read(int fd, void *buffer, size_t length);

/** Writes all octets. */
void fake_write(int fd, const void *buffer, size_t length);

/** Reads a frame and its tail, which is discarded if tail is NULL. */
struct vmibus_frame fake_read_frame(int fd, void *tail, size_t room);

/** Writes a frame and the tail that its header announces. */
void fake_write_frame(int fd, const struct vmibus_frame *frame, const void *tail);

/** Writes octets with descriptors. */
void fake_write_fds(int fd, const void *buffer, size_t length, const int *fds, size_t n_fds);

/** An UP frame of a kind, as a bus would fill its header. */
struct vmibus_frame fake_frame(enum vmibus_kind kind);

/** An ACK to a command. */
struct vmibus_frame fake_ack(const struct vmibus_frame *command, enum vmibus_error error);

/** A lawful WELCOME to a HELLO. */
struct vmibus_frame fake_welcome(const struct vmibus_frame *hello);

/** Reads HELLO, checks it, answers with WELCOME. Returns the HELLO. */
struct vmibus_frame fake_accept(int fd);

/** Waits until the client has closed; fails the test if it says anything. */
void fake_await_close(int fd);

#endif
