/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The retire barrier: an epoch that has ended is retired when nobody holds its memory context any more:
 * no attachment, no command under way.  Only then is the sensor that proposed it told MEM_RETIRED, so that it may
 * use RAM objects of its own for something else.
 *
 * Holders have until a deadline.  Then those that can be disconnected are: their attachments end at
 * once, and their connection with an ERROR that says why.  A sensor in this process cannot; it is
 * shown as overdue (MEM_QUERY HOLDERS), as is a command that does not end.
 *
 * A barrier takes nothing back: a descriptor that was given, and what was mapped by it, its receiver
 * keeps as long as it likes, also after its connection.  Retired means that everybody who keeps to the rules
 * has let go.
 *
 * One timer, armed only while a deadline is ahead.  The loop's thread only.
 */
#ifndef MEMORY_RETIRE_H
#define MEMORY_RETIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"
#include "util/loop.h"

struct authority;
struct authority_client;
struct memctx;
struct memory_endpoint;

/** A context's part; embedded in it. */
struct retiring {
    struct list link;                       /**< among the waiting or the overdue, once its epoch has ended */
    struct authority *authority;            /**< NULL: no epoch of its own has ended */
    struct authority_client *provider;      /**< who proposed it; NULL: unknown, or gone */
    uint64_t deadline;                      /**< CLOCK_MONOTONIC nanoseconds */
};

/** An authority's part; embedded in it. */
struct retirement {
    struct list waiting;                    /**< contexts, ascending by deadline */
    struct list overdue;                    /**< those whose deadline has passed */
    struct loop_timer timer;
    bool paused;                            /**< nobody is overdue: releases are not heard */
};

/** Prepares the authority's part. */
void retirement_init(struct authority *authority);

/** Everything retiring has been released by now. */
void retirement_deinit(struct authority *authority);

/** The epoch of a context has ended; called while its endpoint still holds it. */
void retire_begin(struct memory_endpoint *endpoint, struct memctx *memctx);

/** A context that was handed over while it was retiring. @param deadline CLOCK_MONOTONIC nanoseconds */
void retire_take_over(struct authority *authority, struct memctx *memctx, uint64_t deadline);

/** Nobody is heard from now on, until the process ends: so nobody is overdue. */
void retirement_pause(struct authority *authority);

/**
 * Deadlines of such contexts count from now on, and each holder has the whole time: nobody has heard its release meanwhile.
 */
void retirement_go_on(struct authority *authority);

/** The last reference to a context is gone: tells its provider, if its epoch had ended. */
void retire_end(struct memctx *memctx);

/**
 * Whether a write of an earlier occupant, or of the same VM under another slot, is under way in the memory of an endpoint's
 * current context: until it has ended nobody else writes there.
 */
bool retire_is_written(const struct memory_endpoint *endpoint);

/** A client that may have provided contexts is gone: it is not told any more. */
void retire_forget(struct authority_client *client);

#endif
