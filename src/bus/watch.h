/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watches: who asked that a range of a guest's memory be watched, and who does it.
 *
 *      BEGINS --the sensor says so--> GOES_ON --REMOVE, or somebody goes--> ENDS --the sensor has answered--> gone
 *
 * The bus gives each watch a number, which WATCH names to the provider of WATCH and WATCH_CHANGED names to the bus; that goes to
 * the session that asked, without a subscription, and only if who tells it is who was asked.  A watch costs its owner as long
 * as the sensor may still have it, whatever became of the owner.
 *
 * A watch that goes on ends early with its epoch, with its provider, with its endpoint, or with the grant: its owner is told so by
 * a last WATCH_CHANGED with the flag ENDED, which is never dropped and which nothing follows, and the sensor by WATCH
 * REMOVE in the bus's own name.
 */
#ifndef BUS_WATCH_H
#define BUS_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"
#include "util/list.h"
#include "util/pool.h"

struct arena;
struct control;
struct endpoint;
struct sensor;

/** Octets of a range at most. */
#define WATCH_RANGE_BOUND 65536

enum watch_state {
    WATCH_BEGINS,
    WATCH_GOES_ON,
    WATCH_ENDS,
};

struct watch {
    uint32_t number;                /**< position in the lower half, a count of uses in the upper; never 0 */
    enum watch_state state;
    struct control *control;        /**< NULL: nobody is told any more */
    struct endpoint *endpoint;
    struct sensor *sensor;          /**< who was asked */
    struct vmibus_watch request;    /**< what was asked for, to begin it anew at a sensor that was started anew */
    uint64_t epoch;                 /**< that it ends with, as the sensor said; 0: none */
    struct list control_link;       /**< control->watches */
    struct list endpoint_link;      /**< endpoint->watches */
    struct account *account;        /**< referenced: the charge may outlive the control */
    struct charge charge;
};

/** The watches of a bus: a pool, so that a number leads to its watch in one step. */
struct watch_table {
    struct pool pool;
    struct pool number_room;        /**< one block: numbers */
    uint32_t *numbers;              /**< by position; 0: nothing is there */
    uint32_t n_uses;
};

/** How many watches there may be, of so many that the ledger allows. */
uint32_t watch_table_capacity(uint64_t limit);

/** What a table carves from an arena, octets. */
size_t watch_table_cost(uint32_t capacity);

/** Carves room for @a capacity watches. 0 or a negative errno. */
int watch_table_init(struct watch_table *table, struct arena *arena, uint32_t capacity);

/** Releases it; no watch may be left. Harmless on a zeroed table. */
void watch_table_deinit(struct watch_table *table);

/**
 * Executes WATCH of a control with the capability for it; answers it now, or when the sensor has.
 * @param audit the command's audit record
 */
void watch_execute(struct control *control, struct endpoint *endpoint, const struct vmibus_frame *command, uint64_t received,
                   uint64_t audit);

/** The command that begins or ends it did not reach the sensor: it is as it was before. */
void watch_not_begun(struct watch *watch);

/**
 * The sensor answered the command that begins or ends it, or will not any more.
 * @param ack what the sensor says; made what the control is to be told
 * @return a watch that the sensor has and nobody wants, to be given to watch_remove(); NULL: there is none
 */
struct watch *watch_answered(struct watch *watch, struct vmibus_ack *ack);

/** Has the sensor end a watch that nobody wants any more. */
void watch_remove(struct watch *watch);

/** Whether the sensor may still be asked not to do what it was asked: to begin it, but not to end it. */
bool watch_may_be_cancelled(const struct watch *watch);

/** A sensor that is a provider of the endpoint published WATCH_CHANGED; one of somebody else's watches is ignored. */
void watch_hear(struct endpoint *endpoint, const struct sensor *sensor, struct vmibus_frame *frame, const void *tail);

/**
 * A WATCH_CHANGED has left the control's queue, told or dropped: its sensor may tell the next.  So a control that is slow gets
 * fewer and larger changes, and keeps one event of each of its watches waiting, however fast a guest is.
 */
void watch_see_taken(const struct control *control, const struct vmibus_frame *event);

/** A sensor is started anew: its watches are begun anew when it is back, see watch_begin_anew(). */
void watch_forget_sensor(struct endpoint *endpoint, const struct sensor *sensor);

/** An epoch of the endpoint is over. */
void watch_end_epoch(struct endpoint *endpoint, uint64_t epoch);

/** Somebody else may provide WATCH now, or nobody. */
void watch_see_providers(struct endpoint *endpoint);

/** A watch of a control as it was handed over. 0, CHARGE_QUOTA, CHARGE_PRESSURE, or -EBADMSG: its number is impossible. */
int watch_take_over(struct control *control, const struct watch *watch);

/** The watch of this number; NULL: there is none. */
struct watch *watch_of_number(struct watch_table *table, uint32_t number);

/** Begins watches anew that were handed over, once somebody provides WATCH who was waited for; ends them if nobody will. */
void watch_begin_anew(struct endpoint *endpoint);

/** The sensor answered that, or will not any more. */
void watch_begun_anew(struct watch *watch, struct sensor *sensor, const struct vmibus_ack *ack);

/** The endpoint goes, after its commands. */
void watch_drop_endpoint(struct endpoint *endpoint);

/** The control goes, after its commands. */
void watch_drop_control(struct control *control);

/** The policy was replaced: ends the watches that it does not allow any more, before anybody's grant is renewed. */
void watch_revoke_ungranted(struct endpoint *endpoint);

#endif
