/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The input device of a synthetic VM: counts events, tracks what is held, and records into the ring
 * in guest RAM (stub_map.h).  No allocation, no system call.  The ring is only written, never
 * believed: anybody with a MEMWRITE lease may have changed it.
 */
#ifndef STUB_INPUT_H
#define STUB_INPUT_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "stub_map.h"

#define STUB_KEYS 768 /* KEY_CNT of <linux/input-event-codes.h> */

struct stub_input {
    struct stub_input_header
        *ring; /**< borrowed; NULL while the RAM is not ready: events are not recorded then */
    uint64_t count;
    uint64_t released;
    uint32_t held;
    uint64_t keys[STUB_KEYS / 64];
};

/**
 * The guest was reset: nothing is held, counting begins again, nothing is recorded before
 * stub_input_attach().
 */
void stub_input_reset(struct stub_input *input);

/** Begins recording into a ring of cleared RAM. */
void stub_input_attach(struct stub_input *input, struct stub_input_header *ring);

/** Applies an event. Returns false, and does nothing, for one that no such device makes. */
bool stub_input_apply(struct stub_input *input, const struct vmibus_input_event *event);

/** Releases everything held, as events; returns how many. */
uint32_t stub_input_release(struct stub_input *input);

#endif
