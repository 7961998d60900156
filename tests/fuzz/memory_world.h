/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole memory authority apart for fuzz targets, small: authority, home and listener in this process, peers over socket pairs.
 * Whatever goes wrong with it is none of the target's business, and aborts.
 */
#ifndef TESTS_FUZZ_MEMORY_WORLD_H
#define TESTS_FUZZ_MEMORY_WORLD_H

#include "memory/authority.h"
#include "policy/policy.h"
#include "transport/memory_home.h"
#include "util/arena.h"
#include "util/audit.h"
#include "util/ledger.h"
#include "util/loop.h"

struct listener;

struct memory_world {
    struct loop *loop;
    struct ledger ledger;
    struct arena arena;
    struct audit audit;
    struct policy *policy;
    struct memory_home home;
    struct authority *authority;
    struct listener *listener;
};

/** Opens one, of incarnation 1. */
void memory_world_open(struct memory_world *world);

/** Closes it with all connections; what is still charged then aborts. */
void memory_world_close(struct memory_world *world);

/** Does what there is to do, without waiting. */
void memory_world_dispatch(struct memory_world *world);

/** A non-blocking socket to a new peer, which has said nothing yet. */
int memory_world_connect(struct memory_world *world);

#endif
