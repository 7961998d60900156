/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "standstill.h"

#include <string.h>

#include "report.h"

static int command(const struct standstill *standstill, enum vmibus_vm_operation operation, const char *trouble) {
    struct vmibus_message reply;
    int r = vmibus_control_vm(standstill->ctl->bus, &standstill->endpoint, 0, operation, &reply);

    if (r)
        r = report_refusal(standstill->ctl, r, &reply, "%s %s", printable(standstill->name), trouble);
    vmibus_message_deinit(&reply);
    return r;
}

int standstill_begin(struct vmibusctl *ctl, const struct vm *vm, struct standstill *standstill) {
    int r;

    *standstill = (struct standstill){.ctl = ctl, .endpoint = vm->endpoint};
    memcpy(standstill->name, vm->name, sizeof(standstill->name));
    r = command(standstill, VMIBUS_VM_OPERATION_HOLD, "cannot be held still");
    standstill->held = r == STATUS_OK;
    return r;
}

int standstill_end(struct standstill *standstill) {
    if (!standstill->held)
        return STATUS_OK;
    standstill->held = false;
    return command(standstill, VMIBUS_VM_OPERATION_LET_GO, "was not held still to the end");
}
