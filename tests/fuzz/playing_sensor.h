/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sensor behind a socket that plays with controls on one bus: it offers and withdraws VMs, gives them memory of which it knows
 * the truth, and answers commands when it likes.  It demands of what it is sent: no command under a token that is known to have
 * ended, and none for a VM that it has withdrawn.
 */
#ifndef TESTS_FUZZ_PLAYING_SENSOR_H
#define TESTS_FUZZ_PLAYING_SENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "fuzz/player.h"
#include "fuzz/stream.h"

#define SENSOR_VMS 4
#define SENSOR_COMMANDS 32

struct sensor_vm {
    uint32_t slot;          /**< 0: not offered, or not taken */
    uint64_t generation, epoch;
};

struct playing_sensor {
    struct stream stream;
    const struct book *book;
    struct sensor_vm vms[SENSOR_VMS];
    struct vmibus_header commands[SENSOR_COMMANDS]; /**< not answered yet */
    unsigned n_commands;
    uint64_t correlation;
};

/** Connects, says HELLO and announces itself. @a fd is taken. */
void playing_sensor_connect_consume_fd(struct playing_sensor *sensor, int fd);

/** Ends its connection, and with it its VMs. Harmless without one. */
void playing_sensor_disconnect(struct playing_sensor *sensor);

/** Offers a VM; @a choice says what is told of it. Harmless if it is offered. */
void playing_sensor_offer(struct playing_sensor *sensor, unsigned vm, uint8_t choice);

/** Withdraws one. */
void playing_sensor_withdraw(struct playing_sensor *sensor, unsigned vm);

/** Says something of a VM: header and body of a kind of its own. */
void playing_sensor_say(struct playing_sensor *sensor, unsigned vm, struct vmibus_frame *frame, const void *tail, size_t tail_length);

/** Proposes RAM; with @a choice 0 all of it is true. */
void playing_sensor_propose_layout(struct playing_sensor *sensor, unsigned vm, uint8_t choice);

/** Proposes the kernel's root; with @a choice 0 it is the right one. */
void playing_sensor_propose_root(struct playing_sensor *sensor, unsigned vm, uint8_t choice);

/** Answers the oldest command. */
void playing_sensor_answer(struct playing_sensor *sensor, enum vmibus_error error);

/** Hears what it is sent. */
void playing_sensor_hear(struct playing_sensor *sensor);

#endif
