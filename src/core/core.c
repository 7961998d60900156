/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/core.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "bus/bus.h"
#include "core/sensor_host.h"
#include "memory/authority.h"
#include "memory/opener.h"

#define DEFAULT_ENDPOINTS 64
#define DEFAULT_CONNECTIONS 64
#define DEFAULT_QUEUE_DEPTH 4096
#define DEFAULT_COMMANDS 256
#define DEFAULT_DRAIN_MS 5000
#define DEFAULT_AUDIT_RECORDS 16384

/* --- between the bus and the authority --------------------------------------------------------- */

static void bus_tells_memory(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_core *core = context;

    authority_hear_link(core->authority, frame, tail);
}

static void memory_tells_bus(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_core *core = context;

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
    };
}

/* --- making ------------------------------------------------------------------------------------ */

static int make_bus(struct vmibus_core *core, const struct core_options *options) {
    const struct bus_options bus_options = {
        .loop = core->loop,
        .ledger = &core->ledger,
        .audit = &core->audit,
        .policy = core->policy,
        .incarnation = options->incarnation,
        .n_endpoints = options->n_endpoints,
        .n_connections = options->n_connections,
        .queue_depth = options->queue_depth,
        .commands = options->commands,
        .drain_ms = options->drain_ms,
        .link = bus_tells_memory,
        .memory_counters = count_memory,
        .link_context = core,
    };

    return bus_new(&core->bus, &bus_options);
}

static int make_authority(struct vmibus_core *core, const struct core_options *options) {
    const struct authority_options authority_options = {
        .loop = core->loop,
        .ledger = &core->ledger,
        .audit = &core->audit,
        .opener = opener_local(),
        .policy = core->policy,
        .incarnation = options->incarnation,
        .n_endpoints = options->n_endpoints,
        .link = memory_tells_bus,
        .link_context = core,
    };

    return authority_new(&core->authority, &authority_options);
}

int core_new(struct vmibus_core **corep, const struct core_options *options) {
    struct vmibus_core *core = calloc(1, sizeof(*core));
    int r;

    if (!core) {
        policy_free(options->policy);
        return -ENOMEM;
    }
    core->policy = options->policy;
    list_init(&core->sensor_hosts);
    ledger_init(&core->ledger, core->policy->limits_total);
    r = principal_from_self(&core->self);
    if (r == 0)
        r = loop_new(&core->loop);
    if (r == 0 && options->audit_fd >= 0)
        core->audit_error = audit_init(&core->audit, options->audit_fd, options->audit_records, options->incarnation);
    if (r == 0)
        r = make_authority(core, options);
    if (r == 0)
        r = make_bus(core, options);
    if (r < 0) {
        vmibus_core_free(core);
        return r;
    }
    core->home = (struct session_home){.bus = core->bus, .authority = core->authority, .tail_bound = options->tail_bound};
    *corep = core;
    return 0;
}

struct vmibus_core *vmibus_core_free(struct vmibus_core *core) {
    if (!core)
        return NULL;
    while (!list_is_empty(&core->sensor_hosts))
        sensor_host_free(list_first(&core->sensor_hosts, struct vmibus_sensor_host, link));
    bus_free(core->bus);
    authority_free(core->authority);
    loop_free(core->loop);
    ledger_deinit(&core->ledger);
    audit_deinit(&core->audit);
    policy_free(core->policy);
    free(core);
    return NULL;
}

void core_set_policy(struct vmibus_core *core, struct policy *policy) {
    struct policy *old = core->policy;

    core->policy = policy;
    authority_set_policy(core->authority, policy);
    bus_set_policy(core->bus, policy);
    policy_free(old);
}

/* --- what embedders see ------------------------------------------------------------------------ */

int vmibus_core_new(struct vmibus_core **corep, const struct vmibus_core_options *options) {
    struct core_options all = {
        .incarnation = options->incarnation,
        .n_endpoints = options->n_endpoints ? options->n_endpoints : DEFAULT_ENDPOINTS,
        .n_connections = options->n_connections ? options->n_connections : DEFAULT_CONNECTIONS,
        .queue_depth = options->queue_depth ? options->queue_depth : DEFAULT_QUEUE_DEPTH,
        .commands = DEFAULT_COMMANDS,
        .drain_ms = DEFAULT_DRAIN_MS,
        .tail_bound = VMIBUS_TAIL_BOUND_DEFAULT,
        .audit_fd = options->audit_fd,
        .audit_records = options->audit_records ? options->audit_records : DEFAULT_AUDIT_RECORDS,
    };
    int r;

    if (options->struct_size < sizeof(*options))
        return -EINVAL;
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

int vmibus_core_add_sensor(struct vmibus_core *core, const struct vmibus_sensor_module *module,
                           const struct vmibus_sensor_option *options, size_t n_options) {
    return sensor_host_new(core, module, NULL, options, n_options);
}
