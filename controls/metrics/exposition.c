/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "exposition.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "families.h"

#define NS_PER_SECOND 1e9

/* VMs whose state is told; a bus has 65536 at most. */
#define VMS_MAX 65536

struct vm {
    uint32_t slot;
    uint64_t generation;
    char name[VMIBUS_NAME_BOUND + 1];   /* empty: not told, or removed */
    uint8_t state;      /* enum vmibus_vm_state; 0: not told */
    bool is_ready;      /* its memory context is */
};

/* A page that is being written. */
struct page {
    FILE *stream;
    enum exposition_format format;
    struct vmibus *bus;
    struct vm *vms;
    size_t n_vms;
};

/* --- the format -------------------------------------------------------------------------------- */

/* What begins the lines of a metric. @param type counter, gauge, histogram */
static void begin(const struct page *page, const char *name, const char *type, const char *unit, const char *help) {
    const char *suffix = page->format == EXPOSITION_PROMETHEUS && strcmp(type, "counter") == 0 ? "_total" : "";

    fprintf(page->stream, "# TYPE %s%s %s\n", name, suffix, type);
    if (unit && page->format == EXPOSITION_OPENMETRICS)
        fprintf(page->stream, "# UNIT %s %s\n", name, unit);
    fprintf(page->stream, "# HELP %s%s %s\n", name, suffix, help);
}

/* The value of a label: what would end it, or a line, is escaped, and what is not ASCII replaced. */
static void write_label(const struct page *page, const char *text, size_t size) {
    for (size_t i = 0; i < size && text[i]; i++) {
        if (text[i] == '\\' || text[i] == '"')
            fputc('\\', page->stream);
        fputc(isprint((unsigned char)text[i]) ? text[i] : '?', page->stream);
    }
}

/* Names of the wire, such as CMD_MEMWRITE, as monitoring writes them. */
static void write_lower(const struct page *page, const char *name) {
    for (; *name; name++)
        fputc(tolower((unsigned char)*name), page->stream);
}

/* --- counters ---------------------------------------------------------------------------------- */

static bool find_counter(const struct vmibus_message *reply, enum vmibus_counter counter, uint64_t *value) {
    struct vmibus_counter_value found;

    for (size_t at = 0; at + sizeof(found) <= reply->frame.header.tail_length; at += sizeof(found)) {
        memcpy(&found, (const char *)reply->tail + at, sizeof(found));
        if (found.counter == (uint32_t)counter) {
            *value = found.value;
            return true;
        }
    }
    return false;
}

/* A memory authority with a process of its own counts for itself what every process has. */
static void write_counters(const struct page *page, const struct vmibus_message *bus, const struct vmibus_message *memory) {
    const struct family *family;

    for (size_t i = 0; (family = family_at(i)); i++) {
        const char *suffix = family->type == FAMILY_COUNTER ? "_total" : "";
        uint64_t of_bus, of_memory;
        bool bus_has = find_counter(bus, family->counter, &of_bus);
        bool memory_has = memory && find_counter(memory, family->counter, &of_memory);

        if (!bus_has && !memory_has)
            continue;
        begin(page, family->name, family->type == FAMILY_COUNTER ? "counter" : "gauge", family->unit,
              vmibus_counter_doc(family->counter));
        if (bus_has)
            fprintf(page->stream, "%s%s{process=\"bus\"} %" PRIu64 "\n", family->name, suffix, of_bus);
        if (memory_has)
            fprintf(page->stream, "%s%s{process=\"memory\"} %" PRIu64 "\n", family->name, suffix, of_memory);
    }
}

static void write_sensors(const struct page *page, const struct vmibus_message *reply) {
    const struct vmibus_sensor_info *sensors = reply->tail;
    size_t n = reply->frame.header.tail_length / sizeof(*sensors);

    begin(page, "vmibus_sensor_up", "gauge", NULL, "1: the sensor works; 0: it does not, or not as it should.");
    for (size_t i = 0; i < n; i++) {
        fputs("vmibus_sensor_up{sensor=\"", page->stream);
        write_label(page, (const char *)sensors[i].name, sizeof(sensors[i].name));
        fprintf(page->stream, "\",id=\"%u\"} %d\n", sensors[i].source, sensors[i].state == VMIBUS_SENSOR_STATE_READY);
    }
    begin(page, "vmibus_sensor_endpoints", "gauge", NULL, "Endpoints that the sensor provides.");
    for (size_t i = 0; i < n; i++) {
        fputs("vmibus_sensor_endpoints{sensor=\"", page->stream);
        write_label(page, (const char *)sensors[i].name, sizeof(sensors[i].name));
        fprintf(page->stream, "\",id=\"%u\"} %" PRIu32 "\n", sensors[i].source, sensors[i].endpoints);
    }
}

/* Of what all hold together: a user who comes and goes would leave a series behind each time. */
static void write_limits(const struct page *page, const struct vmibus_message *reply, const char *name, const char *help,
                         bool bounds) {
    const struct vmibus_limit_use *uses = reply->tail;

    begin(page, name, "gauge", NULL, help);
    for (size_t i = 0; i < reply->frame.header.tail_length / sizeof(*uses); i++) {
        const char *limit = vmibus_reason_name(uses[i].limit);

        if (!uses[i].total || !limit || strncmp(limit, "LIMIT_", 6) != 0)
            continue;
        fprintf(page->stream, "%s{limit=\"", name);
        write_lower(page, limit + 6);
        fprintf(page->stream, "\"} %" PRIu64 "\n", bounds ? uses[i].bound : uses[i].used);
    }
}

/* --- latencies --------------------------------------------------------------------------------- */

#define LATENCY "vmibus_command_duration_seconds"

static void write_latency(const struct page *page, const struct vmibus_latency *latency) {
    const size_t n = sizeof(latency->buckets) / sizeof(latency->buckets[0]);
    const char *command = vmibus_kind_name(latency->command);
    uint64_t below = 0;

    if (!command)
        return;
    for (size_t i = 0; i < n; i++) {
        below += latency->buckets[i].count;
        fputs(LATENCY "_bucket{command=\"", page->stream);
        write_lower(page, command);
        if (i == n - 1)
            fprintf(page->stream, "\",le=\"+Inf\"} %" PRIu64 "\n", below);
        else
            fprintf(page->stream, "\",le=\"%.9g\"} %" PRIu64 "\n", (double)(UINT64_C(1024) << i) / NS_PER_SECOND, below);
    }
    fputs(LATENCY "_sum{command=\"", page->stream);
    write_lower(page, command);
    fprintf(page->stream, "\"} %.9f\n", (double)latency->sum / NS_PER_SECOND);
    fputs(LATENCY "_count{command=\"", page->stream);
    write_lower(page, command);
    fprintf(page->stream, "\"} %" PRIu64 "\n", below);
}

static void write_latencies(const struct page *page, const struct vmibus_message *reply) {
    struct vmibus_latency latency;

    for (size_t at = 0; at + sizeof(latency) <= reply->frame.header.tail_length; at += sizeof(latency)) {
        memcpy(&latency, (const char *)reply->tail + at, sizeof(latency));
        write_latency(page, &latency);
    }
}

/* --- VMs --------------------------------------------------------------------------------------- */

static struct vm *vm_of(struct page *page, const struct vmibus_header *header) {
    for (size_t i = 0; i < page->n_vms; i++)
        if (page->vms[i].slot == header->slot && page->vms[i].generation == header->generation)
            return &page->vms[i];
    return NULL;
}

/* NULL: there is no room for another one. */
static struct vm *add_vm(struct page *page, const struct vmibus_header *header) {
    struct vm *grown = page->n_vms == VMS_MAX ? NULL : reallocarray(page->vms, page->n_vms + 1, sizeof(*grown));

    if (!grown)
        return NULL;
    page->vms = grown;
    grown += page->n_vms++;
    *grown = (struct vm){.slot = header->slot, .generation = header->generation};
    return grown;
}

static void learn_name(struct vm *vm, const struct vmibus_message *message) {
    size_t length = message->frame.header.tail_length;

    memset(vm->name, 0, sizeof(vm->name));
    memcpy(vm->name, message->tail, length < VMIBUS_NAME_BOUND ? length : VMIBUS_NAME_BOUND);
}

/* State may come before the roster entry: that one is published anew when a provider joins. */
static void learn(struct vmibus *bus, struct vmibus_message *message, void *context) {
    const struct vmibus_frame *frame = &message->frame;
    struct page *page = context;
    struct vm *vm;

    (void)bus;
    if (frame->header.kind != VMIBUS_KIND_ROSTER && frame->header.kind != VMIBUS_KIND_LIFECYCLE &&
        frame->header.kind != VMIBUS_KIND_MEMCTX)
        return;
    vm = vm_of(page, &frame->header);
    if (!vm)
        vm = add_vm(page, &frame->header);
    if (!vm)
        return;
    if (frame->header.kind == VMIBUS_KIND_LIFECYCLE)
        vm->state = frame->lifecycle.state;
    else if (frame->header.kind == VMIBUS_KIND_MEMCTX)
        vm->is_ready = frame->memctx.state == VMIBUS_MEMCTX_STATE_READY;
    else if (frame->roster.change == VMIBUS_ROSTER_CHANGE_ADDED)
        learn_name(vm, message);
    else
        *vm->name = '\0';
}

static void write_vm(const struct page *page, const struct vm *vm, const char *family, bool value) {
    if (!*vm->name)
        return;
    fprintf(page->stream, "%s{vm=\"", family);
    write_label(page, vm->name, sizeof(vm->name));
    fprintf(page->stream, "\",slot=\"%" PRIu32 "\"} %d\n", vm->slot, value);
}

static void write_vms(const struct page *page) {
    begin(page, "vmibus_vm_running", "gauge", NULL, "1: the VM runs; 0: it is paused or has ended.");
    for (size_t i = 0; i < page->n_vms; i++)
        write_vm(page, &page->vms[i], "vmibus_vm_running", page->vms[i].state == VMIBUS_VM_STATE_RUNNING);
    begin(page, "vmibus_vm_memory_ready", "gauge", NULL, "1: the VM's memory context, with its kernel root, is known.");
    for (size_t i = 0; i < page->n_vms; i++)
        write_vm(page, &page->vms[i], "vmibus_vm_memory_ready", page->vms[i].is_ready);
}

/* What is retained comes before the answer. */
static int read_vms(struct page *page) {
    int r;

    vmibus_set_handler(page->bus, learn, page);
    r = vmibus_subscribe(page->bus, "*",
                         VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) |
                             VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    while (r == 0) {
        r = vmibus_dispatch(page->bus);
        if (!(vmibus_get_poll_events(page->bus) & POLLOUT))
            break;
    }
    return r;
}

/* --- the whole --------------------------------------------------------------------------------- */

/* What the bus was asked. */
struct answers {
    struct vmibus_message stats, sensors, limits, latencies, memory_stats, memory_latencies;
};

static int ask(struct page *page, struct answers *answers) {
    int r = vmibus_query(page->bus, NULL, VMIBUS_QUERY_STATS, &answers->stats);

    if (r == 0)
        r = vmibus_query(page->bus, NULL, VMIBUS_QUERY_SENSORS, &answers->sensors);
    if (r == 0)
        r = vmibus_query(page->bus, NULL, VMIBUS_QUERY_LIMITS, &answers->limits);
    if (r == 0)
        r = vmibus_query(page->bus, NULL, VMIBUS_QUERY_LATENCIES, &answers->latencies);
    /* A bus may have no memory authority, and one apart may be away. */
    if (r == 0)
        (void)vmibus_memory_query(page->bus, NULL, VMIBUS_MEMORY_QUERY_COUNTERS, &answers->memory_stats);
    if (r == 0)
        (void)vmibus_memory_query(page->bus, NULL, VMIBUS_MEMORY_QUERY_LATENCIES, &answers->memory_latencies);
    return r == 0 ? read_vms(page) : r;
}

static void forget(struct answers *answers) {
    vmibus_message_deinit(&answers->stats);
    vmibus_message_deinit(&answers->sensors);
    vmibus_message_deinit(&answers->limits);
    vmibus_message_deinit(&answers->latencies);
    vmibus_message_deinit(&answers->memory_stats);
    vmibus_message_deinit(&answers->memory_latencies);
}

static void write_all(const struct page *page, const struct answers *answers) {
    bool is_apart = vmibus_get_welcome(page->bus)->memory == VMIBUS_MEMORY_LOCATION_SOCKET;

    write_counters(page, &answers->stats, is_apart ? &answers->memory_stats : NULL);
    write_sensors(page, &answers->sensors);
    write_limits(page, &answers->limits, "vmibus_limit_used", "What all users together hold of a limit.", false);
    write_limits(page, &answers->limits, "vmibus_limit_bound", "What all users together may hold.", true);
    begin(page, LATENCY, "histogram", "seconds", "How long commands took from their receipt to their answer.");
    write_latencies(page, &answers->latencies);
    write_latencies(page, &answers->memory_latencies);
    write_vms(page);
}

int exposition_write(FILE *stream, const char *socket, enum exposition_format format) {
    struct page page = {.stream = stream, .format = format};
    struct answers answers = {};
    int r = vmibus_connect(&page.bus, socket, "vmibus-metrics");

    if (r == 0)
        r = ask(&page, &answers);
    begin(&page, "vmibus_up", "gauge", NULL, "1: the bus answers.");
    fprintf(stream, "vmibus_up %d\n", r == 0);
    if (r == 0)
        write_all(&page, &answers);
    if (format == EXPOSITION_OPENMETRICS)
        fputs("# EOF\n", stream);
    forget(&answers);
    free(page.vms);
    vmibus_free(page.bus);
    return r;
}
