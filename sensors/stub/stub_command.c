/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Executing commands: see stub_command.h. */
#include "stub_command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stub_show.h"
#include "stub_watch.h"

#define NS_PER_MS UINT64_C(1000000)

/* A command that waits, in the order of arrival. */
struct stub_command {
    struct stub_command *next;
    uint64_t id;
    uint64_t due;
    struct vmibus_frame frame;
    uint8_t tail[]; /* frame.header.tail_length octets */
};

static void complete(struct stub_vm *vm, uint64_t id, struct vmibus_ack *ack) {
    ack->finished = vm->stub->api->now();
    vm->stub->api->complete(vm->stub->host, id, ack);
}

static void fail(struct vmibus_ack *ack, enum vmibus_error error, enum vmibus_reason reason,
                 uint64_t value) {
    ack->error = (uint16_t)error;
    ack->reason = (uint16_t)reason;
    ack->value = value;
}

/* --- what commands do ------------------------------------------------------------------------- */

/* Where the events are and how many; NULL: the frame contradicts itself. */
static const uint8_t *locate_events(const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_cmd_input *input = &frame->cmd_input;

    if (frame->header.tail_length == 0)
        return input->count <= VMIBUS_INPUT_EVENTS_INLINE ? (const uint8_t *)input->events : NULL;
    return frame->header.tail_length == input->count * sizeof(struct vmibus_input_event) ? tail
                                                                                         : NULL;
}

static void perform_input(struct stub_vm *vm, const struct vmibus_frame *frame, const void *tail,
                          struct vmibus_ack *ack) {
    const uint8_t *events = locate_events(frame, tail);
    struct vmibus_input_event event;
    unsigned i;

    if (!events || frame->cmd_input.count == 0) {
        fail(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, frame->cmd_input.count);
        return;
    }
    if (vm->state != VMIBUS_VM_STATE_RUNNING) {
        fail(ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0);
        return;
    }
    for (i = 0; i < frame->cmd_input.count; i++) {
        memcpy(&event, events + i * sizeof(event), sizeof(event)); /* a tail need not be aligned */
        if (!stub_input_apply(&vm->input, &event)) {
            fail(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, i);
            break;
        }
    }
    ack->count = i;
}

/* Returns as stub_vm_pause(). */
static int perform_power(struct stub_vm *vm, const struct vmibus_frame *frame) {
    if (frame->header.kind == VMIBUS_KIND_CMD_VM)
        switch (frame->cmd_vm.operation) {
        case VMIBUS_VM_OPERATION_PAUSE:
            return stub_vm_pause(vm);
        case VMIBUS_VM_OPERATION_RESUME:
            return stub_vm_resume(vm);
        case VMIBUS_VM_OPERATION_HOLD:
            return stub_vm_hold(vm);
        case VMIBUS_VM_OPERATION_LET_GO:
            return stub_vm_let_go(vm);
        default:
            return -ENOTSUP;
        }
    switch (frame->cmd_power.operation) {
    case VMIBUS_POWER_OPERATION_RESET:
        return stub_vm_reset(vm);
    case VMIBUS_POWER_OPERATION_POWERDOWN:
        return stub_vm_powerdown(vm);
    case VMIBUS_POWER_OPERATION_WAKEUP:
        return stub_vm_wakeup(vm);
    case VMIBUS_POWER_OPERATION_QUIT:
        return 1;
    default:
        return -ENOTSUP;
    }
}

static void answer_power(struct vmibus_ack *ack, int result) {
    if (result >= 0)
        ack->count = (uint64_t)result;
    else if (result == -ENOTSUP)
        fail(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    else
        fail(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)-result);
}

/* An answer with data is given here. */
static void complete_with(struct stub_vm *vm, uint64_t id, struct vmibus_ack *ack, const void *tail, size_t length, int fd) {
    ack->finished = vm->stub->api->now();
    (void)vm->stub->api->complete_with(vm->stub->host, id, ack, tail, length, &fd, fd >= 0);
}

static void perform_screenshot(struct stub_vm *vm, uint64_t id, const struct vmibus_screenshot *asked, struct vmibus_ack *ack) {
    int fd;

    if (asked->head != 0) {
        fail(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, asked->head);
        complete(vm, id, ack);
        return;
    }
    fd = stub_show_screen(vm, asked->format, &ack->count);
    if (fd < 0)
        fail(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)-fd);
    complete_with(vm, id, ack, NULL, 0, fd);
    if (fd >= 0)
        close(fd);
}

static void perform_registers(struct stub_vm *vm, uint64_t id, uint32_t vcpu, struct vmibus_ack *ack) {
    struct vmibus_vcpu_registers registers;

    if (vcpu != 0 && vcpu != UINT32_MAX) {
        fail(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, vcpu);
        complete(vm, id, ack);
        return;
    }
    stub_show_registers(vm, &registers);
    ack->count = 1;
    complete_with(vm, id, ack, &registers, sizeof(registers), -1);
}

static void perform(struct stub_vm *vm, uint64_t id, const struct vmibus_frame *frame,
                    const void *tail) {
    struct vmibus_ack ack = {.command = frame->header.kind, .started = vm->stub->api->now()};

    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_INPUT:
        perform_input(vm, frame, tail, &ack);
        break;
    case VMIBUS_KIND_INPUT_RELEASE:
        ack.count = stub_input_release(&vm->input);
        break;
    case VMIBUS_KIND_CMD_POWER:
    case VMIBUS_KIND_CMD_VM:
        answer_power(&ack, perform_power(vm, frame));
        break;
    case VMIBUS_KIND_WATCH:
        stub_watch_execute(vm, frame, &ack);
        break;
    case VMIBUS_KIND_SCREENSHOT:
        perform_screenshot(vm, id, &frame->screenshot, &ack);
        return;
    case VMIBUS_KIND_REGISTERS:
        perform_registers(vm, id, frame->registers.vcpu, &ack);
        return;
    default:
        fail(&ack, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_BAD_KIND, frame->header.kind);
        break;
    }
    complete(vm, id, &ack);
    /* After its answer, which would be GONE otherwise. */
    if (frame->header.kind == VMIBUS_KIND_CMD_POWER &&
        frame->cmd_power.operation == VMIBUS_POWER_OPERATION_QUIT)
        stub_vm_quit(vm);
}

/* --- commands that wait ----------------------------------------------------------------------- */

/* Takes a command out of the queue; the caller frees it. */
static struct stub_command *take(struct stub_vm *vm, struct stub_command **link) {
    struct stub_command *command = *link;

    *link = command->next;
    if (!*link)
        vm->last_command = link;
    vm->n_commands--;
    return command;
}

static void cancel(struct stub_vm *vm, struct stub_command **link) {
    struct stub_command *command = take(vm, link);
    struct vmibus_ack ack = {.command = command->frame.header.kind};

    fail(&ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 0);
    complete(vm, command->id, &ack);
    free(command);
}

/* The earliest due time is the first one that is not never: all wait equally long. */
static struct stub_command **find_due(struct stub_vm *vm) {
    struct stub_command **link = &vm->commands;

    while (*link && (*link)->due == UINT64_MAX)
        link = &(*link)->next;
    return link;
}

static void arm(struct stub_vm *vm) {
    const struct vmibus_sensor_api *api = vm->stub->api;
    struct stub_command *first = *find_due(vm);
    uint64_t now = api->now();

    if (first)
        api->timer_set(vm->command_timer, first->due > now ? first->due - now : 1);
}

static int enqueue(struct stub_vm *vm, const struct vmibus_sensor_command *command, bool hangs) {
    const struct vmibus_sensor_api *api = vm->stub->api;
    uint32_t tail_length = command->frame->header.tail_length;
    struct vmibus_ack ack = {.command = command->frame->header.kind};
    struct stub_command *waiting;
    uint64_t delay = vm->stub->options.execute_ms * NS_PER_MS;

    if (vm->n_commands == STUB_COMMANDS_MAXIMUM) {
        fail(&ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, STUB_COMMANDS_MAXIMUM);
        complete(vm, command->id, &ack);
        return 0;
    }
    waiting = malloc(sizeof(*waiting) + tail_length);
    if (!waiting)
        return -ENOMEM;
    waiting->next = NULL;
    waiting->id = command->id;
    waiting->due = hangs ? UINT64_MAX : api->now() + delay;
    waiting->frame = *command->frame;
    if (tail_length > 0)
        memcpy(waiting->tail, command->tail, tail_length);
    *vm->last_command = waiting;
    vm->last_command = &waiting->next;
    vm->n_commands++;
    arm(vm);
    return 0;
}

static void commands_due(void *userdata) {
    struct stub_vm *vm = userdata;
    struct stub_command **link, *command;

    while (*(link = find_due(vm)) && (*link)->due <= vm->stub->api->now()) {
        command = take(vm, link);
        perform(vm, command->id, &command->frame, command->tail);
        free(command);
    }
    arm(vm);
}

/* Input that waits must not press a key after everything was released. */
static void cancel_input(struct stub_vm *vm) {
    struct stub_command **link = &vm->commands;

    while (*link)
        if ((*link)->frame.header.kind == VMIBUS_KIND_CMD_INPUT)
            cancel(vm, link);
        else
            link = &(*link)->next;
}

int stub_command_execute(struct stub_vm *vm, const struct vmibus_sensor_command *command) {
    const struct stub_options *options = &vm->stub->options;
    bool is_release = command->frame->header.kind == VMIBUS_KIND_INPUT_RELEASE;
    uint32_t mode = is_release ? options->release : options->execute;
    struct vmibus_ack ack = {.command = command->frame->header.kind};

    if (is_release)
        cancel_input(vm);
    switch (mode) {
    case STUB_EXECUTE_SLOW:
    case STUB_EXECUTE_HANG:
        return enqueue(vm, command, mode == STUB_EXECUTE_HANG);
    case STUB_EXECUTE_FAIL:
        fail(&ack, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, EIO);
        complete(vm, command->id, &ack);
        return 0;
    default:
        perform(vm, command->id, command->frame, command->tail);
        return 0;
    }
}

void stub_command_cancel(struct stub_vm *vm, uint64_t id) {
    struct stub_command **link;

    for (link = &vm->commands; *link; link = &(*link)->next)
        if ((*link)->id == id) {
            cancel(vm, link);
            return;
        }
}

void stub_commands_drop(struct stub_vm *vm) {
    while (vm->commands)
        free(take(vm, &vm->commands));
    vm->stub->api->timer_set(vm->command_timer, 0);
}

int stub_commands_init(struct stub_vm *vm) {
    vm->last_command = &vm->commands;
    return vm->stub->api->timer_new(vm->stub->host, commands_due, vm, &vm->command_timer);
}

void stub_commands_deinit(struct stub_vm *vm) {
    if (vm->command_timer)
        stub_commands_drop(vm);
    vm->stub->api->timer_free(vm->command_timer);
}
