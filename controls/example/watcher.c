/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "watcher.h"

#include <errno.h>
#include <stdio.h>

#include <vmibus/names.h>

static void handle(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    const struct vmibus_frame *frame = &message->frame;

    (void)bus;
    (void)userdata;
    if (frame->header.kind == VMIBUS_KIND_ROSTER)
        printf("VM %u: %s %.*s\n", frame->header.slot, vmibus_roster_change_name(frame->roster.change),
               (int)frame->header.tail_length, (const char *)message->tail);
    else if (frame->header.kind == VMIBUS_KIND_LIFECYCLE)
        printf("VM %u: %s\n", frame->header.slot, vmibus_vm_state_name(frame->lifecycle.state));
    fflush(stdout);
}

int watcher_run(struct vmibus *bus) {
    int r;

    vmibus_set_handler(bus, handle, NULL);
    r = vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE));
    while (r == 0 || r == -EINTR)
        r = vmibus_wait(bus, -1);
    return r;
}
