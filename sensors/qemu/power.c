/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power and pause.
 *
 * An intent is a file pause-PID-START in the state directory, holding the fingerprint in
 * hexadecimal; 0 means that the stop was about to be sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm.h"

/*
 * How long the end of the sensor waits for a guest to go on. Without an answer the intent stays,
 * for the next start.
 */
#define LINGER_MS 2000

struct power_command {
    TAILQ_ENTRY(power_command) link;
    struct vm *vm;
    uint64_t id;
    uint16_t kind;
    bool moved; /* the guest is not where our pause left it */
};

static bool is_paused(const struct vm *vm) {
    const struct lifecycle *lifecycle = &vm->lifecycle;

    return lifecycle->known && !lifecycle->running && !lifecycle->suspended &&
           !lifecycle->shutdown && !lifecycle->crashed;
}

static void finish(struct power_command *command, enum vmibus_error error,
                   enum vmibus_reason reason, uint64_t value) {
    struct vm *vm = command->vm;

    TAILQ_REMOVE(&vm->power.commands, command, link);
    vm_complete(vm, command->id, command->kind, error, reason, value, error == VMIBUS_ERROR_OK);
    free(command);
}

static void finish_by_reply(struct power_command *command, const struct qmp_reply *reply) {
    if (reply->outcome == QMP_RETURN)
        finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    else
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED,
               reply->outcome == QMP_LOST ? ETIMEDOUT : EPERM);
}

/* --- the intent ------------------------------------------------------------------------------ */

static bool intent_path(const struct vm *vm, char *path, size_t size) {
    int n;

    if (!vm->qemu->state_directory || !vm->process.pid)
        return false;
    n = snprintf(path, size, "%s/pause-%" PRIu32 "-%" PRIu64, vm->qemu->state_directory,
                 vm->process.pid, vm->process.start_time);

    return n > 0 && (size_t)n < size;
}

/*
 * Stores an intent whole or not at all. The host's kernel keeps it; a crash of the host ends the
 * guest too.
 */
static void intent_store(const struct vm *vm, uint64_t fingerprint) {
    char path[512], next[520], text[32];
    int fd, n;
    bool whole;

    if (!intent_path(vm, path, sizeof(path)))
        return;
    snprintf(next, sizeof(next), "%s.next", path);
    n = snprintf(text, sizeof(text), "%016" PRIx64 "\n", fingerprint);
    fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    whole = write(fd, text, (size_t)n) == n;
    close(fd);
    if (!whole || rename(next, path) < 0)
        unlink(next);
}

static bool intent_load(const struct vm *vm, uint64_t *fingerprintp) {
    char path[512], text[32] = "";
    ssize_t n;
    char *end;
    int fd;

    if (!intent_path(vm, path, sizeof(path)))
        return false;
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n != 17)
        return false;
    errno = 0;
    *fingerprintp = strtoull(text, &end, 16);

    return !errno && *end == '\n';
}

static void intent_remove(const struct vm *vm) {
    char path[512];

    if (intent_path(vm, path, sizeof(path)))
        unlink(path);
}

/* --- pause and resume ------------------------------------------------------------------------ */

static uint64_t fingerprint_of(const struct qmp_reply *reply) {
    size_t len;
    const char *text = qmp_text(reply, &len);

    return text ? registers_fingerprint(text, len) : 0;
}

static void on_fingerprint(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;

    if (vm->power.paused_by_us) {
        vm->power.fingerprint = fingerprint_of(reply);
        intent_store(vm, vm->power.fingerprint);
    }
    finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

static void on_stopped(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;
    bool stopped = vm->lifecycle.stops != vm->power.stops;

    lifecycle_unexpect(vm, LIFECYCLE_EXPECT_STOP);
    /* A stop of a stopped guest emits no event: then the pause was there before ours. */
    if (reply->outcome != QMP_RETURN || !stopped) {
        if (reply->outcome != QMP_LOST)
            intent_remove(vm);
        finish_by_reply(command, reply);
        return;
    }
    vm->power.paused_by_us = true;
    vm->power.fingerprint = 0;
    if (qmp_execute_human(vm->qmp, "info registers -a", on_fingerprint, command) < 0)
        finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

static int pause_guest(struct vm *vm, struct power_command *command) {
    int r;

    if (is_paused(vm)) {
        finish(command, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
        return 0;
    }
    intent_store(vm, 0);
    vm->power.stops = vm->lifecycle.stops;
    lifecycle_expect(vm, LIFECYCLE_EXPECT_STOP);
    r = qmp_execute(vm->qmp, "stop", NULL, on_stopped, command);
    if (r < 0)
        intent_remove(vm);

    return r;
}

static void on_continued(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;
    bool moved = command->moved;

    lifecycle_unexpect(vm, LIFECYCLE_EXPECT_RESUME);
    finish_by_reply(command, reply);
    if (moved)
        memory_read(vm, true);
}

static int continue_guest(struct vm *vm, struct power_command *command) {
    lifecycle_expect(vm, LIFECYCLE_EXPECT_RESUME);

    return qmp_execute(vm->qmp, "cont", NULL, on_continued, command);
}

/* A snapshot loaded into a paused guest emits no event at all: the registers tell. */
static void on_compared(void *userdata, const struct qmp_reply *reply) {
    struct power_command *command = userdata;
    struct vm *vm = command->vm;

    command->moved = fingerprint_of(reply) != vm->power.fingerprint;
    if (reply->outcome == QMP_LOST || continue_guest(vm, command) < 0)
        finish(command, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
}

static int resume_guest(struct vm *vm, struct power_command *command) {
    if (vm->power.paused_by_us)
        return qmp_execute_human(vm->qmp, "info registers -a", on_compared, command);
    command->moved = true;

    return continue_guest(vm, command);
}

void power_resumed(struct vm *vm) {
    if (!vm->power.paused_by_us)
        return;
    vm->power.paused_by_us = false;
    intent_remove(vm);
}

static void on_recovered(void *userdata, const struct qmp_reply *reply) {
    struct vm *vm = userdata;
    uint64_t fingerprint;

    if (reply->outcome == QMP_LOST || !is_paused(vm) || !intent_load(vm, &fingerprint))
        return;
    intent_remove(vm);
    if (fingerprint && fingerprint != fingerprint_of(reply))
        return; /* it ran since: whoever stopped it now, it was not us */
    lifecycle_expect(vm, LIFECYCLE_EXPECT_RESUME);
    qmp_execute(vm->qmp, "cont", NULL, NULL, NULL);
}

void power_recover(struct vm *vm) {
    uint64_t fingerprint;

    if (vm->power.paused_by_us) {
        if (!is_paused(vm))
            power_resumed(vm);
        return;
    }
    if (!intent_load(vm, &fingerprint))
        return;
    if (!is_paused(vm) || qmp_execute_human(vm->qmp, "info registers -a", on_recovered, vm) < 0)
        intent_remove(vm);
}

void power_stop(struct vm *vm) {
    if (vm->power.paused_by_us && vm->qmp && qmp_is_ready(vm->qmp) &&
        qmp_execute(vm->qmp, "cont", NULL, NULL, NULL) >= 0)
        qmp_linger(vm->qmp, LINGER_MS);
}

/* --- commands -------------------------------------------------------------------------------- */

static void on_power(void *userdata, const struct qmp_reply *reply) {
    finish_by_reply(userdata, reply);
}

static int power_operation(struct vm *vm, struct power_command *command, uint8_t operation) {
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
        return 0;
    }
    lifecycle_expect(vm, operations[operation].expectation);

    return qmp_execute(vm->qmp, operations[operation].name, NULL, on_power, command);
}

static int vm_operation(struct vm *vm, struct power_command *command, uint8_t operation) {
    switch (operation) {
    case VMIBUS_VM_OPERATION_PAUSE:
        return pause_guest(vm, command);
    case VMIBUS_VM_OPERATION_RESUME:
        return resume_guest(vm, command);
    default:
        finish(command, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, operation);
        return 0;
    }
}

int power_execute(struct vm *vm, const struct vmibus_sensor_command *command) {
    const struct vmibus_frame *frame = command->frame;
    struct power_command *copy;
    int r;

    if (!vm_is_usable(vm)) {
        vm_complete(vm, command->id, frame->header.kind, VMIBUS_ERROR_IO,
                    VMIBUS_REASON_SENSOR_FAILED, ENOTCONN, 0);
        return 0;
    }
    copy = calloc(1, sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    copy->vm = vm;
    copy->id = command->id;
    copy->kind = frame->header.kind;
    TAILQ_INSERT_TAIL(&vm->power.commands, copy, link);

    r = copy->kind == VMIBUS_KIND_CMD_VM ? vm_operation(vm, copy, frame->cmd_vm.operation)
                                         : power_operation(vm, copy, frame->cmd_power.operation);
    if (r < 0)
        finish(copy, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, 0);

    return 0;
}

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
