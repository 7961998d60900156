/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/answer.h"

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
