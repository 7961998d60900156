/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/query.h"

#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/sensor.h"
#include "util/limit_use.h"

static void refuse(struct query_answer *answer, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    answer->error = error;
    answer->reason = reason;
    answer->value = value;
}

static bool reserve(struct query_answer *answer, size_t n, size_t size) {
    answer->tail = calloc(n ? n : 1, size);
    if (!answer->tail) {
        refuse(answer, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
        return false;
    }
    answer->count = n;
    answer->tail_length = n * size;
    return true;
}

/* Those of struct bus_process_counters. */
#define PROCESS_COUNTERS 4

static void query_stats(struct bus *bus, struct query_answer *answer) {
    struct bus_memory_counters memory = {};
    struct bus_process_counters process = {};
    struct audit_counters audit;
    bool told = bus->options.process_counters && bus->options.process_counters(bus->options.link_context, &process);
    const struct bus_counters *counters = &bus->counters;

    if (bus->options.memory_counters)
        bus->options.memory_counters(bus->options.link_context, &memory);
    audit_get_counters(bus->audit, &audit);
    const struct vmibus_counter_value values[] = {
        {.counter = VMIBUS_COUNTER_EVENTS_PUBLISHED, .value = counters->published},
        {.counter = VMIBUS_COUNTER_FRAMES_DELIVERED, .value = counters->delivered},
        {.counter = VMIBUS_COUNTER_EVENTS_DROPPED, .value = counters->dropped},
        {.counter = VMIBUS_COUNTER_EVENTS_COALESCED, .value = counters->coalesced},
        {.counter = VMIBUS_COUNTER_COMMANDS_RECEIVED, .value = counters->received},
        {.counter = VMIBUS_COUNTER_COMMANDS_REFUSED, .value = counters->refused},
        {.counter = VMIBUS_COUNTER_COMMANDS_IN_FLIGHT, .value = bus->ledger->used[RESOURCE_COMMANDS]},
        {.counter = VMIBUS_COUNTER_MEMWRITES, .value = memory.writes},
        {.counter = VMIBUS_COUNTER_MEMWRITE_BYTES, .value = memory.bytes_written},
        {.counter = VMIBUS_COUNTER_CONNECTIONS, .value = bus->ledger->used[RESOURCE_CONNECTIONS]},
        {.counter = VMIBUS_COUNTER_CONNECTIONS_REFUSED, .value = counters->connections_refused},
        {.counter = VMIBUS_COUNTER_ENDPOINTS, .value = bus->n_present},
        {.counter = VMIBUS_COUNTER_LEASES_HELD, .value = bus->n_leases},
        {.counter = VMIBUS_COUNTER_SUBSCRIPTIONS, .value = bus->n_subscriptions},
        {.counter = VMIBUS_COUNTER_EVENT_BLOCKS, .value = bus->events.blocks.in_use},
        {.counter = VMIBUS_COUNTER_AUDIT_RECORDS, .value = bus->audit->header ? bus->audit->header->written : 0},
        {.counter = VMIBUS_COUNTER_AUDIT_CHAINED, .value = audit.chained},
        {.counter = VMIBUS_COUNTER_AUDIT_UNRECORDED, .value = audit.unrecorded},
        {.counter = VMIBUS_COUNTER_AUDIT_UNTOLD, .value = audit.untold},
        {.counter = VMIBUS_COUNTER_ATTACHMENTS, .value = memory.attachments},
        {.counter = VMIBUS_COUNTER_BUFFERS, .value = memory.buffers},
        {.counter = VMIBUS_COUNTER_BUFFER_BYTES, .value = memory.buffer_bytes},
        {.counter = VMIBUS_COUNTER_MEM_READS, .value = memory.reads},
        {.counter = VMIBUS_COUNTER_MEM_READ_BYTES, .value = memory.bytes_read},
        {.counter = VMIBUS_COUNTER_EPOCHS_RETIRING, .value = memory.epochs_retiring},
        {.counter = VMIBUS_COUNTER_EPOCHS_ENDED, .value = memory.epochs_ended},
        {.counter = VMIBUS_COUNTER_BYTES_CHARGED, .value = bus->ledger->used[RESOURCE_BYTES]},
        {.counter = VMIBUS_COUNTER_HOLDS, .value = bus->n_held},
        {.counter = VMIBUS_COUNTER_FDS_CHARGED, .value = bus->ledger->used[RESOURCE_FDS]},
        {.counter = VMIBUS_COUNTER_MEMORY_USED, .value = bus->options.arena->used},
        {.counter = VMIBUS_COUNTER_MEMORY_CAPACITY, .value = bus->options.arena->capacity},
        /* The last PROCESS_COUNTERS: only the process knows them, and not always. */
        {.counter = VMIBUS_COUNTER_RESIDENT, .value = process.resident},
        {.counter = VMIBUS_COUNTER_RESIDENT_UNACCOUNTED, .value = process.resident_unaccounted},
        {.counter = VMIBUS_COUNTER_FDS_OPEN, .value = process.fds_open},
        {.counter = VMIBUS_COUNTER_FDS_UNACCOUNTED, .value = process.fds_unaccounted},
    };
    size_t n = sizeof(values) / sizeof(values[0]) - (told ? 0 : PROCESS_COUNTERS);

    if (reserve(answer, n, sizeof(values[0])))
        memcpy(answer->tail, values, n * sizeof(values[0]));
}

static void query_latencies(const struct bus *bus, struct query_answer *answer) {
    struct vmibus_latency latencies[LATENCY_KINDS];
    size_t n = latencies_get(&bus->latencies, latencies);

    if (reserve(answer, n, sizeof(latencies[0])))
        memcpy(answer->tail, latencies, n * sizeof(latencies[0]));
}

static void query_sensors(struct bus *bus, struct query_answer *answer) {
    const struct sensor *sensor;
    struct vmibus_sensor_info *info;
    size_t n = 0;

    list_for_each(sensor, &bus->sensors, link)
        n++;
    if (!reserve(answer, n, sizeof(*info)))
        return;
    info = answer->tail;
    list_for_each(sensor, &bus->sensors, link) {
        info->source = sensor->id;
        info->state = (uint8_t)sensor->state;
        info->groups = sensor->groups;
        info->endpoints = sensor->n_endpoints;
        memcpy(info->name, sensor->name, sizeof(info->name));
        info++;
    }
}

static void query_limits(const struct control *control, bool everybody, struct query_answer *answer) {
    const struct ledger *ledger = control->bus->ledger;
    size_t n = limit_use_count(ledger, control->account, everybody);

    if (reserve(answer, n, sizeof(struct vmibus_limit_use)))
        limit_use_fill(ledger, control->account, everybody, answer->tail);
}

static void query_grant(struct control *control, const struct vmibus_header *header, struct query_answer *answer) {
    const struct binding *binding = control_binding(control, header->slot, header->generation);

    if (!binding) {
        refuse(answer, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, header->slot);
        return;
    }
    answer->count = binding->grant.capabilities;
    answer->value = binding->grant.rank;
}

uint32_t query_capability(const struct vmibus_frame *frame) {
    switch (frame->query.query) {
    case VMIBUS_QUERY_STATS:
    case VMIBUS_QUERY_SENSORS:
    case VMIBUS_QUERY_LATENCIES:
        return VMIBUS_CAP_STATS;
    default:
        return 0;
    }
}

void query_execute(struct control *control, const struct vmibus_frame *frame, struct query_answer *answer) {
    bool may_see = control->grant.capabilities & VMIBUS_CAP_STATS;
    uint32_t lacking = query_capability(frame) & ~control->grant.capabilities;

    if (lacking) {
        refuse(answer, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, lacking);
        return;
    }
    switch (frame->query.query) {
    case VMIBUS_QUERY_STATS:
        query_stats(control->bus, answer);
        break;
    case VMIBUS_QUERY_SENSORS:
        query_sensors(control->bus, answer);
        break;
    case VMIBUS_QUERY_LATENCIES:
        query_latencies(control->bus, answer);
        break;
    case VMIBUS_QUERY_LIMITS:
        query_limits(control, may_see, answer);
        break;
    case VMIBUS_QUERY_GRANT:
        query_grant(control, &frame->header, answer);
        break;
    default:
        refuse(answer, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, frame->query.query);
        break;
    }
}
