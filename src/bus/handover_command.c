/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/handover_record.h"

#include <errno.h>

#include "bus/bus.h"
#include "bus/command.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/watch.h"

/* Never reused. */
enum {
    COMMAND_FRAME = 20,
    COMMAND_TAIL = 21,
};

struct command_state {
    uint32_t group;
    uint32_t watch;     /* its number */
    uint64_t received, audit;
    bool leased;
};

static const struct handover_member command_members[] = {
    HANDOVER_MEMBER(1, struct command_state, group),    HANDOVER_MEMBER(2, struct command_state, watch),
    HANDOVER_MEMBER(3, struct command_state, received), HANDOVER_MEMBER(4, struct command_state, audit),
    HANDOVER_MEMBER(5, struct command_state, leased),
};

void handover_put_commands(struct handover_writer *writer, const struct control *control) {
    const struct command *command;

    list_for_each(command, &control->commands, control_link) {
        const struct command_state state = {
            .group = command->group,
            .watch = command->watch ? command->watch->number : 0,
            .received = command->received,
            .audit = command->audit,
            .leased = command->lease != NULL,
        };

        if (command->sensor)
            continue;
        handover_begin(writer, CONTROL_COMMAND);
        handover_put_place(writer, command->endpoint, command->lease ? command->lease->lease_class : 0);
        PUT(writer, command_members, &state);
        handover_put(writer, COMMAND_FRAME, &command->frame, sizeof(command->frame));
        if (command->tail)
            handover_put(writer, COMMAND_TAIL, command->tail->data, command->tail->length);
        handover_end(writer);
    }
}

/* Which watch a command is for; false: it is none that it could be for. */
static bool find_watch(const struct bus_handover *handover, const struct control *control, uint32_t number, struct watch **watchp) {
    *watchp = watch_of_number(&handover->bus->watches, number);
    return number == 0 || (*watchp && (*watchp)->control == control);
}

void handover_take_command(struct bus_handover *handover, struct control *control, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member, tail = {};
    struct command_state state = {};
    struct vmibus_frame frame = {};
    struct command_request request;
    struct watch *watch;
    struct place place;
    struct endpoint *endpoint = handover_take_place(handover, record, &place);
    int r;

    while (handover_next(&records, &member))
        if (member.tag == COMMAND_FRAME)
            handover_copy(&member, &frame, sizeof(frame));
        else if (member.tag == COMMAND_TAIL)
            tail = member;
        else
            (void)TAKE(&member, command_members, &state);
    if (!endpoint || record->handover->error)
        return;
    if (!place.slot || !control_binding_in(control, place.slot) || frame.header.slot != place.slot ||
        frame.header.generation != place.generation || frame.header.tail_length != tail.length ||
        tail.length > handover->bus->options.tail_bound || __builtin_popcount(state.group) != 1 || state.group >> N_GROUPS ||
        state.leased != (place.lease_class != 0) || !find_watch(handover, control, state.watch, &watch)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    request = (struct command_request){
        .control = control,
        .endpoint = endpoint,
        .lease = place.lease_class ? &endpoint->leases[place.lease_class - 1] : NULL,
        .watch = watch,
        .group = state.group,
        .frame = &frame,
        .tail = tail.octets,
        .received = state.received,
        .audit = state.audit,
    };
    r = command_take_over(&request);
    if (r)
        handover_wrong(record->handover, handover_outcome(r));
}
