/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/answer.h"

#include <vmibus/guest.h>

void answer_begin(struct vmibus_frame *answer, const struct vmibus_frame *command,
                  uint64_t received) {
    *answer = (struct vmibus_frame){
        .header =
            {
                .kind = VMIBUS_KIND_ACK,
                .direction = VMIBUS_DIRECTION_UP,
                .priority = VMIBUS_PRIORITY_HIGH,
                .version = command->header.version,
                .slot = command->header.slot,
                .generation = command->header.generation,
                .correlation = command->header.correlation,
            },
        .ack = {.command = command->header.kind, .received = received, .started = received},
    };
}

uint16_t answer_refuse_walk(struct vmibus_ack *ack, int r, uint64_t gva, uint8_t level) {
    ack->level = level;
    switch (r) {
    case VMIBUS_GUEST_NOT_PRESENT:
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT, gva);
    case VMIBUS_GUEST_RESERVED_BITS:
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_RESERVED_BITS, gva);
    case VMIBUS_GUEST_OUTSIDE_RAM:
        return answer_refuse(ack, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM, gva);
    case VMIBUS_GUEST_NON_CANONICAL:
        ack->level = 0;
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS, gva);
    default:
        ack->level = 0;
        return 0;
    }
}
