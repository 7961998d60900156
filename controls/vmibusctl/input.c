/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "input.h"

#include <inttypes.h>
#include <stdio.h>

#include "frame_json.h"
#include "report.h"

int input_begin(struct vmibusctl *ctl, const char *word, const char *token, struct input *input) {
    struct vm *vm;
    int r;

    *input = (struct input){.ctl = ctl};
    r = roster_fetch(ctl, &input->roster);
    if (r == STATUS_OK)
        r = roster_lookup(&input->roster, word, &vm);
    if (r == STATUS_OK)
        r = authority_take(ctl, vm, VMIBUS_LEASE_CLASS_INPUT, token, &input->authority);
    return r;
}

int input_send(struct input *input, const struct vmibus_input_event *events, size_t n) {
    const struct vm *vm = input->authority.vm;
    struct vmibus_message reply;
    int r = vmibus_input(input->ctl->bus, &vm->endpoint, input->authority.token, events, n, &reply);
    uint64_t accepted = reply.frame.ack.count;

    input->sent += accepted;
    if (r)
        r = report_refusal(input->ctl, r, &reply, "cannot send input to %s (%" PRIu64 " events arrived before)",
                           printable(vm->name), input->sent);
    else if (accepted < n)
        r = report_failure("%s took only %" PRIu64 " of %zu events", printable(vm->name), accepted, n);
    vmibus_message_deinit(&reply);
    return r;
}

int input_end(struct input *input, int status) {
    struct json_object *object;

    authority_release(input->ctl, &input->authority);
    roster_deinit(&input->roster);
    if (status == STATUS_OK && input->ctl->json) {
        object = json_object_new_object();
        json_object_object_add(object, "count", json_object_new_uint64(input->sent));
        frame_json_print(object);
    }
    return status;
}
