/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holding a guest still.
 *
 * Holds nest: the first one has the guest stopped, the last one that ends lets it go on.  A control has
 * holds by CMD_VM HOLD, each until its LET_GO, its disconnection, or the bound (bus_options.hold_ms);
 * the memory authority has one at most, by QUIESCE_BEGIN.
 *
 *      NONE --first hold--> STOPPING --the provider says so--> STILL --last hold ends--> ENDING --the provider says so--> NONE
 *
 * The provider of POWER gets CMD_VM HOLD and LET_GO, one at a time; whether the guest had run before, and
 * whether it goes on, is known there.  One that does not answer in time fails the holds that wait; if it
 * succeeds after all, it is told to let go.  A hold that comes while the guest is being let go waits for
 * that, then stops it anew.  A provider that fails to let go is asked again until it has or is gone.
 *
 * A hold that ends early (bound, policy, somebody lets the guest run by other means, the provider goes)
 * is simply over: the authority is told, a control learns of it by its LET_GO, which is refused.
 */
#ifndef BUS_HOLD_H
#define BUS_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"
#include "util/list.h"
#include "util/loop.h"

struct bus;
struct control;
struct endpoint;
struct sensor;

/** A provider that failed to let a guest go is asked again after this time. */
#define HOLD_RETRY_MS 1000

/** One hold; a control's is in its region, the authority's embedded below. */
struct hold {
    struct list link;               /**< in the endpoint's */
    struct list control_link;       /**< in control->holds, or control->departures */
    struct endpoint *endpoint;
    struct control *control;        /**< NULL: the authority's */
    uint64_t name;                  /**< the authority's name for it; 0: it has none */
    struct charge charge;           /**< of the control; the authority's one is the endpoint's */
    bool still;                     /**< in force: its holder was told so */
    uint64_t expires;               /**< CLOCK_MONOTONIC nanoseconds; while in force */
    struct vmibus_header header;    /**< of the command that waits for its answer */
    uint64_t received, audit;       /**< of the same */
    uint64_t place;                 /**< among the endpoint's, as it was handed over */
};

enum holding_state {
    HOLDING_NONE,
    HOLDING_STOPPING,
    HOLDING_STILL,
    HOLDING_ENDING,
};

/** All holds of an endpoint; embedded in it. */
struct holding {
    struct endpoint *endpoint;
    enum holding_state state;
    struct sensor *sensor;      /**< who was asked; NULL while NONE */
    bool asked;                 /**< its answer is due */
    struct list holds;          /**< waiting and in force, in the order in which they came */
    struct list leaving;        /**< LET_GO that waits until the guest goes on */
    struct hold authority;
    struct loop_timer timer;    /**< asked: patience; STILL: the first bound; ENDING: the next attempt */
};

/** Prepares that of an endpoint which has just come. */
void holding_init(struct holding *holding, struct endpoint *endpoint);

/** The endpoint goes: whoever waits is answered GONE. */
void holding_deinit(struct holding *holding);

/**
 * Executes CMD_VM HOLD or LET_GO of a control with the capability QUIESCE; answers it now, or when the guest stands still or
 * goes on.
 * @param audit the command's audit record
 */
void hold_execute(struct control *control, struct endpoint *endpoint, const struct vmibus_frame *command, uint64_t received,
                  uint64_t audit);

/** QUIESCE_BEGIN or QUIESCE_END of the memory authority; the answer may come before this returns. */
void hold_hear_link(struct endpoint *endpoint, const struct vmibus_frame *frame);

/** The provider answered CMD_VM HOLD or LET_GO of the bus, or will not any more. */
void hold_answered(struct endpoint *endpoint, enum vmibus_vm_operation operation, const struct vmibus_ack *ack);

/** A sensor published the run state: if it is who holds the guest, and the guest runs, every hold is over. */
void hold_see_state(struct endpoint *endpoint, const struct sensor *sensor, enum vmibus_vm_state state);

/** A sensor is started anew: if it keeps what it holds, a guest that stands still goes on doing so. */
void hold_leave_sensor(struct endpoint *endpoint, const struct sensor *sensor);

/** A sensor does not provide the endpoint any more. */
void hold_drop_sensor(struct endpoint *endpoint, const struct sensor *sensor);

/** The memory authority has forgotten what it held. */
void hold_drop_authority(struct endpoint *endpoint);

/** The control goes: its holds end. */
void hold_drop_control(struct control *control);

/** A control's hold as it was handed over, in its place. As charge_take() and region_take(). */
int hold_take_over(struct control *control, const struct hold *hold);

/** The state of a holding as it was handed over: at a provider that is claimed and keeps it, see struct sensor. */
void hold_take_over_state(struct holding *holding, enum holding_state state);

/** A holding that was handed over goes on. */
void hold_go_on(struct holding *holding);

/** A provider that was waited for has come, or is not waited for any more. */
void hold_see_providers(struct endpoint *endpoint);

/** The provider is about to end, and keeps no guest still beyond that: all holds are over. */
void hold_end_all(struct endpoint *endpoint);

/** Ends the holds whose holders may not have them any more. */
void hold_revoke_ungranted(struct endpoint *endpoint);

#endif
