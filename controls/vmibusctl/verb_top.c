/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl top: what the bus and the VMs do at the moment, drawn anew again and again. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "report.h"
#include "roster.h"
#include "table.h"
#include "units.h"

/** Kinds of commands that are told apart. */
#define KINDS_MAX 64

#define COUNTERS_MAX 64

/* Home, and clear to the end of the screen: what is drawn over the last picture does not flicker. */
#define REDRAW "\033[H\033[J"

/* What processes cost, from one event of it to the next. */
struct usage {
    struct usage *next;
    uint32_t slot;              /* 0: the bus's own */
    uint64_t generation;
    struct vmibus_resources now;
    uint64_t at, before_at;     /* time stamps, nanoseconds */
    uint64_t before_cpu;
};

/* What was counted until some moment. */
struct counts {
    uint64_t at;                /* nanoseconds; 0: nothing yet */
    uint64_t counters[COUNTERS_MAX];
    struct vmibus_latency latencies[KINDS_MAX];
    size_t n_latencies;
};

struct top {
    struct vmibusctl *ctl;
    struct roster roster;
    struct usage *usages;
    struct counts now, before;
    bool is_drawn;              /* on a terminal, over the last picture */
};

static uint64_t now_ns(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --- learning ---------------------------------------------------------------------------------- */

static struct usage *usage_of(struct top *top, uint32_t slot, uint64_t generation) {
    for (struct usage *usage = top->usages; usage; usage = usage->next)
        if (usage->slot == slot && (slot == 0 || usage->generation == generation))
            return usage;
    return NULL;
}

static void learn_usage(struct top *top, const struct vmibus_frame *frame) {
    struct usage *usage = usage_of(top, frame->header.slot, frame->header.generation);

    if (!usage) {
        usage = calloc(1, sizeof(*usage));
        if (!usage)
            return;
        usage->slot = frame->header.slot;
        usage->generation = frame->header.generation;
        usage->next = top->usages;
        top->usages = usage;
    }
    usage->before_at = usage->at;
    usage->before_cpu = usage->now.cpu;
    usage->at = frame->header.timestamp;
    usage->now = frame->resources;
}

static void learn(struct vmibus *bus, struct vmibus_message *message, void *context) {
    struct top *top = context;

    (void)bus;
    if (message->frame.header.kind == VMIBUS_KIND_RESOURCES)
        learn_usage(top, &message->frame);
    else
        roster_learn(&top->roster, message);
}

/* Of one processor, in percent; negative: it is not known yet. */
static double processor_share(const struct usage *usage) {
    if (!usage || !usage->before_at || usage->at <= usage->before_at)
        return -1;
    return 100.0 * (double)(usage->now.cpu - usage->before_cpu) / (double)(usage->at - usage->before_at);
}

/* --- counting ---------------------------------------------------------------------------------- */

static void take_counters(struct counts *counts, const struct vmibus_message *reply) {
    struct vmibus_counter_value value;

    for (size_t at = 0; at + sizeof(value) <= reply->frame.header.tail_length; at += sizeof(value)) {
        memcpy(&value, (const char *)reply->tail + at, sizeof(value));
        /* What a memory authority apart counts is its own. */
        if (value.counter < COUNTERS_MAX && value.value > counts->counters[value.counter])
            counts->counters[value.counter] = value.value;
    }
}

static void take_latencies(struct counts *counts, const struct vmibus_message *reply) {
    struct vmibus_latency latency;

    for (size_t at = 0; at + sizeof(latency) <= reply->frame.header.tail_length && counts->n_latencies < KINDS_MAX;
         at += sizeof(latency)) {
        memcpy(&latency, (const char *)reply->tail + at, sizeof(latency));
        counts->latencies[counts->n_latencies++] = latency;
    }
}

static int count(struct top *top) {
    struct vmibus *bus = top->ctl->bus;
    struct vmibus_message reply = {};
    int r;

    top->before = top->now;
    top->now = (struct counts){.at = now_ns()};
    r = vmibus_query(bus, NULL, VMIBUS_QUERY_STATS, &reply);
    if (r) {
        r = report_refusal(top->ctl, r, &reply, "cannot ask for the counters");
        vmibus_message_deinit(&reply);
        return r;
    }
    take_counters(&top->now, &reply);
    vmibus_message_deinit(&reply);
    if (vmibus_query(bus, NULL, VMIBUS_QUERY_LATENCIES, &reply) == 0)
        take_latencies(&top->now, &reply);
    vmibus_message_deinit(&reply);
    /* There may be no memory authority, or one that is away. */
    if (vmibus_memory_query(bus, NULL, VMIBUS_MEMORY_QUERY_COUNTERS, &reply) == 0)
        take_counters(&top->now, &reply);
    vmibus_message_deinit(&reply);
    if (vmibus_memory_query(bus, NULL, VMIBUS_MEMORY_QUERY_LATENCIES, &reply) == 0)
        take_latencies(&top->now, &reply);
    vmibus_message_deinit(&reply);
    return STATUS_OK;
}

/* Of a counter in the last interval, for each second; a daemon that was started anew counts from 0. */
static double rate(const struct top *top, enum vmibus_counter counter) {
    uint64_t now = top->now.counters[counter], before = top->before.counters[counter];

    if (!top->before.at || now < before || top->now.at == top->before.at)
        return 0;
    return (double)(now - before) * 1e9 / (double)(top->now.at - top->before.at);
}

/* What commands of a kind took in the last interval: since the start, before there is one. */
static struct vmibus_latency recent(const struct top *top, const struct vmibus_latency *latency) {
    const size_t n = sizeof(latency->buckets) / sizeof(latency->buckets[0]);
    struct vmibus_latency result = *latency;

    for (size_t i = 0; i < top->before.n_latencies; i++) {
        const struct vmibus_latency *before = &top->before.latencies[i];

        if (before->command != latency->command || before->count > latency->count)
            continue;
        result.count -= before->count;
        result.sum -= before->sum;
        for (size_t j = 0; j < n; j++)
            result.buckets[j].count -= before->buckets[j].count;
    }
    return result;
}

/* The bound of the bucket that a part of all falls into, microseconds; 0: there are none. */
static double quantile(const struct vmibus_latency *latency, double part) {
    const size_t n = sizeof(latency->buckets) / sizeof(latency->buckets[0]);
    uint64_t seen = 0;

    for (size_t i = 0; i < n && latency->count; i++) {
        seen += latency->buckets[i].count;
        if ((double)seen >= part * (double)latency->count)
            return (double)(UINT64_C(1024) << i) / 1000;
    }
    return 0;
}

/* --- for people -------------------------------------------------------------------------------- */

static void print_share(struct table *table, const struct usage *usage) {
    double share = processor_share(usage);

    if (share < 0)
        table_cell(table, "-");
    else
        table_cell(table, "%.1f", share);
}

static void print_bus(struct top *top) {
    const struct usage *usage = usage_of(top, 0, 0);
    char resident[UNITS_SIZE_SIZE];
    double share = processor_share(usage);

    printf("bus: %" PRIu64 " VMs, %" PRIu64 " connections, %" PRIu64 " leases, %" PRIu64 " attachments",
           top->now.counters[VMIBUS_COUNTER_ENDPOINTS], top->now.counters[VMIBUS_COUNTER_CONNECTIONS],
           top->now.counters[VMIBUS_COUNTER_LEASES_HELD], top->now.counters[VMIBUS_COUNTER_ATTACHMENTS]);
    if (usage)
        printf("; %s resident, %" PRIu32 " descriptors", units_size(usage->now.resident, resident), usage->now.fds);
    if (share >= 0)
        printf(", %.1f %% of a processor", share);
    printf("\na second: %.0f events, %.0f frames delivered, %.0f dropped; %.0f commands, %.0f refused\n\n",
           rate(top, VMIBUS_COUNTER_EVENTS_PUBLISHED), rate(top, VMIBUS_COUNTER_FRAMES_DELIVERED),
           rate(top, VMIBUS_COUNTER_EVENTS_DROPPED), rate(top, VMIBUS_COUNTER_COMMANDS_RECEIVED),
           rate(top, VMIBUS_COUNTER_COMMANDS_REFUSED));
}

static const char *lease_holders(const struct vm *vm) {
    static char text[128];
    size_t length = 0;

    text[0] = '\0';
    for (int i = 1; i < ROSTER_CLASSES; i++) {
        const struct vmibus_lease *lease = &vm->leases[i].lease;
        const char *name = vmibus_lease_class_name((unsigned)i);

        if (!vm->leases[i].header.kind || lease->state != VMIBUS_LEASE_STATE_HELD)
            continue;
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%s:%" PRIu32, length ? " " : "", name ? name : "?",
                                   lease->holder_pid);
        if (length >= sizeof(text))
            break;
    }
    return *text ? text : "-";
}

static void print_vms(struct top *top) {
    struct table *table = table_new(6);

    table_cell(table, "VM");
    table_cell(table, "STATE");
    table_cell(table, "CPU %%");
    table_cell(table, "RESIDENT");
    table_cell(table, "MEMCTX");
    table_cell(table, "LEASES:PID");
    for (const struct vm *vm = top->roster.vms; vm; vm = vm->next) {
        const struct usage *usage = usage_of(top, vm->endpoint.slot, vm->endpoint.generation);
        const char *state = vmibus_vm_state_name(vm->lifecycle.lifecycle.state);
        const char *memctx = vmibus_memctx_state_name(vm->memctx.memctx.state);
        char resident[UNITS_SIZE_SIZE];

        table_cell(table, "%s", vm->name);
        table_cell(table, "%s", state ? state : "?");
        print_share(table, usage);
        table_cell(table, "%s", usage ? units_size(usage->now.resident, resident) : "-");
        table_cell(table, "%s", memctx ? memctx : "?");
        table_cell(table, "%s", lease_holders(vm));
    }
    table_print(table);
}

static void print_latencies(const struct top *top) {
    struct table *table = table_new(5);

    table_cell(table, "COMMAND");
    table_cell(table, "A SECOND");
    table_cell(table, "HALF BELOW us");
    table_cell(table, "99 %% BELOW us");
    table_cell(table, "IN ALL");
    for (size_t i = 0; i < top->now.n_latencies; i++) {
        const struct vmibus_latency *latency = &top->now.latencies[i];
        struct vmibus_latency last = recent(top, latency);
        const char *name = vmibus_kind_name(latency->command);
        double seconds = (double)(top->now.at - top->before.at) / 1e9;

        if (!name)
            continue;
        table_cell(table, "%s", name);
        table_cell(table, "%.0f", top->before.at ? (double)last.count / seconds : 0);
        table_cell(table, "%.0f", quantile(&last, 0.5));
        table_cell(table, "%.0f", quantile(&last, 0.99));
        table_cell(table, "%" PRIu64, latency->count);
    }
    putchar('\n');
    table_print(table);
}

/* --- for programs ------------------------------------------------------------------------------ */

static struct json_object *vms_json(struct top *top) {
    struct json_object *vms = json_object_new_array();

    for (const struct vm *vm = top->roster.vms; vm; vm = vm->next) {
        const struct usage *usage = usage_of(top, vm->endpoint.slot, vm->endpoint.generation);
        struct json_object *object = roster_json(vm, false);
        double share = processor_share(usage);

        if (usage)
            json_object_object_add(object, "resident", json_object_new_uint64(usage->now.resident));
        if (share >= 0)
            json_object_object_add(object, "processor_percent", json_object_new_double(share));
        json_object_array_add(vms, object);
    }
    return vms;
}

static void print_json(struct top *top) {
    struct json_object *object = json_object_new_object(), *counters = json_object_new_object(),
                       *rates = json_object_new_object();
    const char *name;

    for (unsigned int i = 1; i < COUNTERS_MAX && (name = vmibus_counter_name(i)); i++) {
        json_object_object_add(counters, name, json_object_new_uint64(top->now.counters[i]));
        json_object_object_add(rates, name, json_object_new_double(rate(top, (enum vmibus_counter)i)));
    }
    json_object_object_add(object, "counters", counters);
    json_object_object_add(object, "rates", rates);
    json_object_object_add(object, "vms", vms_json(top));
    json_object_object_add(object, "latencies",
                           frame_json_records(vmibus_record_describe("latency"), top->now.latencies,
                                              top->now.n_latencies * sizeof(*top->now.latencies)));
    frame_json_print(object);
}

/* --- again and again --------------------------------------------------------------------------- */

static int draw(struct top *top) {
    int r = count(top);

    if (r)
        return r;
    if (top->ctl->json) {
        print_json(top);
    } else {
        if (top->is_drawn)
            fputs(REDRAW, stdout);
        print_bus(top);
        print_vms(top);
        print_latencies(top);
    }
    return fflush(stdout) == 0 ? STATUS_OK : report_failure("standard output cannot be written");
}

/* Until the next picture is due. */
static int wait_for(struct top *top, uint64_t deadline) {
    for (;;) {
        uint64_t now = now_ns();
        int r;

        if (now >= deadline)
            return STATUS_OK;
        r = vmibus_wait(top->ctl->bus, (int)((deadline - now) / 1000000 + 1));
        if (r < 0 && r != -ETIMEDOUT && r != -EINTR)
            return report_refusal(top->ctl, r, NULL, "cannot go on watching");
    }
}

static int show(struct top *top, uint64_t interval_ns, uint64_t n) {
    int r = vmibus_subscribe(top->ctl->bus, "*", ROSTER_KINDS | VMIBUS_KIND_BIT(VMIBUS_KIND_RESOURCES));

    if (r)
        return report_refusal(top->ctl, r, NULL, "cannot subscribe");
    r = vmibus_dispatch(top->ctl->bus);
    if (r)
        return report_refusal(top->ctl, r, NULL, "cannot read the roster");
    for (uint64_t i = 0, due = now_ns(); r == STATUS_OK && (n == 0 || i < n); i++) {
        due += interval_ns;
        r = draw(top);
        if (r == STATUS_OK && i + 1 != n)
            r = wait_for(top, due);
    }
    return r;
}

static void forget(struct top *top) {
    vmibus_set_handler(top->ctl->bus, NULL, NULL);
    roster_deinit(&top->roster);
    while (top->usages) {
        struct usage *usage = top->usages;

        top->usages = usage->next;
        free(usage);
    }
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *interval = arguments_get(arguments, "interval"), *count_text = arguments_get(arguments, "count");
    struct top top = {.ctl = ctl, .is_drawn = isatty(STDOUT_FILENO)};
    uint64_t seconds = 2, n = 0;
    int r;

    if (interval && (!units_parse_number(interval, 3600, &seconds) || !seconds))
        return vmibusctl_usage("--interval", interval, "it is a number of seconds, 1 to 3600");
    if (count_text && (!units_parse_number(count_text, UINT32_MAX, &n) || !n))
        return vmibusctl_usage("--count", count_text, "it is a number from 1");
    r = vmibusctl_connect(ctl);
    if (r)
        return r;
    if (vmibus_is_lent(ctl->bus))
        roster_unsubscribe(ctl);
    vmibus_set_handler(ctl->bus, learn, &top);
    r = show(&top, seconds * 1000000000, n);
    forget(&top);
    return r;
}

static const struct option_description options[] = {
    {"count", "N", "end after N pictures"},
    {"interval", "SECONDS", "time from one picture to the next (2)"},
    {},
};

const struct verb verb_top = {
    .name = "top",
    .synopsis = "",
    .summary = "show what the bus and the VMs do, again and again",
    .options = options,
    .run = run,
};
