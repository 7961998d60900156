/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One control of a soak: a non-blocking connection that counts what comes over it, and a temper that says what it does with it.
 * Nothing of the code under test is used.  What must never be goes into the tally:
 *
 *   lost        a hole in the delivery numbers, a command that is not answered, a connection of a lawful temper that ends
 *   duplicated  a delivery number, an answer or a token that was there before
 */
#ifndef TESTS_SOAK_CLIENT_H
#define TESTS_SOAK_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#define CLIENT_PENDING 16
#define CLIENT_SLOTS 1100
#define CLIENT_CLASSES 4

struct tally {
    uint64_t events, gaps, dropped, commands, refused, writes, connections;
    uint64_t proofs;                /**< writes that were read back */
    uint64_t lost, duplicated;
};

/** What all of them have counted. */
extern struct tally tally;

/** A VM, as the first client was told of it. */
struct soak_vm {
    bool present, churns;           /**< churns: it may be ended, and comes again */
    bool real, firmware;            /**< a guest, no stub: other addresses are free; one without a kernel */
    uint64_t generation, epoch;
    uint64_t highest[CLIENT_CLASSES]; /**< token ever granted */
    uint64_t word, word_epoch;      /**< what the shared word of that epoch holds */
};

extern struct soak_vm soak_vms[CLIENT_SLOTS];

struct client;

/** What a client is like. */
struct temper {
    const char *name;
    unsigned every_ms;              /**< between two calls of act() */
    unsigned reads;                 /**< octets that are read at each of these; 0: all as it comes */
    bool deaf;                      /**< it reads nothing after WELCOME */
    bool outlaw;                    /**< its connection may end at any time */
    bool holds;                     /**< something, until the next act(), while its phase is not 0 */
    void (*act)(struct client *client);
    void (*answered)(struct client *client, const struct vmibus_frame *command, const struct vmibus_frame *answer);
};

struct client {
    const struct temper *temper;
    unsigned number;
    uid_t uid;
    int fd;                         /**< -1: not connected */
    bool welcomed;
    uint64_t due;                   /**< CLOCK_MONOTONIC nanoseconds of the next act */
    uint64_t delivery, correlation;
    struct vmibus_frame pending[CLIENT_PENDING]; /**< commands without an answer */
    unsigned n_pending;
    unsigned phase;                 /**< the rest is the temper's */
    uint32_t slot;
    uint64_t token, number_given;
    bool keeps_fd;                  /**< of what comes next the first one is kept */
    int kept_fd;                    /**< -1: none */
    size_t have;
    uint8_t octets[65536];
};

/** Where the bus listens; valid until the end. */
extern const char *client_path;

/** Set while connections may be lost by what the test does. */
extern bool client_losses_allowed;

/** Connects without waiting. False: not now. */
bool client_connect(struct client *client);

/** Ends the connection; what is pending is forgotten. Harmless without one. */
void client_disconnect(struct client *client);

/** Reads what there is, at most so many octets (0: all), and handles it. */
void client_read(struct client *client, size_t most);

/** Gives a command. False: too many are pending, or there is no connection. */
bool client_give(struct client *client, struct vmibus_frame *frame, const void *tail, size_t length);

/** Sends octets as they are. */
void client_send(struct client *client, const void *data, size_t length);

/** A command to the VM of client->slot. */
struct vmibus_frame client_command(const struct client *client, enum vmibus_kind kind);

/** Closes the descriptor that was kept, if there is one. */
void client_drop_fd(struct client *client);

/** How many commands are pending that have to be answered soon: a place in a queue for a lease is none. */
unsigned client_owed(const struct client *client);

#endif
