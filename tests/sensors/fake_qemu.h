/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A QEMU monitor played by the test, in the test's own thread: a listening socket whose one client
 * is answered as the test wants, well or badly.  Nothing here blocks: the test calls fake_serve()
 * between iterations of its mock host.
 *
 * What it knows by itself is a small machine: 16 MiB of RAM in one backend, with a hole and some
 * ROM.
 */
#ifndef TESTS_SENSORS_FAKE_QEMU_H
#define TESTS_SENSORS_FAKE_QEMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_GREETING                                                                              \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "             \
    "\"package\": \"\"}, \"capabilities\": [\"oob\"]}}"
#define FAKE_COMMANDS 512

struct json_object;

/** A monitor. Members are set by the test at any time. */
struct fake_qemu {
    char directory[64];
    char path[96];
    int listener;             /**< -1: nothing listens */
    int client;               /**< -1: nobody is served */
    const char *greeting;     /**< NULL: none is sent */
    bool silent;              /**< commands are read and not answered */
    const char *status;       /**< answer of query-status: "running" */
    const char *machine;      /**< answer of the confidential-guest-support property: "" */
    bool sev;                 /**< answer of query-sev */
    const char *mtree;        /**< answer of info mtree -f */
    const char *memdevs;      /**< answer of query-memdev, json */
    const char *devices;      /**< answer of query-memory-devices, json */
    const char *registers;    /**< answer of info registers -a */
    const char *capabilities; /**< answer of query-migrate-capabilities, json */
    const char *jobs;         /**< answer of query-jobs, json */
    const char *peripherals;  /**< answer of qom-list, json */
    const void *picture;      /**< what screendump writes */
    size_t picture_len;
    int fd;                   /**< the last that add-fd gave it; -1: none */
    uint64_t hva;             /**< where offset 0 of the backend lies */
    uint64_t torn;      /**< from this offset on, the backend lies a page further; 0: nowhere */
    const char *refuse; /**< this command is answered with an error */
    const char *hold;   /**< this command is not answered */
    void (*watch)(const char *text, bool executed); /**< called before and after a command is executed; NULL: nobody is told */
    void (*twist)(struct json_object *line); /**< changes an answer before it is sent; NULL: it is sent as it is */
    char *commands[FAKE_COMMANDS]; /**< lines that came, with their ends cut */
    size_t n_commands;
    char in[1 << 16];
    size_t in_len;
};

/** Makes a monitor that listens in a directory of its own. Never fails. */
struct fake_qemu *fake_new(void);

/** Closes everything and removes the directory. Returns NULL. */
struct fake_qemu *fake_free(struct fake_qemu *fake);

/** Begins to listen, after fake_close(). */
void fake_listen(struct fake_qemu *fake);

/** Stops listening and removes the socket. */
void fake_close(struct fake_qemu *fake);

/** Hangs up on the client. */
void fake_hang_up(struct fake_qemu *fake);

/**
 * Accepts a client if none is served, and answers what it sent. Returns whether anything happened.
 */
bool fake_serve(struct fake_qemu *fake);

/** Sends octets as they are. */
void fake_send(struct fake_qemu *fake, const void *octets, size_t len);

/** Sends an event; @a data is json or NULL. */
void fake_event(struct fake_qemu *fake, const char *name, const char *data);

/** How many commands that came contain a text. */
size_t fake_count(const struct fake_qemu *fake, const char *text);

#endif
