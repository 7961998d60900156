/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Power, pause and holding still. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "intent.h"
#include "vm.h"

/*
 * How long the end of the sensor waits for a guest to go on. Without an answer the intent stays,
 * for the next start.
 */
#define LINGER_MS 2000

/* What a command is to do: enum vmibus_vm_operation, and what the sensor does by itself. */
#define OPERATION_RECOVER 0

struct power_command {
    TAILQ_ENTRY(power_command) link;
    struct vm *vm;
    uint64_t id;
    uint16_t kind;
    uint8_t operation; /* of CMD_VM */
};

static void start_next(struct vm *vm);

/* Its vCPUs do not run, and nothing but a command to its monitor lets them. */
static bool is_still(const struct vm *vm) {
    const struct lifecycle *lifecycle = &vm->lifecycle;

    return lifecycle->known && !lifecycle->running && !lifecycle->suspended && !lifecycle->incoming;
}

static bool is_paused(const struct vm *vm) {
    return is_still(vm) && !vm->lifecycle.shutdown && !vm->lifecycle.crashed;
}

/* --- commands -------------------------------------------------------------------------------- */

static void finish_with(struct power_command *command, enum vmibus_error error,
                        enum vmibus_reason reason, uint64_t value, uint64_t count) {
    struct vm *vm = command->vm;
    bool current = vm->power.current == command,
         own = command->kind == VMIBUS_KIND_CMD_VM && command->operation == OPERATION_RECOVER;

    TAILQ_REMOVE(&vm->power.commands, command, link);
    if (!own)
        vm_complete(vm, command->id, command->kind, error, reason, value, count);
    free(command);
    if (!current)
        return;
    vm->power.current = NULL;
    start_next(vm);
}

static void finish(struct power_command *command, enum vmibus_error error,
                   enum vmibus_reason reason, uint64_t value) {
    finish_with(command, error, reason, value, error == VMIBUS_ERROR_OK);
}

/* It is so already: nothing was changed. */
static void finish_unchanged(struct power_command *command) {
    finish_with(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0, 0);
}

static void finish_by_reply(struct power_command *command, const struct qmp_reply *reply) {
    if (reply->outcome == QMP_RETURN)
        finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    else
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED,
               reply->outcome == QMP_LOST ? ETIMEDOUT : EPERM);
}

static struct power_command *command_new(struct vm *vm, uint64_t id, uint16_t kind,
                                         uint8_t operation) {
    struct power_command *command = calloc(1, sizeof(*command));

    if (!command)
        return NULL;
    *command =
        (struct power_command){.vm = vm, .id = id, .kind = kind, .operation = operation};
    TAILQ_INSERT_TAIL(&vm->power.commands, command, link);

    return command;
}

/* --- stopping -------------------------------------------------------------------------------- */

static uint64_t fingerprint_of(const struct qmp_reply *reply) {
    size_t len;
    const char *text = qmp_text(reply, &len);

    return text ? registers_fingerprint(text, len) : 0;
}

/* The guest stands still, by our stop or by an earlier one. */
static void finish_stop(struct power_command *command, bool changed) {
    struct power *power = &command->vm->power;

    if (command->operation == VMIBUS_VM_OPERATION_HOLD && !is_still(command->vm)) {
        finish(command, VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, 0);
        return;
    }
    if (command->operation == VMIBUS_VM_OPERATION_HOLD)
        power->held = true;
    else
        power->paused = power->stopped;
    finish_with(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0,
                changed || command->operation == VMIBUS_VM_OPERATION_PAUSE);
}

static void on_fingerprint(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;

    if (vm->power.stopped) {
        vm->power.fingerprint = fingerprint_of(reply);
        intent_store(vm, vm->power.fingerprint);
    }
    finish_stop(command, true);
}

static void on_stopped(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;
    bool stopped = vm->lifecycle.stops != vm->power.stops;

    lifecycle_unexpect(vm, LIFECYCLE_EXPECT_STOP);
    if (reply->outcome != QMP_RETURN) {
        if (reply->outcome != QMP_LOST)
            intent_remove(vm);
        finish_by_reply(command, reply);
        return;
    }
    /* A stop of a stopped guest emits no event: then the pause was there before ours. */
    if (!stopped) {
        intent_remove(vm);
        finish_stop(command, false);
        return;
    }
    vm->power.stopped = true;
    vm->power.fingerprint = 0;
    if (qmp_execute_human(vm->qmp, "info registers -a", on_fingerprint, command) < 0)
        finish_stop(command, true);
}

static int stop_guest(struct vm *vm, struct power_command *command) {
    int r;

    intent_store(vm, 0);
    vm->power.stops = vm->lifecycle.stops;
    lifecycle_expect(vm, LIFECYCLE_EXPECT_STOP);
    r = qmp_execute(vm->qmp, "stop", NULL, on_stopped, command);
    if (r < 0)
        intent_remove(vm);

    return r;
}

/* --- letting go on --------------------------------------------------------------------------- */

static void on_continued(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;

    lifecycle_unexpect(command->vm, LIFECYCLE_EXPECT_RESUME);
    finish_by_reply(command, reply);
}

static void continue_guest(struct vm *vm, struct power_command *command) {
    lifecycle_expect(vm, LIFECYCLE_EXPECT_RESUME);
    if (qmp_execute(vm->qmp, "cont", NULL, on_continued, command) < 0)
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

/* The guest is not where our stop left it any more: it has no claim to go on. */
static void forget_stop(struct vm *vm) {
    vm->power.stopped = vm->power.paused = vm->power.resume = false;
    intent_remove(vm);
}

/* QEMU goes from these to another state by itself (qapi/run-state.json: RunState). */
static bool is_passing(const char *status) {
    static const char *const passing[] = {"finish-migrate", "save-vm", "restore-vm", "colo"};

    for (size_t i = 0; i < sizeof(passing) / sizeof(*passing); i++)
        if (strcmp(status, passing[i]) == 0)
            return true;

    return false;
}

/* A guest that has left for another host, or waits for its disk, is not paused but stopped for good reason. */
static void on_status(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;
    const char *status = reply->outcome == QMP_RETURN ? qmp_string(reply->value, "status") : NULL;

    if (!status) {
        finish_by_reply(command, reply);
    } else if (is_passing(status)) {
        finish(command, VMIBUS_ERROR_BUSY, VMIBUS_REASON_SNAPSHOT, 0);
    } else if (strcmp(status, "paused") != 0) {
        if (!vm->lifecycle.running)
            forget_stop(vm);
        finish_unchanged(command);
    } else {
        continue_guest(vm, command);
    }
}

static void continue_if_paused(struct vm *vm, struct power_command *command) {
    if (qmp_execute(vm->qmp, "query-status", NULL, on_status, command) < 0)
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

/*
 * A snapshot loaded into a paused guest emits no event at all: the registers tell. So do they of a
 * guest that somebody let run and stopped again while nobody looked: then the stop is his.
 */
static void on_compared(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;
    bool moved = vm->power.fingerprint && fingerprint_of(reply) != vm->power.fingerprint;

    if (reply->outcome == QMP_LOST) {
        finish_by_reply(command, reply);
        return;
    }
    if (moved && command->operation == OPERATION_RECOVER) {
        forget_stop(vm);
        finish_unchanged(command);
        return;
    }
    if (moved || !vm->power.fingerprint)
        memory_reloaded(vm);
    if (command->operation == VMIBUS_VM_OPERATION_RESUME)
        continue_guest(vm, command);
    else
        continue_if_paused(vm, command);
}

/* Ends a stop of ours. */
static void end_stop(struct vm *vm, struct power_command *command) {
    if (qmp_execute_human(vm->qmp, "info registers -a", on_compared, command) < 0)
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

/* --- CMD_VM ---------------------------------------------------------------------------------- */

static int pause_guest(struct vm *vm, struct power_command *command) {
    if (!vm->power.held && !is_paused(vm))
        return stop_guest(vm, command);
    /* Under a hold: it is what the guest is left in. */
    vm->power.paused = vm->power.stopped;
    vm->power.resume = false;
    finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);

    return 0;
}

static int resume_guest(struct vm *vm, struct power_command *command) {
    if (vm->power.held) {
        vm->power.paused = false;
        vm->power.resume = true;
        finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    } else if (vm->power.stopped) {
        end_stop(vm, command);
    } else {
        /* Somebody else's pause: what he did meanwhile nobody knows. */
        memory_reloaded(vm);
        continue_guest(vm, command);
    }

    return 0;
}

static int hold_guest(struct vm *vm, struct power_command *command) {
    if (vm->lifecycle.running)
        return stop_guest(vm, command);
    /* Not still, or already; finish_stop() knows. */
    finish_stop(command, false);

    return 0;
}

static int let_go(struct vm *vm, struct power_command *command) {
    vm->power.held = false;
    if (vm->lifecycle.running) {
        finish_unchanged(command);
    } else if (vm->power.resume) {
        vm->power.resume = false;
        return resume_guest(vm, command);
    } else if (vm->power.stopped && !vm->power.paused) {
        end_stop(vm, command);
    } else {
        finish_unchanged(command);
    }

    return 0;
}

/* A stop that a crash of ours left behind is adopted, and ended. */
static int recover(struct vm *vm, struct power_command *command) {
    uint64_t fingerprint;

    if (vm->power.stopped || !intent_load(vm, &fingerprint)) {
        finish_unchanged(command);
    } else if (!is_paused(vm)) {
        intent_remove(vm);
        finish_unchanged(command);
    } else {
        vm->power.stopped = true;
        vm->power.fingerprint = fingerprint;
        end_stop(vm, command);
    }

    return 0;
}

static int vm_operation(struct vm *vm, struct power_command *command) {
    switch (command->operation) {
    case OPERATION_RECOVER:
        return recover(vm, command);
    case VMIBUS_VM_OPERATION_PAUSE:
        return pause_guest(vm, command);
    case VMIBUS_VM_OPERATION_RESUME:
        return resume_guest(vm, command);
    case VMIBUS_VM_OPERATION_HOLD:
        return hold_guest(vm, command);
    default:
        return let_go(vm, command);
    }
}

static bool is_known(uint8_t operation) {
    return operation >= VMIBUS_VM_OPERATION_PAUSE && operation <= VMIBUS_VM_OPERATION_LET_GO;
}

static struct power_command *next_of_vm(struct vm *vm) {
    struct power_command *command;

    TAILQ_FOREACH(command, &vm->power.commands, link)
    if (command->kind == VMIBUS_KIND_CMD_VM)
        return command;

    return NULL;
}

/* One at a time: none meets the guest half-way through another. */
static void start_next(struct vm *vm) {
    struct power_command *command = vm->power.current ? NULL : next_of_vm(vm);

    if (!command)
        return;
    vm->power.current = command;
    if (!vm_is_usable(vm))
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
    else if (vm_operation(vm, command) < 0)
        finish(command, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, 0);
}

/* --- what the others tell -------------------------------------------------------------------- */

void power_resumed(struct vm *vm) {
    bool stopped = vm->power.stopped;

    vm->power.stopped = vm->power.paused = vm->power.resume = vm->power.held = false;
    if (stopped)
        intent_remove(vm);
}

void power_left(struct vm *vm) {
    if (vm->power.stopped)
        forget_stop(vm);
}

void power_recover(struct vm *vm) {
    if (vm->power.stopped && !is_paused(vm))
        power_resumed(vm);
    /* Without memory the intent stays, for the next time. */
    if (command_new(vm, 0, VMIBUS_KIND_CMD_VM, OPERATION_RECOVER))
        start_next(vm);
}

void power_stop(struct vm *vm) {
    if (vm->power.stopped && vm->qmp && qmp_is_ready(vm->qmp) &&
        qmp_execute(vm->qmp, "cont", NULL, NULL, NULL) >= 0)
        qmp_linger(vm->qmp, LINGER_MS);
}

/* --- CMD_POWER ------------------------------------------------------------------------------- */

static void on_power(void *userdata, const struct qmp_reply *reply) {
    finish_by_reply(userdata, reply);
}

static void power_operation(struct vm *vm, struct power_command *command, uint8_t operation) {
    static const struct {
        const char *name;
        enum lifecycle_expectation expectation;
    } operations[] = {
        [VMIBUS_POWER_OPERATION_RESET] = {"system_reset", LIFECYCLE_EXPECT_RESET},
        [VMIBUS_POWER_OPERATION_POWERDOWN] = {"system_powerdown", LIFECYCLE_EXPECT_POWERDOWN},
        [VMIBUS_POWER_OPERATION_QUIT] = {"quit", LIFECYCLE_EXPECT_SHUTDOWN},
        [VMIBUS_POWER_OPERATION_WAKEUP] = {"system_wakeup", LIFECYCLE_EXPECT_WAKEUP},
    };

    if (operation >= sizeof(operations) / sizeof(*operations) || !operations[operation].name) {
        finish(command, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, operation);
        return;
    }
    lifecycle_expect(vm, operations[operation].expectation);
    if (qmp_execute(vm->qmp, operations[operation].name, NULL, on_power, command) < 0)
        finish(command, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, 0);
}

int power_execute(struct vm *vm, const struct vmibus_sensor_command *command) {
    const struct vmibus_frame *frame = command->frame;
    bool is_vm = frame->header.kind == VMIBUS_KIND_CMD_VM;
    struct power_command *copy;

    if (!vm_is_usable(vm)) {
        vm_complete(vm, command->id, frame->header.kind, VMIBUS_ERROR_IO,
                    VMIBUS_REASON_SENSOR_FAILED, ENOTCONN, 0);
        return 0;
    }
    if (is_vm && !is_known(frame->cmd_vm.operation)) {
        vm_complete(vm, command->id, frame->header.kind, VMIBUS_ERROR_VALIDATION,
                    VMIBUS_REASON_BAD_FIELD, frame->cmd_vm.operation, 0);
        return 0;
    }
    copy = command_new(vm, command->id, frame->header.kind, is_vm ? frame->cmd_vm.operation : 0);
    if (!copy)
        return -ENOMEM;
    if (is_vm)
        start_next(vm);
    else
        power_operation(vm, copy, frame->cmd_power.operation);

    return 0;
}

/* --- life ------------------------------------------------------------------------------------ */

void power_init(struct vm *vm) {
    TAILQ_INIT(&vm->power.commands);
}

void power_deinit(struct vm *vm) {
    struct power_command *command;

    while ((command = TAILQ_FIRST(&vm->power.commands))) {
        TAILQ_REMOVE(&vm->power.commands, command, link);
        free(command);
    }
}

void power_forget(struct vm *vm) {
    intent_remove(vm);
    power_deinit(vm);
    vm->power = (struct power){0};
    power_init(vm);
}
