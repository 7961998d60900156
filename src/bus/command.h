/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands under way at sensors.  A command lives from its acceptance until its sensor completes it,
 * also beyond its control: only then is it known that nothing is in flight under its lease.
 */
#ifndef BUS_COMMAND_H
#define BUS_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/event.h"
#include "util/audit.h"
#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"
#include "util/pool.h"

struct bus;
struct control;
struct endpoint;
struct lease;
struct sensor;
struct watch;

/** What a command is, and so who waits for its end. */
enum command_purpose {
    COMMAND_LEASED,     /**< a control's, under the token of a lease */
    COMMAND_ASKED,      /**< a control's that needs no lease */
    COMMAND_WATCH,      /**< a control's that begins or ends a watch */
    COMMAND_RELEASE,    /**< the bus's own INPUT_RELEASE, before a lease is free */
    COMMAND_KEYS_UP,    /**< the bus's own CMD_INPUT, which releases what was pressed through another provider */
    COMMAND_HOLD,       /**< the bus's own CMD_VM HOLD or LET_GO */
    COMMAND_UNWATCH,    /**< the bus's own end of a watch */
    COMMAND_REWATCH,    /**< the bus's own beginning anew of one, at a sensor that was started anew */
};

struct command {
    uint64_t id;                /**< position in the table, and a number of its own */
    struct control *control;    /**< NULL: gone; nobody is answered */
    struct endpoint *endpoint;
    struct sensor *sensor;      /**< NULL while it waits for its time */
    enum command_purpose purpose;
    uint32_t group;             /**< whose provider executes it: one VMIBUS_GROUP_ bit; 0: the bus's own */
    bool expects;               /**< it waits for a provider that is expected, not for its time */
    struct lease *lease;        /**< of LEASED and RELEASE, else NULL */
    struct watch *watch;        /**< of WATCH, UNWATCH and REWATCH, else NULL */
    struct list control_link;
    struct list endpoint_link;
    struct account *account;    /**< referenced: the charge may outlive the control; NULL: the bus's own command */
    struct charge charge;
    struct loop_timer timer;    /**< not-before */
    struct vmibus_frame frame;
    struct tail *tail;          /**< kept while it waits for its time */
    struct audit_waiter waiter; /**< for its intent to be on the disk, before anything else */
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

/** What a control asks of a sensor. */
struct command_request {
    struct control *control;
    struct endpoint *endpoint;
    struct lease *lease;        /**< whose token was checked; NULL: none is needed */
    struct watch *watch;        /**< that begins or ends; NULL: none */
    uint32_t group;             /**< whose provider executes it: one VMIBUS_GROUP_ bit */
    struct sensor *sensor;      /**< who executes it, where that is no provider; else NULL */
    const struct vmibus_frame *frame;
    const void *tail;
    uint64_t received, audit;
};

/**
 * Begins a command that a sensor executes; its lease, capability and shape have been checked.  It is answered now or later,
 * whatever happens; its watch is told first, by watch_answered() or watch_not_begun().
 */
void command_begin(const struct command_request *request);

/** Sends INPUT_RELEASE in the bus's own name; lease_input_answered() tells how it ended, perhaps before this returns. */
void command_begin_input_release(struct endpoint *endpoint, struct lease *lease);

/** Has the provider of INPUT release whatever may be down, if anything may. */
void command_begin_key_release(struct endpoint *endpoint);

/** Sends CMD_VM HOLD or LET_GO in the bus's own name; hold_answered() tells how it ended, perhaps before this returns. */
void command_begin_hold(struct endpoint *endpoint, struct sensor *sensor, enum vmibus_vm_operation operation);

/** Sends WATCH REMOVE in the bus's own name; watch_answered() tells how it ended, perhaps before this returns. */
void command_begin_unwatch(struct endpoint *endpoint, struct sensor *sensor, struct watch *watch, uint32_t number);

/** Has a watch begun anew, in the bus's own name; watch_begun_anew() tells how it ended, perhaps before this returns. */
void command_begin_rewatch(struct endpoint *endpoint, struct sensor *sensor, struct watch *watch,
                           const struct vmibus_watch *request);

/** How a sensor answers. */
struct command_result {
    const struct vmibus_ack *ack;
    const void *tail;
    size_t tail_length;
    const int *fds;             /**< duplicated */
    size_t n_fds;
};

/** A sensor completed a command. An unknown id is ignored. */
void command_complete(struct bus *bus, struct sensor *sensor, uint64_t id, const struct command_result *result);

/** The control goes: what waits is dropped, what runs is cancelled. */
void command_drop_control(struct control *control);

/** The lease has ended: answers what waits for its time under it STALE_TOKEN. */
void command_drop_waiting(struct lease *lease, enum vmibus_reason reason);

/** Providers that were expected have come, or are expected no more: what waited for them goes on. */
void command_see_providers(struct endpoint *endpoint);

/** A command that waits, as it was handed over: it goes on waiting. 0, or as charge_take() and region_take(). */
int command_take_over(const struct command_request *request);

/** Answers what is at sensors: they are about to end, and nobody knows what they did of it. */
void command_end_all(struct endpoint *endpoint);

/** Answers all commands of an endpoint GONE. */
void command_drop_endpoint(struct endpoint *endpoint);

/** Answers those of an endpoint that are at a sensor for one of these groups. */
void command_drop_groups(struct endpoint *endpoint, const struct sensor *sensor, uint32_t groups, enum vmibus_error error,
                         enum vmibus_reason reason);

/** Whether a command for a group is at a sensor. */
bool command_is_under_way(const struct endpoint *endpoint, const struct sensor *sensor, uint32_t group);

/** When the oldest command was sent that is at a sensor: CLOCK_MONOTONIC nanoseconds; 0: there is none. */
uint64_t command_oldest(const struct sensor *sensor);

#endif
