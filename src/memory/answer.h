/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers: the ACK of a command, from its begin to its sending, and refusals in it. */
#ifndef MEMORY_ANSWER_H
#define MEMORY_ANSWER_H

#include <stdint.h>

#include <vmibus/protocol.h>

/** Begins the ACK to a command: header, kind, stamps. */
void answer_begin(struct vmibus_frame *answer, const struct vmibus_frame *command,
                  uint64_t received);

/** Whether an ACK is wanted: a success of a command with the flag NO_ACK is not told. */
static inline int answer_is_wanted(const struct vmibus_frame *answer, uint32_t command_flags) {
    return answer->ack.error != VMIBUS_ERROR_OK || !(command_flags & VMIBUS_FRAME_NO_ACK);
}

/** Writes a refusal into an ACK and returns the error. */
static inline uint16_t answer_refuse(struct vmibus_ack *ack, enum vmibus_error error,
                                     enum vmibus_reason reason, uint64_t value) {
    ack->error = (uint16_t)error;
    ack->reason = (uint16_t)reason;
    ack->value = value;
    return (uint16_t)error;
}

#endif
