/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl power: power and run state. */

#include <vmibus/names.h>

#include "authority.h"
#include "frame_json.h"
#include "report.h"

static int command(struct vmibusctl *ctl, const struct vm *vm, const char *word, uint64_t token) {
    int power = vmibus_power_operation_from_name(word), vm_operation = vmibus_vm_operation_from_name(word);
    struct vmibus_message reply;
    int r;

    if (power > 0)
        r = vmibus_power(ctl->bus, &vm->endpoint, token, (enum vmibus_power_operation)power, &reply);
    else
        r = vmibus_control_vm(ctl->bus, &vm->endpoint, token, (enum vmibus_vm_operation)vm_operation, &reply);
    if (r)
        r = report_refusal(ctl, r, &reply, "cannot %s %s", word, printable(vm->name));
    else if (ctl->json)
        frame_json_print(frame_json_body(&reply.frame));
    vmibus_message_deinit(&reply);
    return r;
}

/* Holding needs no lease, and ends with the connection: it has a verb of its own. */
static bool is_run_state(const char *word) {
    int operation = vmibus_vm_operation_from_name(word);

    return operation == VMIBUS_VM_OPERATION_PAUSE || operation == VMIBUS_VM_OPERATION_RESUME;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *word = arguments->words[1];
    struct authority authority = {};
    struct roster roster = {};
    struct vm *vm;
    int r;

    if (vmibus_power_operation_from_name(word) <= 0 && !is_run_state(word))
        return vmibusctl_usage("operation", word, "it is reset, powerdown, quit, wakeup, pause or resume");
    r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = authority_take(ctl, vm, VMIBUS_LEASE_CLASS_POWER, arguments_get(arguments, "token"), &authority);
    if (r == STATUS_OK) {
        r = command(ctl, vm, word, authority.token);
        authority_release(ctl, &authority);
    }
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"token", "TOKEN", "the POWER lease is held already, under this fencing token"},
    {},
};

const struct verb verb_power = {
    .name = "power",
    .synopsis = "VM OPERATION",
    .summary = "reset, powerdown, quit, wakeup, pause or resume a VM",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
