/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The gates at receipt, in their order: shape, capability, endpoint, buffer, fence, epoch, busy, deadline,
 * root, bounds.  Each either lets a command pass or writes its refusal into the ACK and returns the error.  What may
 * change between receipt and commit is asked again there (write.h).
 */
#ifndef MEMORY_GATE_H
#define MEMORY_GATE_H

#include <stdint.h>

#include <vmibus/protocol.h>

#include "memory/shape.h"
#include "memory/state.h"

struct buffer;

/** The endpoint that a command names, in the generation that it names. GONE. */
uint16_t gate_endpoint(struct authority *authority, const struct vmibus_frame *frame,
                       struct memory_endpoint **endpointp, struct vmibus_ack *ack);

/**
 * The same for a control, which has to have one of the capabilities there; who has them nowhere is not
 * told whether the endpoint exists.
 * @param any      one of these VMIBUS_CAP_ bits is needed
 * @param all      each of these is needed
 * @param named    the bit that a refusal names
 */
uint16_t gate_grant(struct authority_client *client, const struct vmibus_frame *frame,
                    uint32_t any, uint32_t all, uint32_t named,
                    struct memory_endpoint **endpointp, struct vmibus_ack *ack);

/** The epoch that a command names is the current one. STALE_EPOCH: value is the current one, or 0. */
uint16_t gate_epoch(const struct memory_endpoint *endpoint, uint64_t epoch,
                    struct vmibus_ack *ack);

/**
 * The address space that a command names: the physical one, the kernel's, or one of the sender's choosing at the kernel's
 * depth. TRANSLATION: no root is proven.
 * @param gva  for the refusal
 * @param root levels 0: physical
 */
uint16_t gate_root(const struct memctx *memctx, bool physical, uint64_t cr3, uint64_t gva,
                   struct vmibus_guest_root *root, struct vmibus_ack *ack);

/** All gates of a CMD_MEMWRITE, and what they found out. */
struct gate_passage {
    struct memory_endpoint *endpoint;
    struct fence *fence;
    struct vmibus_guest_root root;  /**< levels 0: physical */
    uint64_t deadline;              /**< see util/deadline.h */
    struct write_allowance *allowance; /**< borrowed from the client; NULL: not bounded */
    uint64_t metered;               /**< taken from the user's meter, as meter_worth(): given back if nothing is written */
    struct write_shape shape;       /**< as borrowed as frame and tail */
    struct buffer *buffer;          /**< that expect and source are in; NULL: in frame or tail */
    const uint8_t *octets;          /**< those to compare with, if any, then those to write; with a buffer for system calls only */
};

/**
 * Passes a CMD_MEMWRITE through all gates.
 * @param tail    borrowed, as is frame: @a passage points into them
 * @param now     CLOCK_MONOTONIC nanoseconds
 * @param passage filled if it passes
 * @return 0, or the error that @a ack tells of
 */
uint16_t gate_write(struct authority_client *client, const struct vmibus_frame *frame,
                    const void *tail, uint64_t now, struct gate_passage *passage,
                    struct vmibus_ack *ack);

#endif
