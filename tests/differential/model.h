/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What should be: the VMs, who holds which lease and who waits for it, and what a command has to come to by that.
 * Nothing here speaks to the daemon.
 */
#ifndef TESTS_DIFFERENTIAL_MODEL_H
#define TESTS_DIFFERENTIAL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#include "daemon/wire.h"
#include "differential/actor.h"
#include "differential/guest.h"

#define MODEL_ACTORS 4
#define MODEL_VMS 2
#define MODEL_CLASSES 3

/** An actor that waits for a lease. */
struct waiter {
    int actor;
    uint64_t correlation;           /**< of the command whose answer it waits for */
    uint32_t rank;
};

struct lease {
    int holder;                     /**< -1: nobody */
    uint64_t token;                 /**< the holder's or the last one's */
    enum vmibus_reason reason;      /**< why the last one lost it */
    struct waiter line[MODEL_ACTORS];
    size_t n_line;
};

struct vm {
    struct wire_endpoint at;
    uint64_t last_epoch;            /**< that ended in a reset; 0: none did */
    unsigned boot;
    struct lease leases[MODEL_CLASSES];
    struct guest guest;
};

struct model {
    bool many;                      /**< actors are of different users */
    struct vm vms[MODEL_VMS];
    uint64_t subscribed[MODEL_ACTORS]; /**< kinds */
    unsigned attached[MODEL_ACTORS][MODEL_VMS];
    uint64_t highest;               /**< token ever granted */
    uint64_t fences[ACTOR_SLOTS];   /**< the highest token that the authority has heard of, by slot */
};

/** Of the sequence that runs. */
extern struct model model;

/** The daemon's configuration, which makes the actors who they are. */
const char *model_config(void);

/** The user that an actor connects as. */
uid_t model_uid(int actor);

uint32_t model_rank(int actor);

/** Whether an actor may have leases of a class. */
bool model_may(int actor, unsigned lease_class);

static inline struct lease *model_lease(struct vm *vm, unsigned lease_class) {
    return &vm->leases[lease_class - 1];
}

/** The place of an actor among those that wait, or -1. */
int model_line_find(const struct lease *lease, int actor);

/** Puts one at the end; one that preempts goes before all of lower rank. */
void model_line_add(struct lease *lease, struct waiter waiter, bool preempts);

void model_line_remove(struct lease *lease, size_t i);

/** Of the leases that an actor holds the one that it has had longest; NULL: it holds none. */
struct lease *model_longest_held(int actor, struct vm **vm, unsigned *lease_class);

/** What a token is worth at the bus: lease_check() as the manual has it. */
enum vmibus_error model_judge_token(const struct lease *lease, int actor, uint64_t token, enum vmibus_reason *reason);

/** What the gates of the authority say of a write, before anything is translated. */
enum vmibus_error model_judge_write(int actor, const struct vm *vm, const struct vmibus_cmd_memwrite *body,
                                    enum vmibus_reason *reason);

#endif
