/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers: the ACK of a command, from its begin to its sending, and refusals in it. */
#ifndef MEMORY_ANSWER_H
#define MEMORY_ANSWER_H

#include <stdint.h>

#include <vmibus/protocol.h>

/** Begins the ACK to a command: header, kind, stamps. */
void answer_begin(struct vmibus_frame *answer, const struct vmibus_frame *command,
                  uint64_t received);

/** Writes a refusal into an ACK and returns the error. */
static inline uint16_t answer_refuse(struct vmibus_ack *ack, enum vmibus_error error,
                                     enum vmibus_reason reason, uint64_t value) {
    ack->error = (uint16_t)error;
    ack->reason = (uint16_t)reason;
    ack->value = value;
    return (uint16_t)error;
}

/**
 * Writes into an ACK how a page walk ended: error, reason, level, and the address as the value.
 * @param r     what vmibus_guest_translate() returned
 * @param level the level that ended it
 * @return the error; 0 if r is nothing that the guest's tables say, but a failure of the host
 */
uint16_t answer_refuse_walk(struct vmibus_ack *ack, int r, uint64_t gva, uint8_t level);

#endif
