/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands under way at sensors.  A command lives from its acceptance until its sensor completes it,
 * also beyond its control: only then is it known that nothing is in flight under its lease.
 */
#ifndef BUS_COMMAND_H
#define BUS_COMMAND_H

#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/event.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"
#include "util/pool.h"

struct bus;
struct control;
struct endpoint;
struct lease;
struct sensor;

struct command {
    uint64_t id;                /**< position in the table, and a number of its own */
    struct control *control;    /**< NULL: gone; nobody is answered */
    struct endpoint *endpoint;
    struct sensor *sensor;      /**< NULL while it waits for its time */
    struct lease *lease;        /**< under whose token it runs; NULL: the bus's own hold */
    struct list control_link;
    struct list endpoint_link;
    struct account *account;    /**< referenced: the charge may outlive the control; NULL: the bus's own command */
    struct charge charge;
    struct loop_timer timer;    /**< not-before */
    struct vmibus_frame frame;
    struct tail *tail;          /**< kept while it waits for its time */
    uint64_t received, started, audit;
};

/** The commands of a bus: a pool, so that an id leads to its command in one step. */
struct command_table {
    struct bus *bus;
    struct pool pool;
    struct pool id_room;        /**< one block: ids */
    uint64_t *ids;              /**< by position; 0: nothing is there */
    uint32_t n_uses;
};

/** What a table carves from an arena, octets. */
size_t command_table_cost(uint32_t capacity);

/** Carves room for @a capacity commands from the bus's arena. 0 or a negative errno. */
int command_table_init(struct command_table *table, struct bus *bus, uint32_t capacity);

/** Releases it; no command may be in use. Harmless on a zeroed table. */
void command_table_deinit(struct command_table *table);

/**
 * Begins a command of the classes that sensors execute; its lease, capability and shape have been checked.
 * It is answered now or later, whatever happens.
 */
void command_begin(struct control *control, struct endpoint *endpoint, struct lease *lease, uint32_t group,
                   const struct vmibus_frame *frame, const void *tail, uint64_t received, uint64_t audit);

/** Sends INPUT_RELEASE in the bus's own name; lease_input_answered() tells how it ended, perhaps before this returns. */
void command_begin_input_release(struct endpoint *endpoint, struct lease *lease);

/** Sends CMD_VM HOLD or LET_GO in the bus's own name; hold_answered() tells how it ended, perhaps before this returns. */
void command_begin_hold(struct endpoint *endpoint, struct sensor *sensor, enum vmibus_vm_operation operation);

/** A sensor completed a command. An unknown id is ignored. */
void command_complete(struct bus *bus, struct sensor *sensor, uint64_t id, const struct vmibus_ack *ack);

/** The control goes: what waits is dropped, what runs is cancelled. */
void command_drop_control(struct control *control);

/** The lease has ended: answers what waits for its time under it STALE_TOKEN. */
void command_drop_waiting(struct lease *lease, enum vmibus_reason reason);

/** Answers all commands of an endpoint, or only those at one of its sensors (NULL: all), GONE. */
void command_drop_endpoint(struct endpoint *endpoint, struct sensor *sensor);

#endif
