/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One VM: one configured monitor, whoever is behind it at the moment.
 *
 * The VM owns its connection and its endpoint; lifecycle, memory, root, input and power each own
 * one aspect of it and speak to each other through the functions of their headers.  Nothing is
 * shared between VMs but the host, so what one QEMU does to its monitor is met by its own VM alone.
 */
#ifndef SENSORS_QEMU_VM_H
#define SENSORS_QEMU_VM_H

#include <stdbool.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

#include "arrival.h"
#include "input.h"
#include "lifecycle.h"
#include "memory.h"
#include "power.h"
#include "process.h"
#include "qmp.h"
#include "root.h"
#include "screen.h"
#include "vcpus.h"

#define NANOSECONDS_PER_MS UINT64_C(1000000)

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
    struct vm_list vms;
    struct root_jobs jobs; /* searches on the worker, also those nobody waits for any more */
    struct screenshots pictures; /* being made on the worker, also those nobody waits for any more */
    char *state_directory; /* where intents of pauses are kept; NULL: nowhere */
    bool announced;
    enum vmibus_sensor_state announced_state;
    char announced_message[512];
};

/** A VM. */
struct vm {
    TAILQ_ENTRY(vm) link;
    struct qemu *qemu;
    char *name;
    char *path;

    /* the connection */
    struct qmp *qmp;         /* NULL while there is none */
    struct arrival *arrival; /* NULL if the host's limits forbid it */
    struct vmibus_sensor_timer *retry_timer;
    unsigned int retries; /* since something changed */
    enum vm_condition condition;
    char message[400]; /* why it is troubled */

    /* the VM behind it */
    struct vmibus_sensor_endpoint *endpoint; /* NULL while there is none */
    struct process process;
    struct vmibus_sensor_source *process_source;
    bool process_ended;       /* its pidfd said so */
    bool lost_told;           /* it was told that the monitor was lost */
    struct process candidate; /* process of a connection that is not introduced yet */
    uint8_t uuid[16];

    struct lifecycle lifecycle;
    struct memory memory;
    struct root root;
    struct input input;
    struct power power;
    struct screen screen;
    struct vcpus vcpus;
};

/** Makes a VM and begins to look for it. Returns 0 or a negative errno. */
int vm_new(struct qemu *qemu, const char *name, size_t name_len, const char *path);

/** Frees a VM, closing its connection; its endpoint is left to the host. Returns NULL. */
struct vm *vm_free(struct vm *vm);

/** Whether the VM's monitor takes commands and its endpoint exists. */
bool vm_is_usable(const struct vm *vm);

/** Answers a command of kind @a kind. Stamps are the host's. */
void vm_complete(struct vm *vm, uint64_t id, uint16_t kind, enum vmibus_error error,
                 enum vmibus_reason reason, uint64_t value, uint64_t count);

/** Tells the host the state of the whole sensor, if it changed. */
void qemu_announce(struct qemu *qemu);

#endif
