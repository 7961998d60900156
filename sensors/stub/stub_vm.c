/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A synthetic VM's life: see stub_vm.h.
 *
 *   power on: [job NOTHING, until RAM on loan may have come back ->] job CLEAR -> layout() -> layout_result: epoch
 *                  `-> boot timer -> job BUILD -> kernel_up
 *   epoch and kernel_up, in either order: root()
 */
#include "stub_vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stub_command.h"
#include "stub_guest.h"
#include "stub_saved.h"
#include "stub_watch.h"

#define NS_PER_MS UINT64_C(1000000)
#define FLAKY_ATTEMPTS 2 /* that fail before one succeeds */

enum job_kind { JOB_NOTHING, JOB_CLEAR, JOB_BUILD };

struct stub_job {
    struct stub_job *next;
    enum job_kind kind;
    struct stub_vm *vm;
    struct stub_ram *ram;
    unsigned boot;
    int result;
    uint32_t note_len;
};

static void job_done(void *data);

/* A delay of 0 would disarm the timer. */
static void timer_set_ms(struct stub_vm *vm, struct vmibus_sensor_timer *timer, uint64_t ms) {
    vm->stub->api->timer_set(timer, ms ? ms * NS_PER_MS : 1);
}

static void degrade(struct stub_vm *vm, const char *what, const char *kind, int value) {
    char message[STUB_MESSAGE_BOUND];

    snprintf(message, sizeof(message), "%s: %s (%s %d)", vm->name, what, kind, value);
    vm->stub->api->announce(vm->stub->host, VMIBUS_SENSOR_STATE_DEGRADED, message);
}

void stub_vm_publish(struct stub_vm *vm, enum vmibus_lifecycle_cause cause, bool by_bus) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_LIFECYCLE},
        .lifecycle = {.state = vm->state,
                      .cause = (uint8_t)cause,
                      .flags = by_bus ? VMIBUS_LIFECYCLE_BY_BUS : 0},
    };
    int r = vm->stub->api->publish(vm->endpoint, &frame, NULL, 0);

    if (r < 0)
        degrade(vm, "its run state could not be published", "errno", -r);
}

/* --- work ------------------------------------------------------------------------------------- */

static void job_work(void *data) {
    struct stub_job *job = data;

    if (job->kind == JOB_NOTHING)
        return;
    if (job->kind == JOB_BUILD)
        job->result = stub_guest_build(job->ram, job->vm->name, job->boot, &job->note_len);
    else if (job->ram->n_fds == 0)
        job->result = stub_ram_open(job->ram);
    else
        job->result = stub_ram_clear(job->ram);
}

static void job_free(struct stub_job *job) {
    struct stub_job **link = &job->vm->stub->jobs;

    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    stub_ram_unref(job->ram);
    free(job);
}

void stub_jobs_free(struct stub *stub) {
    while (stub->jobs)
        job_free(stub->jobs);
}

static void job_start(struct stub_vm *vm, enum job_kind kind) {
    struct stub_job *job = calloc(1, sizeof(*job));
    int r = -ENOMEM;

    if (job) {
        *job = (struct stub_job){.next = vm->stub->jobs,
                                 .kind = kind,
                                 .vm = vm,
                                 .ram = stub_ram_ref(vm->ram),
                                 .boot = vm->boot};
        vm->stub->jobs = job;
        r = vm->stub->api->work(vm->stub->host, job_work, job_done, job);
        if (r < 0)
            job_free(job);
    }
    if (r < 0)
        degrade(vm, "no work can be given to the worker; it stays without memory context", "errno",
                -r);
}

/* --- memory context --------------------------------------------------------------------------- */

static void propose_layout(struct stub_vm *vm) {
    struct vmibus_layout_range ranges[STUB_RANGES_MAXIMUM];
    struct vmibus_sensor_layout layout = {.ranges = ranges,
                                          .n_ranges = stub_ram_ranges(vm->ram, ranges),
                                          .fds = vm->ram->fds,
                                          .n_fds = vm->ram->n_fds};
    int r;

    if (vm->stub->options.layout == STUB_LAYOUT_BEYOND) {
        ranges[layout.n_ranges - 1].len += STUB_LARGE_PAGE;
    } else if (vm->stub->options.layout == STUB_LAYOUT_OVERLAP) {
        ranges[layout.n_ranges++] =
            (struct vmibus_layout_range){.gpa = STUB_PAGE, .len = STUB_LARGE_PAGE};
    }
    r = stub_loans_add(&vm->loans, vm->ram);
    if (r == 0) {
        vm->layouts_pending++;
        r = vm->stub->api->layout(vm->endpoint, &layout);
        if (r < 0) {
            vm->layouts_pending--;
            stub_loans_settle(&vm->loans, 0);
        }
    }
    if (r < 0) {
        degrade(vm, "its RAM layout could not be proposed", "errno", -r);
    }
}

static void tell_root(struct stub_vm *vm, const struct vmibus_mem_root *root) {
    int r = vm->stub->api->root(vm->endpoint, root);

    if (r < 0)
        degrade(vm, "its kernel root could not be proposed", "errno", -r);
}

static void tell_no_root(struct stub_vm *vm, enum vmibus_reason reason) {
    struct vmibus_mem_root root = {.epoch = vm->epoch, .reason = (uint16_t)reason};

    if (vm->epoch)
        tell_root(vm, &root);
}

static void propose_root(struct stub_vm *vm) {
    struct vmibus_mem_root root = {
        .epoch = vm->epoch,
        .cr3 = stub_swapper_gpa(vm->boot),
        .note = stub_note_gpa(vm->boot),
        .note_len = vm->note_len,
        .vcpu_cr3 = stub_vcpu_cr3(vm->index, vm->boot),
        .probe_gva = stub_swapper_gva(vm->index, vm->boot),
        .levels = stub_levels(vm->index),
        .confidence = VMIBUS_CONFIDENCE_PROVEN,
    };

    if (!vm->epoch || !vm->kernel_up)
        return;
    if (vm->stub->options.root == STUB_ROOT_NONE) {
        tell_no_root(vm, VMIBUS_REASON_NO_ROOT);
        return;
    }
    if (vm->stub->options.root == STUB_ROOT_WRONG)
        root.cr3 = STUB_FREE_GPA;
    tell_root(vm, &root);
}

static bool boots_at_once(const struct stub_vm *vm) {
    return vm->stub->options.boot_ms == 0 && vm->stub->options.bootstrap == STUB_BOOTSTRAP_OK;
}

void stub_vm_layout_result(struct stub_vm *vm, uint64_t epoch, enum vmibus_error error,
                           enum vmibus_reason reason) {
    stub_loans_settle(&vm->loans, error == VMIBUS_ERROR_OK ? epoch : 0);
    if (vm->layouts_pending > 0 && --vm->layouts_pending > 0)
        return;
    /* An epoch that began after the VM shut down has been ended already. */
    vm->epoch = error == VMIBUS_ERROR_OK && vm->state != VMIBUS_VM_STATE_SHUTDOWN ? epoch : 0;
    if (error != VMIBUS_ERROR_OK)
        degrade(vm, "the memory authority refused its RAM layout", "reason", (int)reason);
    else if (vm->kernel_up)
        propose_root(vm);
    else if (!boots_at_once(vm))
        tell_no_root(vm, VMIBUS_REASON_BOOTING);
}

void stub_vm_retired(struct stub_vm *vm, uint64_t epoch) {
    stub_loans_return(&vm->loans, epoch);
}

void stub_vm_root_result(struct stub_vm *vm, enum vmibus_error error, enum vmibus_reason reason) {
    /* A root of an epoch that ended meanwhile is no trouble: the next epoch gets its own. */
    if (error != VMIBUS_ERROR_OK && error != VMIBUS_ERROR_STALE_EPOCH)
        degrade(vm, "the memory authority refused its kernel root", "reason", (int)reason);
}

static void end_epoch(struct stub_vm *vm, enum vmibus_reason reason) {
    if (vm->epoch || vm->layouts_pending)
        vm->stub->api->end_epoch(vm->endpoint, reason);
    vm->epoch = 0;
}

/* --- boot ------------------------------------------------------------------------------------- */

static void boot_due(void *userdata) {
    struct stub_vm *vm = userdata;
    const struct stub_options *options = &vm->stub->options;

    if (options->bootstrap == STUB_BOOTSTRAP_FAIL)
        return;
    if (options->bootstrap == STUB_BOOTSTRAP_FLAKY && vm->attempts < FLAKY_ATTEMPTS) {
        vm->attempts++;
        tell_no_root(vm, VMIBUS_REASON_ROOT_UNPROVEN);
        timer_set_ms(vm, vm->boot_timer, (uint64_t)options->boot_ms << vm->attempts);
        return;
    }
    job_start(vm, JOB_BUILD);
}

/* If nobody held the epoch that has just ended, its RAM has come back by now. */
static void renew_ram(struct stub_vm *vm) {
    vm->ram = stub_loans_renew(&vm->loans, vm->ram);
    if (vm->ram)
        job_start(vm, JOB_CLEAR);
    else
        degrade(vm, "it has no RAM any more", "errno", ENOMEM);
}

static void job_done(void *data) {
    struct stub_job *job = data;
    struct stub_vm *vm = job->vm;
    enum job_kind kind = job->kind;
    uint32_t note_len = job->note_len;
    bool is_current =
        vm->ram == job->ram && vm->boot == job->boot && vm->state != VMIBUS_VM_STATE_SHUTDOWN;
    int r = job->result;

    job_free(job);
    if (!is_current)
        return;
    if (r < 0) {
        degrade(vm,
                kind == JOB_BUILD ? "its guest could not be built" : "its RAM could not be made",
                "errno", -r);
    } else if (kind == JOB_NOTHING) {
        renew_ram(vm);
    } else if (kind == JOB_BUILD) {
        vm->kernel_up = true;
        vm->note_len = note_len;
        propose_root(vm);
    } else {
        stub_input_attach(&vm->input, vm->ram->ring);
        propose_layout(vm);
        if (boots_at_once(vm))
            boot_due(vm);
        else
            timer_set_ms(vm, vm->boot_timer, vm->stub->options.boot_ms);
    }
}

void stub_vm_boot(struct stub_vm *vm) {
    vm->kernel_up = false;
    vm->powering_down = false;
    vm->attempts = 0;
    vm->stub->api->timer_set(vm->boot_timer, 0);
    stub_input_reset(&vm->input);
    if (!vm->ram)
        degrade(vm, "it has no RAM any more", "errno", ENOMEM);
    else
        job_start(vm, stub_loans_have(&vm->loans, vm->ram) ? JOB_NOTHING : JOB_CLEAR);
}

/* --- power ------------------------------------------------------------------------------------ */

int stub_vm_pause(struct stub_vm *vm) {
    if (vm->state == VMIBUS_VM_STATE_PAUSED) {
        bool changes = vm->held && vm->goes_on;

        vm->goes_on = false;
        return changes;
    }
    if (vm->state != VMIBUS_VM_STATE_RUNNING)
        return -EINVAL;
    vm->state = VMIBUS_VM_STATE_PAUSED;
    stub_vm_publish(vm, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    return 1;
}

static int go_on(struct stub_vm *vm, enum vmibus_vm_state from, enum vmibus_lifecycle_cause cause) {
    if (vm->state == VMIBUS_VM_STATE_RUNNING)
        return 0;
    if (vm->state != from)
        return -EINVAL;
    vm->state = VMIBUS_VM_STATE_RUNNING;
    stub_vm_publish(vm, cause, true);
    if (vm->powering_down)
        timer_set_ms(vm, vm->power_timer, vm->stub->options.shutdown_ms);
    return 1;
}

int stub_vm_resume(struct stub_vm *vm) {
    if (vm->held && vm->state == VMIBUS_VM_STATE_PAUSED) {
        bool changes = !vm->goes_on;

        vm->goes_on = true;
        return changes;
    }
    return go_on(vm, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_RESUMED);
}

/* A VM that sleeps may wake by itself, so it cannot be held. */
int stub_vm_hold(struct stub_vm *vm) {
    bool runs = vm->state == VMIBUS_VM_STATE_RUNNING;
    int r = runs ? stub_vm_pause(vm) : vm->state == VMIBUS_VM_STATE_SUSPENDED ? -EINVAL : 0;

    if (r < 0)
        return r;
    vm->held = true;
    vm->goes_on = runs;
    return r;
}

int stub_vm_let_go(struct stub_vm *vm) {
    bool goes_on = vm->held && vm->goes_on && vm->state == VMIBUS_VM_STATE_PAUSED;

    vm->held = vm->goes_on = false;
    return goes_on ? stub_vm_resume(vm) : 0;
}

int stub_vm_wakeup(struct stub_vm *vm) {
    return go_on(vm, VMIBUS_VM_STATE_SUSPENDED, VMIBUS_LIFECYCLE_CAUSE_WAKEUP);
}

int stub_vm_reset(struct stub_vm *vm) {
    end_epoch(vm, VMIBUS_REASON_RESET);
    vm->stub->api->timer_set(vm->power_timer, 0);
    if (vm->state != VMIBUS_VM_STATE_PAUSED)
        vm->state = VMIBUS_VM_STATE_RUNNING;
    stub_vm_publish(vm, VMIBUS_LIFECYCLE_CAUSE_RESET, true);
    vm->boot++;
    stub_vm_boot(vm);
    return 1;
}

int stub_vm_powerdown(struct stub_vm *vm) {
    if (vm->state != VMIBUS_VM_STATE_RUNNING && vm->state != VMIBUS_VM_STATE_PAUSED)
        return -EINVAL;
    if (vm->powering_down)
        return 0;
    vm->powering_down = true;
    stub_vm_publish(vm, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN, true);
    timer_set_ms(vm, vm->power_timer, vm->stub->options.shutdown_ms);
    return 1;
}

static void shut_down(struct stub_vm *vm) {
    if (!vm->powering_down || vm->state != VMIBUS_VM_STATE_RUNNING)
        return;
    vm->powering_down = false;
    vm->kernel_up = false;
    vm->stub->api->timer_set(vm->boot_timer, 0);
    stub_input_reset(&vm->input);
    end_epoch(vm, VMIBUS_REASON_SHUTDOWN);
    vm->state = VMIBUS_VM_STATE_SHUTDOWN;
    stub_vm_publish(vm, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
}

void stub_vm_quit(struct stub_vm *vm) {
    const struct vmibus_sensor_api *api = vm->stub->api;

    vm->state = VMIBUS_VM_STATE_SHUTDOWN;
    stub_vm_publish(vm, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
    api->withdraw(vm->endpoint, VMIBUS_REASON_EXIT);
    vm->endpoint = NULL;
    vm->held = vm->goes_on = false;
    vm->epoch = 0;
    vm->layouts_pending = 0;
    stub_commands_drop(vm);
    stub_watches_drop(vm);
    stub_input_reset(&vm->input);
    stub_loans_drop(&vm->loans);
    vm->ram = stub_ram_unref(vm->ram);
    api->timer_set(vm->boot_timer, 0);
    api->timer_set(vm->heartbeat_timer, 0);
    api->timer_set(vm->power_timer, vm->stub->options.respawn_ms * NS_PER_MS);
}

/* Nobody wants what was held and pressed before the restart. */
static void undo(struct stub_vm *vm) {
    vm->unwanted = false;
    (void)stub_vm_let_go(vm);
    (void)stub_input_release(&vm->input);
}

void stub_vm_offered(struct stub_vm *vm, bool kept) {
    if (kept || !vm->was_there)
        return;
    vm->unwanted = true;
    if (vm->state != VMIBUS_VM_STATE_UNKNOWN)
        undo(vm);
}

static int introduce(struct stub_vm *vm, uint8_t state, enum vmibus_lifecycle_cause cause, struct stub_ram *ram) {
    struct vmibus_sensor_offer offer = {
        .name = vm->name,
        .uuid = {'v', 'm', 'i', 'b', 'u', 's', 0x80, 0, 0x80, 0, 0, 0, (uint8_t)(vm->index >> 24),
                 (uint8_t)(vm->index >> 16), (uint8_t)(vm->index >> 8), (uint8_t)vm->index},
        .groups = STUB_GROUPS,
    };
    int r;

    vm->ram = ram ? ram : stub_ram_new(vm->index, vm->stub->options.ram);
    if (!vm->ram)
        return -ENOMEM;
    r = vm->stub->api->offer(vm->stub->host, &offer, vm, &vm->endpoint);
    if (r < 0) {
        vm->ram = stub_ram_unref(vm->ram);
        vm->endpoint = NULL;
        return r;
    }
    vm->state = state;
    stub_vm_publish(vm, cause, false);
    if (vm->unwanted)
        undo(vm);
    if (vm->stub->options.heartbeat_ms)
        timer_set_ms(vm, vm->heartbeat_timer, vm->stub->options.heartbeat_ms);
    return 0;
}

int stub_vm_offer(struct stub_vm *vm) {
    return introduce(vm, (uint8_t)vm->stub->options.state, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, NULL);
}

static void restore(struct stub_vm *vm, const struct stub_saved_vm *saved) {
    vm->was_there = true;
    vm->held = saved->held;
    vm->goes_on = saved->goes_on;
    vm->powering_down = saved->powering_down;
    vm->boot = saved->boot;
    vm->kernel_up = saved->kernel_up;
    vm->note_len = saved->note_len;
    vm->epoch = saved->epoch;
    vm->input.count = saved->input_count;
    vm->input.released = saved->input_released;
    vm->input.held = saved->keys_held;
    memcpy(vm->input.keys, saved->keys, sizeof(vm->input.keys));
}

int stub_vm_offer_again(struct stub_vm *vm, const struct stub_saved_vm *saved, struct stub_ram *ram) {
    restore(vm, saved);
    return introduce(vm, saved->state, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, ram);
}

/* A guest that was being built is booted anew; one that runs goes on, and its layout is the same again. */
void stub_vm_go_on(struct stub_vm *vm) {
    if (!vm->was_there) {
        stub_vm_boot(vm);
        return;
    }
    if (vm->powering_down && vm->state == VMIBUS_VM_STATE_RUNNING)
        timer_set_ms(vm, vm->power_timer, vm->stub->options.shutdown_ms);
    if (vm->state == VMIBUS_VM_STATE_SHUTDOWN)
        return;
    if (vm->kernel_up) {
        stub_input_attach(&vm->input, vm->ram->ring);
        propose_layout(vm);
    } else {
        end_epoch(vm, VMIBUS_REASON_RESET);
        stub_vm_boot(vm);
    }
}

static void power_due(void *userdata) {
    struct stub_vm *vm = userdata;
    int r;

    if (vm->endpoint) {
        shut_down(vm);
        return;
    }
    vm->boot++;
    r = introduce(vm, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_STARTED, NULL);
    if (r < 0)
        degrade(vm, "it could not be offered again", "errno", -r);
    else
        stub_vm_boot(vm);
}

static void heartbeat_due(void *userdata) {
    struct stub_vm *vm = userdata;

    stub_vm_publish(vm, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    timer_set_ms(vm, vm->heartbeat_timer, vm->stub->options.heartbeat_ms);
}

/* --- life ------------------------------------------------------------------------------------- */

int stub_vm_init(struct stub_vm *vm, struct stub *stub, unsigned index) {
    const struct vmibus_sensor_api *api = stub->api;
    int r;

    memset(vm, 0, sizeof(*vm));
    vm->stub = stub;
    vm->index = index;
    snprintf(vm->name, sizeof(vm->name), "stub-%u", index);
    r = api->timer_new(stub->host, boot_due, vm, &vm->boot_timer);
    if (r == 0)
        r = api->timer_new(stub->host, power_due, vm, &vm->power_timer);
    if (r == 0)
        r = api->timer_new(stub->host, heartbeat_due, vm, &vm->heartbeat_timer);
    if (r == 0)
        r = stub_commands_init(vm);
    if (r == 0)
        r = stub_watches_init(vm);
    return r;
}

void stub_vm_deinit(struct stub_vm *vm) {
    const struct vmibus_sensor_api *api = vm->stub->api;

    stub_watches_deinit(vm);
    stub_commands_deinit(vm);
    api->timer_free(vm->heartbeat_timer);
    api->timer_free(vm->power_timer);
    api->timer_free(vm->boot_timer);
    stub_loans_drop(&vm->loans);
    vm->ram = stub_ram_unref(vm->ram);
}
