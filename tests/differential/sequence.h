/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One random sequence: the daemon that it runs against, its actors, its randomness, and the comparison of what was
 * answered with what should be.
 */
#ifndef TESTS_DIFFERENTIAL_SEQUENCE_H
#define TESTS_DIFFERENTIAL_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "daemon/daemon.h"
#include "differential/actor.h"
#include "differential/model.h"

struct sequence {
    struct daemon daemon;
    uint64_t seed, random;
    unsigned step;
    bool relaxed;                   /**< anything may be refused */
    struct actor actors[MODEL_ACTORS];
    unsigned done, refused, lost;
};

/** The one that runs. */
extern struct sequence sequence;

/** A random number below a bound. */
uint64_t sequence_draw(uint64_t bound);

bool sequence_one_in(uint64_t n);

/** A token for a command under a lease: mostly the right one. */
uint64_t sequence_choose_token(const struct lease *lease);

/** A command to a VM. */
struct vmibus_frame sequence_command(enum vmibus_kind kind, const struct vm *vm);

/** Fails the test, and says how to see it again. */
void sequence_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/** Whether a command was done. Fails the test if its answer is not the one that has to come. */
bool sequence_expect(const struct vmibus_frame *answer, enum vmibus_error error, enum vmibus_reason reason, uint64_t count);

#endif
