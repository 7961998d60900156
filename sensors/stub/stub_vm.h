/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One synthetic VM: its power, its boots, its memory context.  A VM outlives its endpoint: after
 * QUIT it waits for its respawn, if there is one.
 *
 * Work on the worker (opening and clearing RAM, building the guest) holds a reference to the RAM
 * and the number of the boot it was started for; what comes back for an older boot changes nothing.
 */
#ifndef STUB_VM_H
#define STUB_VM_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/sensor.h>

#include "stub_input.h"
#include "stub_loan.h"
#include "stub_options.h"
#include "stub_ram.h"

struct stub_vm;
struct stub_job;
struct stub_command;
struct stub_watch;

/** An instance of the sensor. */
struct stub {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct stub_options options;
    struct stub_vm *vms;   /**< options.vms of them, their addresses stay */
    struct stub_job *jobs; /**< work given and not done */
    void *saved_octets;    /**< see stub_saved.h */
    int *saved_fds;
};

#define STUB_GROUPS                                                                                \
    (VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT | VMIBUS_GROUP_MEMORY |      \
     VMIBUS_GROUP_SCREEN | VMIBUS_GROUP_REGISTERS | VMIBUS_GROUP_WATCH)

struct stub_vm {
    struct stub *stub;
    unsigned index;
    char name[24];
    struct vmibus_sensor_endpoint *endpoint; /**< NULL between QUIT and the respawn */
    uint8_t state;                           /**< enum vmibus_vm_state */
    bool powering_down; /**< POWERDOWN came, SHUTDOWN follows when the VM runs */
    bool held;          /**< HOLD is in force */
    bool goes_on;       /**< ... and the VM runs when it ends */
    bool was_there;     /**< it is the one of before a restart */
    bool unwanted;      /**< ... and what was held and pressed then is to end */

    unsigned boot;     /**< counts resets and respawns */
    unsigned attempts; /**< to boot, in this boot */
    bool kernel_up;    /**< the guest is built */
    uint32_t note_len;
    struct stub_ram *ram;     /**< NULL: there was no memory for one */
    struct stub_loans loans;
    unsigned layouts_pending; /**< layouts without a verdict: only the last one's epoch counts */
    uint64_t epoch;           /**< 0: none */
    struct vmibus_sensor_timer *boot_timer;
    struct vmibus_sensor_timer *power_timer; /**< shutdown, or respawn */
    struct vmibus_sensor_timer *heartbeat_timer;

    struct stub_input input;

    struct stub_command *commands; /**< accepted, not executed yet: see stub_command.h */
    struct stub_command **last_command;
    unsigned n_commands;
    struct vmibus_sensor_timer *command_timer;

    struct stub_watch *watches; /**< see stub_watch.h */
    unsigned n_watches;
    struct vmibus_sensor_timer *watch_timer;
};

/** Prepares a VM. 0 or a negative errno; stub_vm_deinit() in either case. */
int stub_vm_init(struct stub_vm *vm, struct stub *stub, unsigned index);

/** Closes what it holds. No work may be running. */
void stub_vm_deinit(struct stub_vm *vm);

/** Introduces it to the bus in the state that the options ask for. 0 or a negative errno. */
int stub_vm_offer(struct stub_vm *vm);

struct stub_saved_vm;

/** Introduces it as it was before a restart. @param ram its RAM, taken. As stub_vm_offer(). */
int stub_vm_offer_again(struct stub_vm *vm, const struct stub_saved_vm *saved, struct stub_ram *ram);

/** The bus has taken it: see offered() of the module. */
void stub_vm_offered(struct stub_vm *vm, bool kept);

/** Has it run: boots it, or goes on with what ran before a restart. */
void stub_vm_go_on(struct stub_vm *vm);

/** Begins a boot: gives work to the worker. */
void stub_vm_boot(struct stub_vm *vm);

/** Tells the run state. */
void stub_vm_publish(struct stub_vm *vm, enum vmibus_lifecycle_cause cause, bool by_bus);

/*
 * What commands do. They return 1 if something changed, 0 if it was so already, -EINVAL if the
 * state does not allow it.
 */
int stub_vm_pause(struct stub_vm *vm);
int stub_vm_resume(struct stub_vm *vm);
int stub_vm_hold(struct stub_vm *vm);
int stub_vm_let_go(struct stub_vm *vm);
int stub_vm_wakeup(struct stub_vm *vm);
int stub_vm_reset(struct stub_vm *vm);
int stub_vm_powerdown(struct stub_vm *vm);

/** Ends the VM: to be called after its command was completed. */
void stub_vm_quit(struct stub_vm *vm);

/** The verdict on its layout. */
void stub_vm_layout_result(struct stub_vm *vm, uint64_t epoch, enum vmibus_error error,
                           enum vmibus_reason reason);

/** An epoch is retired. */
void stub_vm_retired(struct stub_vm *vm, uint64_t epoch);

/** The verdict on its root. */
void stub_vm_root_result(struct stub_vm *vm, enum vmibus_error error, enum vmibus_reason reason);

/** Frees the work that did not finish. The worker has ended. */
void stub_jobs_free(struct stub *stub);

#endif
