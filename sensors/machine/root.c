/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The search.  One attempt at a time: sampling registers, attaching, searching on the worker.  What
 * was begun for an epoch that has ended is let run out, and its outcome dropped.
 */
#include <errno.h>
#include <stdlib.h>

#include "machine.h"

/*
 * With page-table isolation the table that is in use in user mode lies behind the kernel's: Linux
 * arch/x86/entry/calling.h.
 */
#define USER_TABLE UINT64_C(0x1000)
#define TABLE_ADDRESS UINT64_C(0x000ffffffffff000)

/*
 * What is searched of RAM at a time.  All VMs share the worker, and a guest can make each of its pages cost what a note
 * does: it must not keep the others waiting.
 */
#define SEARCHED_AT_A_TIME (UINT64_C(64) << 20)

static void attempt(struct machine *machine);
static void watch_later(struct machine *machine);

static bool is_busy(const struct root *root) {
    return root->sampling || root->job || root->attaching;
}

static void pause_for(struct machine *machine, uint64_t ns) {
    machine->root.pausing = ns != 0;
    machine->sensor->api->timer_set(machine->root.timer, ns);
}

/* Tells why there is no root yet, once for each reason. */
static void tell(struct machine *machine, enum vmibus_reason reason) {
    struct root *root = &machine->root;
    struct vmibus_mem_root none = {.epoch = root->epoch, .reason = (uint16_t)reason};

    if (root->has_published || (root->told && root->told_reason == reason))
        return;
    root->told = true;
    root->told_reason = reason;
    machine->sensor->api->root(machine->endpoint, &none);
}

/* An attempt found nothing: another follows, if there is hope or somebody asks. */
static void later(struct machine *machine) {
    struct root *root = &machine->root;

    root->attempts++;
    if (root->has_published && root->attempts >= ROOT_RECHECK_ATTEMPTS) {
        memory_end(machine, VMIBUS_REASON_RELOADED);
        memory_read(machine, false);
        return;
    }
    if (!machine->lifecycle.running)
        return;
    if (root->attempts >= ROOT_UNASKED_ATTEMPTS && !(root->demand_known && root->demanded))
        return;
    pause_for(machine, root->pause_ns);
    root->pause_ns =
        2 * root->pause_ns < ROOT_PAUSE_MAX_NS ? 2 * root->pause_ns : ROOT_PAUSE_MAX_NS;
}

/* Nothing came of looking. */
static void give_up(struct machine *machine) {
    if (machine->root.glimpsing) {
        machine->root.glimpsing = false;
        watch_later(machine);
    } else {
        later(machine);
    }
}

/* A step of an attempt has come to its end. Returns whether the attempt still matters. */
static bool still_matters(struct machine *machine, bool *step) {
    struct root *root = &machine->root;

    *step = false;
    if (!root->abandoned)
        return root->epoch != 0;
    root->abandoned = false;
    if (root->wanted)
        attempt(machine);

    return false;
}

static void release(struct machine *machine) {
    if (machine->root.attached && machine->endpoint)
        machine->sensor->api->detach(machine->endpoint, machine->root.epoch);
    machine->root.attached = false;
}

/* --- the worker ------------------------------------------------------------------------------ */

static struct root_job *job_free(struct root_job *job) {
    if (!job)
        return NULL;
    TAILQ_REMOVE(job->jobs, job, link);
    vmibus_guest_search_free(job->search);
    vmibus_guest_ram_free(job->ram);
    free(job);

    return NULL;
}

/* Searches on; a glimpse is at what the vCPUs map as their kernel, and at no RAM besides. */
static int search_on(struct root_job *job, const struct vmibus_guest_hints *hints) {
    int r = job->search ? 0 : vmibus_guest_search_new(&job->search, job->ram);

    if (r < 0)
        return r;
    r = vmibus_guest_search_step(job->search, hints, job->glimpsed ? 1 : SEARCHED_AT_A_TIME, &job->kernel);
    if (r != VMIBUS_GUEST_UNFINISHED || job->glimpsed)
        job->search = vmibus_guest_search_free(job->search);

    return r;
}

/* On the worker's thread. */
static void job_work(void *data) {
    struct root_job *job = data;
    const struct vmibus_guest_hints hints = {.vcpu_cr3 = job->registers.cr3,
                                             .vcpu_levels = job->registers.levels,
                                             .n_vcpu_cr3 = job->registers.n_cr3};

    job->result = search_on(job, &hints);
    if (job->result > 0 && !job->search)
        job->agrees = sample_take(job->ram, &job->registers, &job->before, &job->sample);
}

static bool is_sampled(const struct root *root) {
    return root->has_published && !root->published.note;
}

/* What the vCPUs use instead of a kernel with a note. Returns whether it is to be proposed. */
static bool take_sample(struct machine *machine, const struct root_job *job) {
    struct root *root = &machine->root;
    bool enough;

    if (root->has_published) {
        if (!is_sampled(root) || !job->agrees)
            return false;
        root->candidate = root->published;
        root->candidate.vcpu_cr3 = job->sample.cr3;
        return true;
    }
    enough = samples_count(&root->samples, &job->sample, job->agrees, machine->sensor->api->now());
    root->candidate = (struct vmibus_mem_root){
        .epoch = root->epoch,
        .cr3 = job->sample.cr3,
        .vcpu_cr3 = job->sample.cr3,
        .probe_gva = job->sample.probe_gva,
        .levels = job->sample.levels,
        .confidence = VMIBUS_CONFIDENCE_SAMPLED,
    };

    return enough;
}

/* A sampled root was watched, and there is no kernel with a note. */
static void take_glimpse(struct machine *machine, const struct root_job *job) {
    if (job->agrees || job->result < 0)
        watch_later(machine);
    else
        root_search(machine);
}

static void take_result(struct machine *machine, const struct root_job *job) {
    struct root *root = &machine->root;
    const struct vmibus_guest_kernel *kernel = &job->kernel;
    bool glimpsed = root->glimpsing;

    root->glimpsing = false;
    if (job->result != 0 && glimpsed) {
        take_glimpse(machine, job);
        return;
    }
    if (job->result > 0 && take_sample(machine, job)) {
        root->has_candidate = true;
        memory_read(machine, false);
        return;
    }
    if (job->result != 0 || !kernel->root.cr3) {
        tell(machine, job->result == VMIBUS_GUEST_NOT_FOUND  ? VMIBUS_REASON_BOOTING
                 : job->result == VMIBUS_GUEST_UNPROVEN ? VMIBUS_REASON_ROOT_UNPROVEN
                                                        : VMIBUS_REASON_SENSOR_FAILED);
        later(machine);
        return;
    }
    root->candidate = (struct vmibus_mem_root){
        .epoch = root->epoch,
        .cr3 = kernel->root.cr3,
        .note = kernel->note.gpa,
        .vcpu_cr3 = kernel->vcpu_cr3,
        .probe_gva = kernel->note.swapper_pg_dir,
        .note_len = kernel->note.len,
        .levels = kernel->root.levels,
        .confidence = kernel->confidence,
    };
    root->has_candidate = true;
    memory_read(machine, false);
}

static void job_done(void *data) {
    struct root_job *job = data;
    struct machine *machine = job->machine;

    if (machine && job->search) {
        int r = machine->sensor->api->work(machine->sensor->host, job_work, job_done, job);

        if (r == 0)
            return;
        job->result = r;
    }
    if (machine) {
        machine->root.job = NULL;
        release(machine);
        take_result(machine, job);
    }
    job_free(job);
}

static int job_start(struct machine *machine, const struct vmibus_sensor_ram *ram) {
    struct root_job *job = calloc(1, sizeof(*job));
    int r;

    if (!job)
        return -ENOMEM;
    job->jobs = &machine->sensor->jobs;
    job->machine = machine;
    job->registers = machine->root.registers;
    job->before = machine->root.samples.last;
    job->glimpsed = machine->root.glimpsing;
    TAILQ_INSERT_TAIL(job->jobs, job, link);
    r = vmibus_guest_ram_new_unmapped(&job->ram, ram->ranges, ram->n_ranges, ram->fds, ram->n_fds, ram->pagemap_fd);
    if (r >= 0)
        r = machine->sensor->api->work(machine->sensor->host, job_work, job_done, job);
    if (r < 0) {
        job_free(job);
        return r;
    }
    machine->root.job = job;

    return 0;
}

void root_jobs_deinit(struct root_jobs *jobs) {
    struct root_job *job;

    while ((job = TAILQ_FIRST(jobs)))
        job_free(job);
}

/* --- attempts -------------------------------------------------------------------------------- */

void root_attached(struct machine *machine, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                   enum vmibus_reason reason) {
    struct root *root = &machine->root;

    if (!root->attaching)
        return;
    if (!still_matters(machine, &root->attaching)) {
        if (ram)
            machine->sensor->api->detach(machine->endpoint, ram->epoch);
        return;
    }
    if (!ram || ram->epoch != root->epoch) {
        if (ram)
            machine->sensor->api->detach(machine->endpoint, ram->epoch);
        if (error != VMIBUS_ERROR_STALE_EPOCH)
            tell(machine, reason != VMIBUS_REASON_NONE ? reason : VMIBUS_REASON_SENSOR_FAILED);
        give_up(machine);
        return;
    }
    root->attached = true;
    if (job_start(machine, ram) < 0) {
        release(machine);
        give_up(machine);
    }
}

/* The vCPUs are known: goes on with RAM. */
static void attach(struct machine *machine) {
    if (machine->sensor->api->attach(machine->endpoint, machine->root.epoch) < 0)
        give_up(machine);
    else
        machine->root.attaching = true;
}

static void on_registers(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;
    struct root *root = &machine->root;
    const char *text;
    size_t len;

    if (!still_matters(machine, &root->sampling) || reply->outcome == MONITOR_LOST)
        return;
    text = monitor_text(reply, &len);
    if (text)
        registers_parse(text, len, &root->registers);
    else
        root->registers = (struct registers){0};
    if (root->registers.n_cr3) {
        attach(machine);
        return;
    }
    if (!root->has_published)
        root->samples = (struct samples){0};
    tell(machine, VMIBUS_REASON_BOOTING);
    later(machine);
}

static void attempt(struct machine *machine) {
    struct root *root = &machine->root;

    if (is_busy(root)) {
        root->wanted = true;
        return;
    }
    root->wanted = false;
    if (!machine_is_usable(machine) || !root->epoch)
        return;
    if (monitor_execute_human(machine->monitor, "info registers -a", on_registers, machine) < 0)
        later(machine);
    else
        root->sampling = true;
}

/* --- watching -------------------------------------------------------------------------------- */

static void watch_later(struct machine *machine) {
    const struct root *root = &machine->root;

    if (root->settled && root->demand_known && root->demanded && machine->lifecycle.running)
        pause_for(machine, ROOT_WATCH_NS);
}

/* Asks the authority whether a vCPU's tables map the kernel as the root does. */
static void ask(struct machine *machine, uint64_t cr3) {
    struct vmibus_mem_root root = machine->root.published;

    root.vcpu_cr3 = cr3 & TABLE_ADDRESS;
    machine->root.watching = machine->sensor->api->root(machine->endpoint, &root) >= 0;
    if (!machine->root.watching)
        watch_later(machine);
}

static void on_watched(void *userdata, const struct monitor_reply *reply) {
    struct machine *machine = userdata;
    struct root *root = &machine->root;
    const struct registers *registers = &root->registers;
    const char *text;
    size_t len, use = 0;

    if (!still_matters(machine, &root->sampling) || reply->outcome == MONITOR_LOST)
        return;
    text = monitor_text(reply, &len);
    if (!text) {
        watch_later(machine);
        return;
    }
    registers_parse(text, len, &root->registers);
    if (!registers->n_cr3) {
        root_search(machine);
        return;
    }
    if (is_sampled(root)) {
        root->glimpsing = true;
        attach(machine);
        return;
    }
    while (use + 1 < registers->n_cr3 && (registers->cr3[use] & USER_TABLE))
        use++;
    root->other_cr3 = registers->cr3[use] & USER_TABLE ? registers->cr3[use] & ~USER_TABLE : 0;
    ask(machine, registers->cr3[use]);
}

static void watch(struct machine *machine) {
    struct root *root = &machine->root;

    if (!machine_is_usable(machine) || !root->epoch || is_busy(root) || root->watching)
        return;
    if (monitor_execute_human(machine->monitor, "info registers -a", on_watched, machine) < 0)
        watch_later(machine);
    else
        root->sampling = true;
}

/* The verdict on what a vCPU uses. */
static void judge(struct machine *machine, enum vmibus_error error) {
    struct root *root = &machine->root;
    uint64_t other = root->other_cr3;

    root->other_cr3 = 0;
    if (!error)
        watch_later(machine);
    else if (other)
        ask(machine, other);
    else
        root_search(machine);
}

static void on_timer(void *userdata) {
    struct machine *machine = userdata;

    machine->root.pausing = false;
    if (machine->root.settled)
        watch(machine);
    else
        attempt(machine);
}

void root_search(struct machine *machine) {
    struct root *root = &machine->root;

    root_stop(machine);
    root->epoch = machine->memory.epoch;
    if (root->published.epoch != root->epoch) {
        root->has_published = root->told = false;
        root->samples = (struct samples){0};
    }
    attempt(machine);
}

void root_stop(struct machine *machine) {
    struct root *root = &machine->root;

    pause_for(machine, 0);
    release(machine);
    if (root->job) {
        root->job->machine = NULL;
        root->job = NULL;
    }
    root->abandoned = root->sampling || root->attaching;
    root->wanted = root->has_candidate = root->proposing = root->settled = root->glimpsing = false;
    root->overtaken = root->watching;
    root->attempts = 0;
    root->pause_ns = ROOT_PAUSE_MIN_NS;
    root->epoch = 0;
}

static bool is_same_kernel(const struct vmibus_mem_root *a, const struct vmibus_mem_root *b) {
    return a->cr3 == b->cr3 && a->levels == b->levels && a->note == b->note &&
           a->note_len == b->note_len && a->probe_gva == b->probe_gva;
}

bool root_confirmed(struct machine *machine) {
    struct root *root = &machine->root;

    if (!root->has_candidate)
        return false;
    root->has_candidate = false;
    if (root->has_published && !is_same_kernel(&root->candidate, &root->published)) {
        memory_end(machine, VMIBUS_REASON_RELOADED);
        memory_read(machine, false);
        return true;
    }
    if (machine->sensor->api->root(machine->endpoint, &root->candidate) < 0)
        later(machine);
    else
        root->proposing = true;

    return true;
}

void root_verdict(struct machine *machine, uint64_t epoch, enum vmibus_error error,
                  enum vmibus_reason reason) {
    struct root *root = &machine->root;
    bool proposing = root->proposing, watching = root->watching, overtaken = root->overtaken;

    (void)reason;
    root->watching = root->overtaken = false;
    if (watching && overtaken)
        return;
    /* A verdict that names no epoch is a refusal of the one that was named. */
    if (!root->epoch || (epoch ? epoch != root->epoch : !error))
        return;
    root->proposing = false;
    if (error == VMIBUS_ERROR_STALE_EPOCH) {
        memory_ended(machine, root->epoch);
        return;
    }
    if (watching) {
        judge(machine, error);
        return;
    }
    if (error && (proposing || root->has_published)) {
        root->has_published = false;
        later(machine);
    } else if (proposing) {
        root->has_published = true;
        root->published = root->candidate;
        root->attempts = 0;
        root->pause_ns = ROOT_PAUSE_MIN_NS;
        root->settled = true;
        watch_later(machine);
    }
}

void root_demand(struct machine *machine, uint64_t kinds) {
    struct root *root = &machine->root;

    root->demand_known = true;
    root->demanded = (kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)) != 0;
    if (!root->demanded || !root->epoch || root->pausing || root->has_candidate || root->proposing ||
        is_busy(root))
        return;
    if (root->settled)
        watch(machine);
    else if (!root->has_published)
        attempt(machine);
}

int root_init(struct machine *machine) {
    machine->root.pause_ns = ROOT_PAUSE_MIN_NS;

    return machine->sensor->api->timer_new(machine->sensor->host, on_timer, machine, &machine->root.timer);
}

void root_forget(struct machine *machine) {
    struct root *root = &machine->root;
    struct vmibus_sensor_timer *timer = root->timer;

    if (timer)
        root_stop(machine);
    *root = (struct root){.timer = timer, .pause_ns = ROOT_PAUSE_MIN_NS};
}

void root_deinit(struct machine *machine) {
    root_forget(machine);
    machine->sensor->api->timer_free(machine->root.timer);
    machine->root.timer = NULL;
}
