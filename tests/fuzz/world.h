/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole bus for fuzz targets, small: core and listener in this process, peers over socket pairs.  Whatever goes wrong with
 * it is none of the target's business, and aborts.
 */
#ifndef TESTS_FUZZ_WORLD_H
#define TESTS_FUZZ_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "core/core.h"

struct listener;

#define WORLD_TAIL_BOUND 8192u

struct world {
    struct vmibus_core *core;
    struct listener *listener;
};

/** Ends the program: a rule is broken. */
void fuzz_fail(const char *target, const char *rule) __attribute__((noreturn));

/**
 * Opens one.
 * @param policy      taken; NULL: the one without rules
 * @param memory_path where the memory authority listens; NULL: it is in the core
 */
void world_open(struct world *world, struct policy *policy, const char *memory_path);

/** Closes it with all connections; what is still charged then aborts. */
void world_close(struct world *world);

/** Does what there is to do, without waiting. */
void world_dispatch(struct world *world);

/** A non-blocking socket to a new peer, which has said nothing yet. */
int world_connect(struct world *world);

/** The current memory context of a slot, 0: none. */
uint64_t world_epoch(const struct world *world, uint32_t slot);

/** A socket that listens nowhere. */
int fuzz_listen_nowhere(void);

/** A lawful frame of a kind, empty but for its header. */
struct vmibus_frame fuzz_frame(enum vmibus_kind kind, enum vmibus_direction direction);

/** A lawful HELLO. */
struct vmibus_frame fuzz_hello(enum vmibus_role role, enum vmibus_channel channel);

#endif
