/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Power, pause and holding still. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "intent.h"
#include "machine.h"

/*
 * How long the end of the sensor waits for a guest to go on. Without an answer the intent stays,
 * for the next start.
 */
#define LINGER_MS 2000

/* What a command is to do: enum vmibus_vm_operation, and what the sensor does by itself. */
#define OPERATION_RECOVER 0

struct power_command {
    TAILQ_ENTRY(power_command) link;
    struct machine *machine;
    uint64_t id;
    uint16_t kind;
    uint8_t operation; /* of CMD_VM */
};

static void start_next(struct machine *machine);

/* Its vCPUs do not run, and nothing but a command to its monitor lets them. */
static bool is_still(const struct machine *machine) {
    const struct lifecycle *lifecycle = &machine->lifecycle;

    return lifecycle->known && !lifecycle->running && !lifecycle->suspended && !lifecycle->incoming;
}

static bool is_paused(const struct machine *machine) {
    return is_still(machine) && !machine->lifecycle.shutdown && !machine->lifecycle.crashed;
}

/* --- commands -------------------------------------------------------------------------------- */

static void finish_with(struct power_command *command, enum vmibus_error error,
                        enum vmibus_reason reason, uint64_t value, uint64_t count) {
    struct machine *machine = command->machine;
    bool current = machine->power.current == command,
         own = command->kind == VMIBUS_KIND_CMD_VM && command->operation == OPERATION_RECOVER;

    TAILQ_REMOVE(&machine->power.commands, command, link);
    if (!own)
        machine_complete(machine, command->id, command->kind, error, reason, value, count);
    free(command);
    if (!current)
        return;
    machine->power.current = NULL;
    start_next(machine);
}

static void finish(struct power_command *command, enum vmibus_error error,
                   enum vmibus_reason reason, uint64_t value) {
    finish_with(command, error, reason, value, error == VMIBUS_ERROR_OK);
}

/* It is so already: nothing was changed. */
static void finish_unchanged(struct power_command *command) {
    finish_with(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0, 0);
}

static void finish_by_reply(struct power_command *command, const struct monitor_reply *reply) {
    if (reply->outcome == MONITOR_RETURN)
        finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    else
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED,
               reply->outcome == MONITOR_LOST ? ETIMEDOUT : EPERM);
}

static struct power_command *command_new(struct machine *machine, uint64_t id, uint16_t kind,
                                         uint8_t operation) {
    struct power_command *command = calloc(1, sizeof(*command));

    if (!command)
        return NULL;
    *command =
        (struct power_command){.machine = machine, .id = id, .kind = kind, .operation = operation};
    TAILQ_INSERT_TAIL(&machine->power.commands, command, link);

    return command;
}

/* --- stopping -------------------------------------------------------------------------------- */

static uint64_t fingerprint_of(const struct monitor_reply *reply) {
    size_t len;
    const char *text = monitor_text(reply, &len);

    return text ? registers_fingerprint(text, len) : 0;
}

/* The guest stands still, by our stop or by an earlier one. */
static void finish_stop(struct power_command *command, bool changed) {
    struct power *power = &command->machine->power;

    if (command->operation == VMIBUS_VM_OPERATION_HOLD && !is_still(command->machine)) {
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

static void on_fingerprint(void *userdata, const struct monitor_reply *reply) {
    struct power_command *command = userdata;
    struct machine *machine = command->machine;

    if (machine->power.stopped) {
        machine->power.fingerprint = fingerprint_of(reply);
        intent_store(machine, machine->power.fingerprint);
    }
    finish_stop(command, true);
}

static void on_stopped(void *userdata, const struct monitor_reply *reply) {
    struct power_command *command = userdata;
    struct machine *machine = command->machine;
    bool stopped = machine->lifecycle.stops != machine->power.stops;

    lifecycle_unexpect(machine, LIFECYCLE_EXPECT_STOP);
    if (reply->outcome != MONITOR_RETURN) {
        if (reply->outcome != MONITOR_LOST)
            intent_remove(machine);
        finish_by_reply(command, reply);
        return;
    }
    /* A stop of a stopped guest emits no event: then the pause was there before ours. */
    if (!stopped) {
        intent_remove(machine);
        finish_stop(command, false);
        return;
    }
    machine->power.stopped = true;
    machine->power.fingerprint = 0;
    if (monitor_execute_human(machine->monitor, "info registers -a", on_fingerprint, command) < 0)
        finish_stop(command, true);
}

static int stop_guest(struct machine *machine, struct power_command *command) {
    int r;

    intent_store(machine, 0);
    machine->power.stops = machine->lifecycle.stops;
    lifecycle_expect(machine, LIFECYCLE_EXPECT_STOP);
    r = monitor_execute(machine->monitor, "stop", NULL, on_stopped, command);
    if (r < 0)
        intent_remove(machine);

    return r;
}

/* --- letting go on --------------------------------------------------------------------------- */

static void on_continued(void *userdata, const struct monitor_reply *reply) {
    struct power_command *command = userdata;

    lifecycle_unexpect(command->machine, LIFECYCLE_EXPECT_RESUME);
    finish_by_reply(command, reply);
}

static void continue_guest(struct machine *machine, struct power_command *command) {
    lifecycle_expect(machine, LIFECYCLE_EXPECT_RESUME);
    if (monitor_execute(machine->monitor, "cont", NULL, on_continued, command) < 0)
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

/* The guest is not where our stop left it any more: it has no claim to go on. */
static void forget_stop(struct machine *machine) {
    machine->power.stopped = machine->power.paused = machine->power.resume = false;
    intent_remove(machine);
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
static void on_status(void *userdata, const struct monitor_reply *reply) {
    struct power_command *command = userdata;
    struct machine *machine = command->machine;
    const char *status = reply->outcome == MONITOR_RETURN ? monitor_string(reply->value, "status") : NULL;

    if (!status) {
        finish_by_reply(command, reply);
    } else if (is_passing(status)) {
        finish(command, VMIBUS_ERROR_BUSY, VMIBUS_REASON_SNAPSHOT, 0);
    } else if (strcmp(status, "paused") != 0) {
        if (!machine->lifecycle.running)
            forget_stop(machine);
        finish_unchanged(command);
    } else {
        continue_guest(machine, command);
    }
}

static void continue_if_paused(struct machine *machine, struct power_command *command) {
    if (monitor_execute(machine->monitor, "query-status", NULL, on_status, command) < 0)
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

/*
 * A snapshot loaded into a paused guest emits no event at all: the registers tell. So do they of a
 * guest that somebody let run and stopped again while nobody looked: then the stop is his.
 */
static void on_compared(void *userdata, const struct monitor_reply *reply) {
    struct power_command *command = userdata;
    struct machine *machine = command->machine;
    bool moved = machine->power.fingerprint && fingerprint_of(reply) != machine->power.fingerprint;

    if (reply->outcome == MONITOR_LOST) {
        finish_by_reply(command, reply);
        return;
    }
    if (moved && command->operation == OPERATION_RECOVER) {
        forget_stop(machine);
        finish_unchanged(command);
        return;
    }
    if (moved || !machine->power.fingerprint)
        memory_reloaded(machine);
    if (command->operation == VMIBUS_VM_OPERATION_RESUME)
        continue_guest(machine, command);
    else
        continue_if_paused(machine, command);
}

/* Ends a stop of ours. */
static void end_stop(struct machine *machine, struct power_command *command) {
    if (monitor_execute_human(machine->monitor, "info registers -a", on_compared, command) < 0)
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

/* --- CMD_VM ---------------------------------------------------------------------------------- */

static int pause_guest(struct machine *machine, struct power_command *command) {
    if (!machine->power.held && !is_paused(machine))
        return stop_guest(machine, command);
    /* Under a hold: it is what the guest is left in. */
    machine->power.paused = machine->power.stopped;
    machine->power.resume = false;
    finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);

    return 0;
}

static int resume_guest(struct machine *machine, struct power_command *command) {
    if (machine->power.held) {
        machine->power.paused = false;
        machine->power.resume = true;
        finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    } else if (machine->power.stopped) {
        end_stop(machine, command);
    } else {
        /* Somebody else's pause: what he did meanwhile nobody knows. */
        memory_reloaded(machine);
        continue_guest(machine, command);
    }

    return 0;
}

static int hold_guest(struct machine *machine, struct power_command *command) {
    if (machine->lifecycle.running)
        return stop_guest(machine, command);
    /* Not still, or already; finish_stop() knows. */
    finish_stop(command, false);

    return 0;
}

static int let_go(struct machine *machine, struct power_command *command) {
    machine->power.held = false;
    if (machine->lifecycle.running) {
        finish_unchanged(command);
    } else if (machine->power.resume) {
        machine->power.resume = false;
        return resume_guest(machine, command);
    } else if (machine->power.stopped && !machine->power.paused) {
        end_stop(machine, command);
    } else {
        finish_unchanged(command);
    }

    return 0;
}

/* RAM may hold the octets of another moment, in the epoch of the instance before, which is nothing that this one has proposed. */
static void doubt_kept_memory(struct machine *machine) {
    if (!machine->endpoint)
        return;
    if (!machine->memory.epoch && !machine->memory.proposing)
        machine->sensor->api->end_epoch(machine->endpoint, VMIBUS_REASON_RELOADED);
    memory_reloaded(machine);
}

/* What the instance before had stopped is still so, unless somebody let the guest run since. */
static void on_proven(void *userdata, const struct monitor_reply *reply) {
    struct power_command *command = userdata;
    struct machine *machine = command->machine;
    struct power *power = &machine->power;

    if (reply->outcome == MONITOR_LOST) {
        finish_by_reply(command, reply);
        return;
    }
    power->unproven = false;
    if (power->fingerprint && fingerprint_of(reply) != power->fingerprint) {
        power->abandoned = false;
        forget_stop(machine);
        doubt_kept_memory(machine);
    }
    if (!power->abandoned) {
        finish_unchanged(command);
        return;
    }
    power->abandoned = false;
    continue_if_paused(machine, command);
}

/* A stop that a crash of ours left behind is adopted, and ended; one that a restart left is proven. */
static int recover(struct machine *machine, struct power_command *command) {
    uint64_t fingerprint;

    if (machine->power.stopped && (machine->power.unproven || machine->power.abandoned))
        return monitor_execute_human(machine->monitor, "info registers -a", on_proven, command);
    if (machine->power.stopped || !intent_load(machine, &fingerprint)) {
        finish_unchanged(command);
    } else if (!is_paused(machine)) {
        intent_remove(machine);
        finish_unchanged(command);
    } else {
        machine->power.stopped = true;
        machine->power.fingerprint = fingerprint;
        end_stop(machine, command);
    }

    return 0;
}

static int vm_operation(struct machine *machine, struct power_command *command) {
    switch (command->operation) {
    case OPERATION_RECOVER:
        return recover(machine, command);
    case VMIBUS_VM_OPERATION_PAUSE:
        return pause_guest(machine, command);
    case VMIBUS_VM_OPERATION_RESUME:
        return resume_guest(machine, command);
    case VMIBUS_VM_OPERATION_HOLD:
        return hold_guest(machine, command);
    default:
        return let_go(machine, command);
    }
}

static bool is_known(uint8_t operation) {
    return operation >= VMIBUS_VM_OPERATION_PAUSE && operation <= VMIBUS_VM_OPERATION_LET_GO;
}

static struct power_command *next_of_vm(struct machine *machine) {
    struct power_command *command;

    TAILQ_FOREACH(command, &machine->power.commands, link)
    if (command->kind == VMIBUS_KIND_CMD_VM)
        return command;

    return NULL;
}

/* One at a time: none meets the guest half-way through another. */
static void start_next(struct machine *machine) {
    struct power_command *command = machine->power.current ? NULL : next_of_vm(machine);

    if (!command)
        return;
    machine->power.current = command;
    if (!machine_is_usable(machine))
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
    else if (vm_operation(machine, command) < 0)
        finish(command, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, 0);
}

/* --- what the others tell -------------------------------------------------------------------- */

void power_resumed(struct machine *machine) {
    bool stopped = machine->power.stopped;

    machine->power.stopped = machine->power.paused = machine->power.resume = machine->power.held = false;
    machine->power.unproven = machine->power.abandoned = false;
    if (stopped)
        intent_remove(machine);
}

void power_left(struct machine *machine) {
    if (machine->power.stopped)
        forget_stop(machine);
}

void power_recover(struct machine *machine) {
    if ((machine->power.stopped && !is_paused(machine)) || (machine->power.held && machine->lifecycle.running)) {
        if (machine->power.unproven)
            doubt_kept_memory(machine);
        power_resumed(machine);
    }
    /* Without memory the intent stays, for the next time. */
    if (command_new(machine, 0, VMIBUS_KIND_CMD_VM, OPERATION_RECOVER))
        start_next(machine);
}

void power_restore(struct machine *machine, const struct saved_machine *saved) {
    struct power *power = &machine->power;

    power->stopped = power->unproven = saved->stopped;
    power->paused = saved->paused;
    power->held = saved->held;
    power->resume = saved->resume;
    power->fingerprint = saved->fingerprint;
}

void power_abandon(struct machine *machine) {
    struct power *power = &machine->power;

    power->held = power->paused = power->resume = false;
    power->abandoned = power->stopped;
    /* Not connected to, it is made good when it is. */
    if (power->abandoned && machine_is_usable(machine) && command_new(machine, 0, VMIBUS_KIND_CMD_VM, OPERATION_RECOVER))
        start_next(machine);
}

void power_stop(struct machine *machine) {
    if (!machine->is_kept && machine->power.stopped && machine->monitor && monitor_is_ready(machine->monitor) &&
        monitor_execute(machine->monitor, "cont", NULL, NULL, NULL) >= 0)
        monitor_linger(machine->monitor, LINGER_MS);
}

/* --- CMD_POWER ------------------------------------------------------------------------------- */

static void on_power(void *userdata, const struct monitor_reply *reply) {
    finish_by_reply(userdata, reply);
}

static void power_operation(struct machine *machine, struct power_command *command, uint8_t operation) {
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
    lifecycle_expect(machine, operations[operation].expectation);
    if (monitor_execute(machine->monitor, operations[operation].name, NULL, on_power, command) < 0)
        finish(command, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, 0);
}

int power_execute(struct machine *machine, const struct vmibus_sensor_command *command) {
    const struct vmibus_frame *frame = command->frame;
    bool is_vm = frame->header.kind == VMIBUS_KIND_CMD_VM;
    struct power_command *copy;

    machine->is_kept = false; /* whoever gives commands goes on with this instance */
    if (!machine_is_usable(machine)) {
        machine_complete(machine, command->id, frame->header.kind, VMIBUS_ERROR_IO,
                    VMIBUS_REASON_SENSOR_FAILED, ENOTCONN, 0);
        return 0;
    }
    if (is_vm && !is_known(frame->cmd_vm.operation)) {
        machine_complete(machine, command->id, frame->header.kind, VMIBUS_ERROR_VALIDATION,
                    VMIBUS_REASON_BAD_FIELD, frame->cmd_vm.operation, 0);
        return 0;
    }
    copy = command_new(machine, command->id, frame->header.kind, is_vm ? frame->cmd_vm.operation : 0);
    if (!copy)
        return -ENOMEM;
    if (is_vm)
        start_next(machine);
    else
        power_operation(machine, copy, frame->cmd_power.operation);

    return 0;
}

/* --- life ------------------------------------------------------------------------------------ */

void power_init(struct machine *machine) {
    TAILQ_INIT(&machine->power.commands);
}

void power_deinit(struct machine *machine) {
    struct power_command *command;

    while ((command = TAILQ_FIRST(&machine->power.commands))) {
        TAILQ_REMOVE(&machine->power.commands, command, link);
        free(command);
    }
}

void power_forget(struct machine *machine) {
    intent_remove(machine);
    power_deinit(machine);
    machine->power = (struct power){0};
    power_init(machine);
}
