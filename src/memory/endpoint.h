/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the memory authority knows of one endpoint slot: its occupant, the current memory context, the
 * fences, whether writes are refused at present, and the worker for what is long or can block.
 *
 * It begins and ends epochs, and tells the bus of each exactly once.
 */
#ifndef MEMORY_ENDPOINT_H
#define MEMORY_ENDPOINT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "memory/authority.h"
#include "memory/epoch_page.h"
#include "memory/fence.h"
#include "memory/memctx.h"
#include "memory/quiesce.h"
#include "util/loop.h"

struct worker;

/** Who says that this is the VM that the bus says it is. */
struct memory_identity {
    const struct authority_client *client;  /**< NULL: nobody does */
    uint32_t pid;                           /**< and which process it says; 0: none */
    uint64_t start_time;
};

struct memory_endpoint {
    struct authority *authority;
    uint32_t slot;
    bool open;
    bool told;                      /**< apart: since the link began */
    uint64_t generation;
    uint8_t uuid[16];
    bool identified;                /**< apart: name and UUID are those that a sensor said, and not the bus's to change */
    bool provider_is_known;         /**< the bus has told who provides its memory */
    uint8_t provider[16];           /**< that sensor's session; zeros: nobody */
    char name[VMIBUS_NAME_BOUND + 1];
    struct memory_identity identity;

    struct memctx *current;         /**< NULL: no epoch */
    uint64_t last_epoch;            /**< the one that ended last */
    uint16_t last_reason;           /**< why */
    struct loop_source exit_source; /**< the process of the current epoch */
    struct epoch_page page;         /**< made with the first attachment */

    struct fences fences;
    _Atomic uint16_t busy;          /**< why writes are refused; VMIBUS_REASON_NONE: they are not */
    struct worker *worker;          /**< this occupant's; NULL until it is needed */
    struct job *look;               /**< on the worker; NULL: none */
    struct quiesce quiesce;
};

/** Prepares a slot that nobody occupies. */
void memory_endpoint_init(struct memory_endpoint *endpoint, struct authority *authority,
                          uint32_t slot);

/** Frees what it has; nothing may be in flight. Tells nobody. */
void memory_endpoint_deinit(struct memory_endpoint *endpoint);

/** An occupant has come. */
void memory_endpoint_open(struct memory_endpoint *endpoint, uint64_t generation,
                          const uint8_t *uuid, const char *name, size_t name_length);

/**
 * Who provides its memory from now on: nobody else may speak of it.  A context goes on, until the next one proposes another; it
 * ends if nobody provides it any more.
 * @param session the sensor's; zeros: nobody
 */
void memory_endpoint_set_provider(struct memory_endpoint *endpoint, const uint8_t *session);

/** It has gone: ends its epoch and its fences. */
void memory_endpoint_close(struct memory_endpoint *endpoint, uint16_t reason);

/**
 * Begins an epoch, ending the one before.
 * @param memctx its reference is consumed, also on failure
 * @return 0, or a negative errno: then no epoch is current
 */
int memory_endpoint_begin_epoch(struct memory_endpoint *endpoint, struct memctx *memctx);

/** Ends the current epoch, if there is one, and tells the bus. */
void memory_endpoint_end_epoch(struct memory_endpoint *endpoint, uint16_t reason);

/** Ends an epoch if it is the current one. */
void memory_endpoint_end_epoch_of(struct memory_endpoint *endpoint, const struct memctx *memctx,
                                  uint16_t reason);

/** Publishes the current context. */
void memory_endpoint_publish(struct memory_endpoint *endpoint);

/** Publishes once more that the last epoch has ended. */
void memory_endpoint_publish_end(struct memory_endpoint *endpoint);

/** Publishes that there is none, and why. */
void memory_endpoint_publish_none(struct memory_endpoint *endpoint, uint16_t reason);

/**
 * Looks at the backing and the whole canary of the current context, and ends its epoch if they changed: at once, or where
 * looking may block on the worker, one look at a time.
 */
void memory_endpoint_look(struct memory_endpoint *endpoint);

/**
 * The same look, of which nothing comes yet. Any thread.
 * @param loads on the loop's thread
 * @return the reason to end the epoch, or VMIBUS_REASON_NONE
 */
uint16_t memory_endpoint_reason_to_end(const struct memctx *memctx, bool loads);

/**
 * What was handed over goes on: its process is watched, and its context looked at; one that could not be handed over has
 * ended.
 */
void memory_endpoint_go_on(struct memory_endpoint *endpoint);

/** Sees to it that there is a worker. 0 or a negative errno. */
int memory_endpoint_need_worker(struct memory_endpoint *endpoint);

/** Whether somebody relies on the current context: it is attached, or somebody may write. */
bool memory_endpoint_is_relied_on(const struct memory_endpoint *endpoint);

/** Tells the bus that nothing is in flight under a token. A fence_drained_fn: context is the endpoint. */
void memory_endpoint_drained(void *context, uint64_t generation, uint64_t token);

#endif
