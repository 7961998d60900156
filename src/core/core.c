/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/core.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "bus/bus.h"
#include "core/handover.h"
#include "core/local_sensor.h"
#include "memory/authority.h"
#include "memory/opener.h"
#include "policy/numbering.h"
#include "transport/listener.h"
#include "util/fault.h"

#define DEFAULT_ENDPOINTS 64
#define DEFAULT_CONNECTIONS 64
#define DEFAULT_QUEUE_DEPTH 4096
#define DEFAULT_COMMANDS 256
#define DEFAULT_DRAIN_MS 5000
#define DEFAULT_HOLD_MS 10000
#define DEFAULT_RETIRE_MS 5000
#define DEFAULT_HELLO_MS 5000
#define DEFAULT_AUDIT_RECORDS 16384

/* Octets for what connections hold and for tails: by default, and at least. */
#define DEFAULT_MEMORY (UINT64_C(64) << 20)
#define LEAST_MEMORY (UINT64_C(2) << 20)
#define SLACK (UINT64_C(64) << 10) /* carving rounds up, by less than that */

/* --- between the bus and the authority --------------------------------------------------------- */

static void bus_tells_memory(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_core *core = context;

    if (core->authority)
        authority_hear_link(core->authority, frame, tail);
    else
        memory_link_tell(&core->memory_link, frame, tail);
}

static void memory_tells_bus(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_core *core = context;

    if (core->bus) /* the authority ends last, with writes that may still be under way */
        bus_hear_link(core->bus, frame, tail);
}

static void count_memory(void *context, struct bus_memory_counters *counters) {
    struct vmibus_core *core = context;
    struct authority_counters memory;

    authority_get_counters(core->authority, &memory);
    *counters = (struct bus_memory_counters){
        .writes = memory.writes,
        .bytes_written = memory.bytes_written,
        .epochs_ended = memory.epochs_ended,
        .attachments = memory.attachments,
        .epochs_retiring = memory.epochs_retiring,
        .reads = memory.reads,
        .bytes_read = memory.bytes_read,
        .buffers = memory.buffers,
        .buffer_bytes = memory.buffer_bytes,
    };
}

static bool count_process(void *context, struct bus_process_counters *counters) {
    struct vmibus_core *core = context;

    return monitor_count(&core->monitor, counters);
}

static void want_resources(void *context, bool wanted) {
    struct vmibus_core *core = context;

    monitor_want(&core->monitor, wanted);
}

/* --- how much memory --------------------------------------------------------------------------- */

/*
 * What connections hold and what tails take get the same part of the cap; the rest is what queues and payloads need whatever
 * happens.
 */
static struct bus_options bus_sizes(const struct core_options *options) {
    return (struct bus_options){
        .policy = options->policy,
        .n_endpoints = options->n_endpoints,
        .n_connections = options->n_connections,
        .commands = options->commands,
        .tail_bound = options->tail_bound,
    };
}

/* What is carved whatever the cap is. */
static uint64_t fixed_memory(const struct core_options *options) {
    const struct bus_options bus_options = bus_sizes(options);
    uint64_t listener =
        options->n_large_tails ? listener_memory_needed(bus_home_session_octets(), options->tail_bound, options->n_connections,
                                                       options->n_large_tails)
                               : 0;
    uint64_t link = options->memory_path ? link_memory_needed(options->tail_bound) : 0;

    return bus_memory_needed(&bus_options) + listener + link + SLACK;
}

uint64_t core_least_memory(const struct core_options *options) {
    return fixed_memory(options) + LEAST_MEMORY;
}

/* Reserves what is held for peers, and tells how much of it connections may hold. */
static int reserve(struct vmibus_core *core, const struct core_options *options, size_t *region_octets) {
    uint64_t fixed = fixed_memory(options), cap = options->memory_cap ? options->memory_cap : fixed + DEFAULT_MEMORY;

    if (cap < fixed + LEAST_MEMORY)
        return -ENOSPC;
    *region_octets = (size_t)((cap - fixed) / 2);
    return arena_init(&core->arena, (size_t)cap);
}

/* --- making ------------------------------------------------------------------------------------ */

static int make_bus(struct vmibus_core *core, const struct core_options *options, size_t region_octets) {
    const struct bus_options bus_options = {
        .loop = core->loop,
        .ledger = &core->ledger,
        .arena = &core->arena,
        .tail_bound = options->tail_bound,
        .region_octets = region_octets,
        .audit = &core->audit,
        .policy = core->policy,
        .incarnation = options->incarnation,
        .n_endpoints = options->n_endpoints,
        .n_connections = options->n_connections,
        .queue_depth = options->queue_depth,
        .commands = options->commands,
        .drain_ms = options->drain_ms,
        .hold_ms = options->hold_ms,
        .link = bus_tells_memory,
        .memory_counters = options->memory_path ? NULL : count_memory,
        .process_counters = count_process,
        .resources_wanted = want_resources,
        .link_context = core,
    };

    return bus_new(&core->bus, &bus_options);
}

static int make_authority(struct vmibus_core *core, const struct core_options *options) {
    const struct authority_options authority_options = {
        .loop = core->loop,
        .ledger = &core->ledger,
        .audit = &core->audit,
        .opener = options->opener ? options->opener : opener_local(),
        .policy = core->policy,
        .incarnation = options->incarnation,
        .n_endpoints = options->n_endpoints,
        .retire_ms = options->retire_ms,
        .small_writes_on_worker = options->small_writes_on_worker,
        .keep = options->keep,
        .keep_context = options->keep_context,
        .pages = options->pages,
        .n_pages = options->n_pages,
        .link = memory_tells_bus,
        .link_context = core,
    };

    return authority_new(&core->authority, &authority_options);
}

static int make_link(struct vmibus_core *core, const struct core_options *options) {
    const struct memory_link_options link_options = {
        .loop = core->loop,
        .arena = &core->arena,
        .bus = core->bus,
        .path = options->memory_path,
        .hello_ms = options->hello_ms ? options->hello_ms : DEFAULT_HELLO_MS,
    };

    return memory_link_init(&core->memory_link, &link_options);
}

int core_new(struct vmibus_core **corep, const struct core_options *options) {
    struct vmibus_core *core = calloc(1, sizeof(*core));
    size_t region_octets = 0;
    int r;

    if (!core) {
        policy_free(options->policy);
        return -ENOMEM;
    }
    core->policy = options->policy;
    list_init(&core->sensors);
    list_init(&core->saved);
    ledger_init(&core->ledger, core->policy->limits_total);
    r = principal_from_self(&core->self);
    if (r == 0)
        r = loop_new(&core->loop);
    if (r == 0 && options->audit_fd >= 0)
        core->audit_error = audit_init(&core->audit, options->audit_fd, options->audit_records, options->incarnation);
    policy_number_rules(core->policy, &core->audit);
    if (r == 0)
        r = reserve(core, options, &region_octets);
    if (r == 0 && !options->memory_path)
        r = make_authority(core, options);
    if (r == 0)
        r = make_bus(core, options, region_octets);
    if (r == 0 && options->memory_path)
        r = make_link(core, options);
    if (r < 0) {
        vmibus_core_free(core);
        return r;
    }
    bus_home_init(&core->home, core->bus, options->tail_bound);
    core->home.authority = core->authority;
    core->home.memory_path = options->memory_path;
    monitor_init(&core->monitor, core);
    monitor_start(&core->monitor);
    *corep = core;
    return 0;
}

struct vmibus_core *vmibus_core_free(struct vmibus_core *core) {
    if (!core)
        return NULL;
    while (!list_is_empty(&core->sensors))
        local_sensor_free(list_first(&core->sensors, struct local_sensor, link));
    core_forget_saved(core);
    monitor_deinit(&core->monitor);
    memory_link_deinit(&core->memory_link);
    core->bus = bus_free(core->bus);
    authority_free(core->authority);
    loop_free(core->loop);
    arena_deinit(&core->arena);
    ledger_deinit(&core->ledger);
    audit_deinit(&core->audit);
    policy_free(core->policy);
    free(core);
    return NULL;
}

void core_set_policy(struct vmibus_core *core, struct policy *policy) {
    struct policy *old = core->policy;

    core->policy = policy;
    policy_number_rules(policy, &core->audit);
    if (core->authority)
        authority_set_policy(core->authority, policy);
    bus_set_policy(core->bus, policy);
    policy_free(old);
}

/* --- what embedders see ------------------------------------------------------------------------ */

/* An embedder has no configuration file: in a build that can fail on purpose, its environment says where. */
static int take_faults(void) {
#ifdef HAVE_FAULT_INJECTION
    struct fault_rules rules = {};
    const char *wrong;

    if (fault_rules_add_environment(&rules, &wrong) < 0)
        return -EINVAL;
    fault_apply(&rules);
#endif
    return 0;
}

int vmibus_core_new(struct vmibus_core **corep, const struct vmibus_core_options *options) {
    struct core_options all = {
        .incarnation = options->incarnation,
        .n_endpoints = options->n_endpoints ? options->n_endpoints : DEFAULT_ENDPOINTS,
        .n_connections = options->n_connections ? options->n_connections : DEFAULT_CONNECTIONS,
        .queue_depth = options->queue_depth ? options->queue_depth : DEFAULT_QUEUE_DEPTH,
        .commands = DEFAULT_COMMANDS,
        .drain_ms = DEFAULT_DRAIN_MS,
        .hold_ms = options->hold_ms ? options->hold_ms : DEFAULT_HOLD_MS,
        .retire_ms = DEFAULT_RETIRE_MS,
        .tail_bound = VMIBUS_TAIL_BOUND_DEFAULT,
        .memory_cap = options->memory_cap,
        .audit_fd = options->audit_fd,
        .audit_records = options->audit_records ? options->audit_records : DEFAULT_AUDIT_RECORDS,
    };
    int r;

    if (options->struct_size < sizeof(*options))
        return -EINVAL;
    r = take_faults();
    if (r < 0)
        return r;
    r = policy_new(&all.policy);
    if (r < 0)
        return r;
    r = core_new(corep, &all);
    if (r == 0 && (*corep)->audit_error) {
        /* An embedder that gave a log wants it. */
        r = (*corep)->audit_error;
        *corep = vmibus_core_free(*corep);
    }
    return r;
}

int vmibus_core_get_fd(const struct vmibus_core *core) {
    return loop_get_fd(core->loop);
}

int vmibus_core_dispatch(struct vmibus_core *core, int timeout_ms) {
    return loop_dispatch(core->loop, timeout_ms);
}
