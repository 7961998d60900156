/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Input.  Owns the queue of commands and what is held in the guest.
 */
#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

#include "vm.h"

/* How long the end of the sensor waits for keys to be released. */
#define LINGER_MS 2000

struct input_command {
    TAILQ_ENTRY(input_command) link;
    uint64_t id;
    uint16_t kind;
    bool cancelled;
    size_t n_events;
    size_t done; /* events that QEMU acknowledged */
    struct vmibus_input_event events[];
};

static void pump(struct vm *vm);

/* --- encoding -------------------------------------------------------------------------------- */

bool input_is_valid(const struct vmibus_input_event *event) {
    switch (event->type) {
    case VMIBUS_INPUT_TYPE_KEY:
        /* 2 is the kernel's autorepeat: a guest repeats by itself. */
        return (event->value == 0 || event->value == 1) &&
               (input_key_name(event->code) || input_button_name(event->code));
    case VMIBUS_INPUT_TYPE_RELATIVE:
        if (event->code == REL_WHEEL || event->code == REL_HWHEEL)
            return event->value >= -INPUT_WHEEL_BOUND && event->value <= INPUT_WHEEL_BOUND;
        return (event->code == REL_X || event->code == REL_Y) &&
               event->value >= -INPUT_RELATIVE_BOUND && event->value <= INPUT_RELATIVE_BOUND;
    case VMIBUS_INPUT_TYPE_ABSOLUTE:
        return (event->code == ABS_X || event->code == ABS_Y) && event->value >= 0 &&
               event->value <= INPUT_ABSOLUTE_BOUND;
    default:
        return false;
    }
}

/*
 * Adds {"type": TYPE, "data": DATA} to a list; consumes data, which may be NULL for want of memory.
 */
static int add_entry(json_object *list, const char *type, json_object *data) {
    json_object *entry = json_object_new_object();

    if (!entry || !data || json_object_object_add(entry, "type", json_object_new_string(type)) < 0)
        goto fail;
    if (json_object_object_add(entry, "data", data) < 0)
        goto fail;
    data = NULL;
    if (json_object_array_add(list, entry) < 0)
        goto fail;

    return 0;
fail:
    json_object_put(data);
    json_object_put(entry);

    return -ENOMEM;
}

static int add_button(json_object *list, const char *name, bool down) {
    json_object *data = json_object_new_object();

    if (data) {
        json_object_object_add(data, "down", json_object_new_boolean(down));
        json_object_object_add(data, "button", json_object_new_string(name));
    }

    return add_entry(list, "btn", data);
}

static int add_key(json_object *list, const char *name, bool down) {
    json_object *data = json_object_new_object(), *key = json_object_new_object();

    if (!data || !key) {
        json_object_put(key);
        json_object_put(data);
        return -ENOMEM;
    }
    json_object_object_add(key, "type", json_object_new_string("qcode"));
    json_object_object_add(key, "data", json_object_new_string(name));
    json_object_object_add(data, "down", json_object_new_boolean(down));
    json_object_object_add(data, "key", key);

    return add_entry(list, "key", data);
}

static int add_motion(json_object *list, const char *type, uint16_t code, int32_t value) {
    json_object *data = json_object_new_object();

    if (data) {
        json_object_object_add(data, "axis", json_object_new_string(code == REL_X ? "x" : "y"));
        json_object_object_add(data, "value", json_object_new_int(value));
    }

    return add_entry(list, type, data);
}

/* A wheel is a pair of buttons to QEMU: each step presses one and lets it go. */
static int add_wheel(json_object *list, uint16_t code, int32_t value) {
    const char *vertical = value > 0 ? "wheel-up" : "wheel-down",
               *horizontal = value > 0 ? "wheel-right" : "wheel-left";
    const char *name = code == REL_WHEEL ? vertical : horizontal;
    int r = 0;

    for (int32_t i = abs(value); i > 0 && !r; i--) {
        r = add_button(list, name, true);
        if (!r)
            r = add_button(list, name, false);
    }

    return r;
}

static int add_event(json_object *list, const struct vmibus_input_event *event) {
    const char *name;

    switch (event->type) {
    case VMIBUS_INPUT_TYPE_KEY:
        name = input_key_name(event->code);
        return name ? add_key(list, name, event->value)
                    : add_button(list, input_button_name(event->code), event->value);
    case VMIBUS_INPUT_TYPE_RELATIVE:
        if (event->code == REL_WHEEL || event->code == REL_HWHEEL)
            return add_wheel(list, event->code, event->value);
        return add_motion(list, "rel", event->code, event->value);
    default:
        return add_motion(list, "abs", event->code, event->value);
    }
}

/* Whether an event would say a second thing of the same key or axis in one report. */
static bool is_repeated(const struct vmibus_input_event *events, size_t index) {
    for (size_t i = 0; i < index; i++)
        if (events[i].type == events[index].type && events[i].code == events[index].code)
            return true;

    return false;
}

int input_encode(const struct vmibus_input_event *events, size_t n_events, size_t *takenp,
                 json_object **argumentsp) {
    json_object *arguments = json_object_new_object(), *list = json_object_new_array();
    size_t taken = 0;

    if (!arguments || !list || json_object_object_add(arguments, "events", list) < 0) {
        json_object_put(list);
        json_object_put(arguments);
        return -ENOMEM;
    }
    while (taken < n_events && taken < INPUT_BATCH_BOUND && !is_repeated(events, taken)) {
        if (add_event(list, &events[taken]) < 0) {
            json_object_put(arguments);
            return -ENOMEM;
        }
        taken++;
    }
    *takenp = taken;
    *argumentsp = arguments;

    return 0;
}

/* --- what is held ---------------------------------------------------------------------------- */

static void set_held(uint64_t *held, uint16_t code, bool down) {
    if (down)
        held[code / 64] |= UINT64_C(1) << code % 64;
    else
        held[code / 64] &= ~(UINT64_C(1) << code % 64);
}

static bool is_held(const uint64_t *held, uint16_t code) {
    return held[code / 64] >> code % 64 & 1;
}

/* Makes releases of what is held, as many as a batch takes. */
static size_t next_releases(const struct input *input, struct vmibus_input_event *events) {
    size_t n = 0;

    for (uint16_t code = 0; code < INPUT_CODES && n < INPUT_BATCH_BOUND; code++)
        if (is_held(input->held, code))
            events[n++] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = code};

    return n;
}

/* --- executing ------------------------------------------------------------------------------- */

static void answer(struct vm *vm, struct input_command *command, enum vmibus_error error,
                   enum vmibus_reason reason, uint64_t count) {
    TAILQ_REMOVE(&vm->input.commands, command, link);
    machine_complete(&vm->machine, command->id, command->kind, error, reason, 0, count);
    free(command);
}

static void note_batch(struct input *input, bool accepted) {
    for (size_t i = 0; i < input->batch; i++) {
        const struct vmibus_input_event *event = &input->batch_events[i];

        if (event->type != VMIBUS_INPUT_TYPE_KEY)
            continue;
        if (event->value && !accepted && !input->batch_was_held[i])
            set_held(input->held, event->code, false);
        else if (!event->value && accepted)
            set_held(input->held, event->code, false);
    }
}

static void take_answer(struct vm *vm, enum monitor_outcome outcome) {
    struct input *input = &vm->input;
    struct input_command *head = TAILQ_FIRST(&input->commands);
    bool stopped = input->batch_stops != vm->machine.lifecycle.stops || !lifecycle_takes_input(&vm->machine);

    if (outcome == MONITOR_RETURN && !stopped) {
        note_batch(input, true);
        if (input->batch_releases)
            input->released += input->batch;
        else
            head->done += input->batch;
        return;
    }
    /*
     * QEMU refuses a report as a whole, before it applies any of it; of one that was lost nothing
     * is known.
     */
    if (outcome == MONITOR_ERROR)
        note_batch(input, false);
    if (outcome != MONITOR_ERROR && outcome != MONITOR_LOST)
        return; /* it stopped meanwhile: pump() answers that */
    if (input->batch_releases) {
        input->owed = outcome == MONITOR_LOST;
        if (head && head->kind == VMIBUS_KIND_INPUT_RELEASE)
            answer(vm, head, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, input->released);
    } else {
        answer(vm, head, outcome == MONITOR_ERROR ? VMIBUS_ERROR_UNSUPPORTED : VMIBUS_ERROR_IO,
               VMIBUS_REASON_SENSOR_FAILED, head->done);
    }
}

static void on_batch(void *userdata, const struct monitor_reply *reply) {
    struct vm *vm = userdata;

    take_answer(vm, reply->outcome);
    vm->input.busy = false;
    pump(vm);
}

static int send_batch(struct vm *vm, const struct vmibus_input_event *events, size_t n_events,
                      bool releases) {
    struct input *input = &vm->input;
    json_object *arguments;
    size_t taken;
    int r;

    r = input_encode(events, n_events, &taken, &arguments);
    if (r < 0)
        return r;
    r = qmp_execute(vm->qmp, "input-send-event", arguments, on_batch, vm);
    if (r < 0)
        return r;

    input->busy = true;
    input->batch = taken;
    input->batch_releases = releases;
    input->batch_stops = vm->machine.lifecycle.stops;
    memcpy(input->batch_events, events, taken * sizeof(*events));
    for (size_t i = 0; i < taken; i++) {
        bool key = events[i].type == VMIBUS_INPUT_TYPE_KEY;

        input->batch_was_held[i] = key && is_held(input->held, events[i].code);
        /* From here on it may be down, whatever becomes of the answer. */
        if (key && events[i].value)
            set_held(input->held, events[i].code, true);
    }

    return 0;
}

/* Sends what is owed. Returns false if nothing is owed, or it cannot be sent. */
static bool pump_releases(struct vm *vm) {
    struct vmibus_input_event events[INPUT_BATCH_BOUND];
    struct input *input = &vm->input;
    struct input_command *head = TAILQ_FIRST(&input->commands);
    size_t n;

    if (!input->owed)
        return false;
    n = next_releases(input, events);
    if (n && send_batch(vm, events, n, true) >= 0)
        return true;

    input->owed = n != 0;
    if (head && head->kind == VMIBUS_KIND_INPUT_RELEASE)
        answer(vm, head, n ? VMIBUS_ERROR_PRESSURE : VMIBUS_ERROR_OK,
               n ? VMIBUS_REASON_LIMIT_COMMANDS : VMIBUS_REASON_NONE, input->released);

    return false;
}

static bool holds_any(const struct input *input) {
    for (size_t i = 0; i < INPUT_CODES / 64; i++)
        if (input->held[i])
            return true;

    return false;
}

/* The guest takes nothing now: answers all that waits, and remembers what is owed. */
static void refuse_all(struct vm *vm) {
    struct input *input = &vm->input;
    bool paused = machine_is_usable(&vm->machine);
    struct input_command *head;

    while ((head = TAILQ_FIRST(&input->commands))) {
        bool release = head->kind == VMIBUS_KIND_INPUT_RELEASE;

        if (release && !holds_any(input)) {
            answer(vm, head, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, input->released);
            continue;
        }
        input->owed |= release;
        answer(vm, head, paused ? VMIBUS_ERROR_BUSY : VMIBUS_ERROR_IO,
               paused ? VMIBUS_REASON_GUEST_PAUSED : VMIBUS_REASON_SENSOR_FAILED, head->done);
    }
}

/* Goes on with what is first in the line, until a batch is unanswered or nothing is left. */
static void pump(struct vm *vm) {
    struct input *input = &vm->input;
    struct input_command *head;

    while (!input->busy) {
        if (!machine_is_usable(&vm->machine) || !lifecycle_takes_input(&vm->machine)) {
            refuse_all(vm);
            return;
        }
        if (pump_releases(vm))
            return;
        head = TAILQ_FIRST(&input->commands);
        if (!head)
            return;
        if (head->kind == VMIBUS_KIND_INPUT_RELEASE) {
            input->owed = true;
            input->released = 0;
        } else if (head->cancelled) {
            answer(vm, head, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, head->done);
        } else if (head->done == head->n_events) {
            answer(vm, head, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, head->done);
        } else if (send_batch(vm, head->events + head->done, head->n_events - head->done, false) <
                   0) {
            answer(vm, head, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, head->done);
        }
    }
}

/* Gives up what waits; the one being sent is answered after its batch. */
static void give_up(struct vm *vm) {
    struct input_command *command, *next;

    for (command = TAILQ_FIRST(&vm->input.commands); command; command = next) {
        next = TAILQ_NEXT(command, link);
        command->cancelled = true;
        if (command->kind != VMIBUS_KIND_INPUT_RELEASE &&
            !(vm->input.busy && !vm->input.batch_releases &&
              command == TAILQ_FIRST(&vm->input.commands)))
            answer(vm, command, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, command->done);
    }
}

static int execute_release(struct vm *vm, const struct vmibus_sensor_command *command) {
    struct input_command *release = calloc(1, sizeof(*release));

    if (!release)
        return -ENOMEM;
    release->id = command->id;
    release->kind = VMIBUS_KIND_INPUT_RELEASE;
    give_up(vm);
    TAILQ_INSERT_TAIL(&vm->input.commands, release, link);
    pump(vm);

    return 0;
}

int input_execute(struct vm *vm, const struct vmibus_sensor_command *command) {
    const struct vmibus_cmd_input *body = &command->frame->cmd_input;
    const struct vmibus_input_event *events = body->events;
    struct input_command *copy;
    size_t n = body->count;

    if (command->frame->header.kind == VMIBUS_KIND_INPUT_RELEASE)
        return execute_release(vm, command);

    if (command->frame->header.tail_length)
        events = command->tail;
    if (!n || (command->frame->header.tail_length
                   ? command->frame->header.tail_length != n * sizeof(*events)
                   : n > sizeof(body->events) / sizeof(*body->events))) {
        machine_complete(&vm->machine, command->id, VMIBUS_KIND_CMD_INPUT, VMIBUS_ERROR_VALIDATION,
                    VMIBUS_REASON_BAD_LENGTH, n, 0);
        return 0;
    }
    copy = calloc(1, sizeof(*copy) + n * sizeof(*events));
    if (!copy)
        return -ENOMEM;
    memcpy(copy->events, events, n * sizeof(*events));
    for (size_t i = 0; i < n; i++)
        if (!input_is_valid(&copy->events[i])) {
            free(copy);
            machine_complete(&vm->machine, command->id, VMIBUS_KIND_CMD_INPUT, VMIBUS_ERROR_VALIDATION,
                        VMIBUS_REASON_BAD_FIELD, i, 0);
            return 0;
        }
    copy->id = command->id;
    copy->kind = VMIBUS_KIND_CMD_INPUT;
    copy->n_events = n;
    TAILQ_INSERT_TAIL(&vm->input.commands, copy, link);
    pump(vm);

    return 0;
}

void input_cancel(struct vm *vm, uint64_t id) {
    struct input_command *command;

    TAILQ_FOREACH(command, &vm->input.commands, link)
    if (command->id == id && command->kind == VMIBUS_KIND_CMD_INPUT)
        break;
    if (!command)
        return;
    command->cancelled = true;
    if (!(vm->input.busy && command == TAILQ_FIRST(&vm->input.commands)))
        answer(vm, command, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, command->done);
}

void input_changed(struct vm *vm) {
    pump(vm);
}

/* --- over a restart -------------------------------------------------------------------------- */

/* What the sensor adds to the record of a machine; members are only ever appended. */
struct saved_input {
    uint8_t owed, reserved[7];
    uint64_t held[INPUT_CODES / 64];
};

_Static_assert(sizeof(struct saved_input) <= SAVED_OWN, "the record has no room for it");

void input_save(const struct vm *vm, struct saved_machine *saved) {
    struct saved_input own = {.owed = vm->input.owed};

    memcpy(own.held, vm->input.held, sizeof(own.held));
    memcpy(saved->own, &own, sizeof(own));
}

void input_restore(struct vm *vm, const struct saved_machine *saved) {
    struct saved_input own;

    memcpy(&own, saved->own, sizeof(own));
    vm->input.owed = own.owed;
    for (uint16_t code = 0; code < INPUT_CODES; code++)
        if (is_held(own.held, code) && (input_key_name(code) || input_button_name(code)))
            set_held(vm->input.held, code, true);
}

void input_abandon(struct vm *vm) {
    if (!holds_any(&vm->input))
        return;
    vm->input.owed = true;
    pump(vm);
}

void input_stop(struct vm *vm) {
    struct vmibus_input_event events[INPUT_BATCH_BOUND];
    bool sent = false;
    size_t n;

    if (vm->machine.is_kept || !machine_is_usable(&vm->machine))
        return;
    while ((n = next_releases(&vm->input, events)) > 0) {
        json_object *arguments;
        size_t taken;

        if (input_encode(events, n, &taken, &arguments) < 0 ||
            qmp_execute(vm->qmp, "input-send-event", arguments, NULL, NULL) < 0)
            break;
        for (size_t i = 0; i < taken; i++)
            set_held(vm->input.held, events[i].code, false);
        sent = true;
    }
    if (sent)
        monitor_linger(vm->machine.monitor, LINGER_MS);
}

void input_init(struct vm *vm) {
    TAILQ_INIT(&vm->input.commands);
}

void input_deinit(struct vm *vm) {
    struct input_command *command;

    while ((command = TAILQ_FIRST(&vm->input.commands))) {
        TAILQ_REMOVE(&vm->input.commands, command, link);
        free(command);
    }
}

void input_forget(struct vm *vm) {
    input_deinit(vm);
    vm->input = (struct input){0};
    input_init(vm);
}
