/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Steps on a VM's life: it is reset, or quits and comes back as another. */
#include <stdio.h>

#include "differential/connection.h"
#include "differential/sequence.h"
#include "differential/steps.h"

/* Everybody lets go of an epoch that ends, or would be made to. */
static void release_all(struct vm *vm) {
    for (int actor = 0; actor < MODEL_ACTORS; actor++)
        while (model.attached[actor][vm->guest.vm])
            step_detach(actor, vm);
}

/* The bystander sees it come up again, and knows its new name. Apart, the end of the epoch may come after the command's answer. */
static void find_again(struct vm *vm) {
    uint64_t before = vm->at.epoch;
    char name[16];

    snprintf(name, sizeof(name), "stub-%u", vm->guest.vm);
    do {
        vm->at = wire_find(sequence.daemon.bystander, name);
    } while (vm->at.epoch == before);
    vm->boot++;
    guest_open(&vm->guest, daemon_memory_pid(&sequence.daemon), vm->guest.vm);
}

/* Its leases went with the endpoint, and whoever waited for one was told. */
static void lose_leases(struct vm *vm) {
    struct vmibus_frame answer;

    for (unsigned c = 0; c < MODEL_CLASSES; c++) {
        struct lease *gone = &vm->leases[c];

        for (; gone->n_line > 0; model_line_remove(gone, 0)) {
            if (!actor_answer(&sequence.actors[gone->line[0].actor], gone->line[0].correlation, &answer))
                sequence_fail("actor %d was lost with an endpoint", gone->line[0].actor);
            sequence_expect(&answer, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, 0);
        }
        *gone = (struct lease){.holder = -1, .reason = VMIBUS_REASON_NONE};
    }
}

void step_power(int actor, struct vm *vm, enum vmibus_power_operation operation) {
    struct lease *lease = model_lease(vm, VMIBUS_LEASE_CLASS_POWER);
    struct vmibus_frame frame = sequence_command(VMIBUS_KIND_CMD_POWER, vm), answer;
    enum vmibus_reason reason;
    enum vmibus_error error;

    if (sequence.relaxed)
        return;
    frame.cmd_power.operation = (uint8_t)operation;
    frame.cmd_power.token = sequence_choose_token(lease);
    error = model_judge_token(lease, actor, frame.cmd_power.token, &reason);
    if (!model_may(actor, VMIBUS_LEASE_CLASS_POWER)) {
        error = VMIBUS_ERROR_DENIED;
        reason = VMIBUS_REASON_NO_CAPABILITY;
    }
    if (!error)
        release_all(vm);
    if (!connection_ask(actor, &frame, NULL, 0, &answer) || !sequence_expect(&answer, error, reason, 1))
        return;
    if (operation == VMIBUS_POWER_OPERATION_QUIT)
        lose_leases(vm);
    vm->last_epoch = operation == VMIBUS_POWER_OPERATION_QUIT ? 0 : vm->at.epoch;
    find_again(vm);
}
