/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One VM: one configured monitor, whoever is behind it at the moment.
 *
 * The VM owns its connection and its endpoint; the machine, input and screen each own one aspect of it.  Nothing is
 * shared between VMs but the host, so what one QEMU does to its monitor is met by its own VM alone.
 */
#ifndef SENSORS_QEMU_VM_H
#define SENSORS_QEMU_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

#include "arrival.h"
#include "by_command.h"
#include "directory.h"
#include "input.h"
#include "machine/machine.h"
#include "qmp.h"
#include "screen.h"

/** What a VM's monitor is doing, for people. */
enum vm_condition {
    VM_ABSENT,    /**< nothing listens: the VM does not run */
    VM_CONNECTED, /**< it takes commands */
    VM_TROUBLED,  /**< in use by somebody else, silent, or talking nonsense */
};

TAILQ_HEAD(vm_list, vm);

/** What the sensor provides. */
#define QEMU_GROUPS                                                                                \
    (VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT | VMIBUS_GROUP_MEMORY |      \
     VMIBUS_GROUP_SCREEN | VMIBUS_GROUP_REGISTERS)

/** An instance of the sensor. */
struct qemu {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct machine_sensor machines;
    struct vm_list vms;
    size_t n_vms;
    struct directory_list directories;
    struct directory_rules directory_rules;
    struct removed_list removed; /* VMs of options that are not followed */
    struct screenshots pictures; /* being made on the worker, also those nobody waits for any more */
    bool announced;
    enum vmibus_sensor_state announced_state;
    char announced_message[512];
};

/** A VM. */
struct vm {
    TAILQ_ENTRY(vm) link;
    struct qemu *qemu;
    struct machine machine; /* its monitor is qmp, while that is there */
    char *path;
    struct directory_file file; /* where it comes from */
    bool by_command;            /* a command named it, no option */

    /* the connection */
    struct qmp *qmp;         /* NULL while there is none */
    struct arrival *arrival; /* NULL if the host's limits forbid it */
    struct vmibus_sensor_timer *retry_timer;
    unsigned int retries; /* since something changed */
    enum vm_condition condition;
    char message[400]; /* why it is troubled */

    /* the VM behind it */
    struct vmibus_sensor_source *process_source;
    bool process_ended;       /* its pidfd said so */
    bool lost_told;           /* it was told that the monitor was lost */
    struct process candidate; /* process of a connection that is not introduced yet */

    struct input input;
    struct screen screen;
};

/**
 * Makes a VM and begins to look for it.
 * @param directory which watches the path; NULL: the VM does so itself
 * @return 0 or a negative errno
 */
int vm_new(struct qemu *qemu, const char *name, size_t name_len, const char *path, struct directory *directory);

/** The VM of a name; NULL: it is not followed. */
struct vm *vm_find(const struct qemu *qemu, const char *name);

/** Its path is another file: looks for it at once, if it is not connected. */
void vm_try(struct vm *vm);

/** Whether nothing is known of a VM but its path. */
bool vm_is_absent(const struct vm *vm);

/** Follows it no more: withdraws it, leaving the VM itself alone, and frees it. */
void vm_remove(struct vm *vm);

/** Frees a VM, closing its connection; its endpoint is left to the host. Returns NULL. */
struct vm *vm_free(struct vm *vm);

/** The VM that a machine belongs to. */
static inline struct vm *vm_of(struct machine *machine) {
    return (struct vm *)((char *)machine - offsetof(struct vm, machine));
}

/** Tells the host the state of the whole sensor, if it changed. */
void qemu_announce(struct qemu *qemu);

#endif
