/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl stats: the bus's counters and its sensors; or limits and their use. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "limits.h"
#include "report.h"
#include "table.h"
#include "units.h"

static struct json_object *counters_json(const struct vmibus_message *reply) {
    struct json_object *object = json_object_new_object();
    const struct vmibus_counter_value *values = reply->tail;
    char number[16];

    for (size_t i = 0; i < reply->frame.header.tail_length / sizeof(*values); i++) {
        const char *name = vmibus_counter_name(values[i].counter);

        snprintf(number, sizeof(number), "%" PRIu32, values[i].counter);
        json_object_object_add(object, name ? name : number, json_object_new_uint64(values[i].value));
    }
    return object;
}

/* The counters that count octets. */
static bool is_size(const char *name) {
    return strstr(name, "BYTES") || strncmp(name, "MEMORY_", 7) == 0 || strncmp(name, "RESIDENT", 8) == 0;
}

static void print_counters(const struct vmibus_message *reply) {
    const struct vmibus_counter_value *values = reply->tail;
    struct table *table = table_new(3);
    char size[UNITS_SIZE_SIZE];

    table_cell(table, "COUNTER");
    table_cell(table, "VALUE");
    table_cell(table, "MEANING");
    for (size_t i = 0; i < reply->frame.header.tail_length / sizeof(*values); i++) {
        const char *name = vmibus_counter_name(values[i].counter), *doc = vmibus_counter_doc(values[i].counter);

        table_cell(table, "%s", name ? name : "?");
        if (name && is_size(name))
            table_cell(table, "%s", units_size(values[i].value, size));
        else
            table_cell(table, "%" PRIu64, values[i].value);
        table_cell(table, "%s", doc ? doc : "");
    }
    table_print(table);
}

static void print_sensors(const struct vmibus_message *reply) {
    const struct vmibus_sensor_info *sensors = reply->tail;
    size_t n = reply->frame.header.tail_length / sizeof(*sensors);
    struct table *table = table_new(4);

    table_cell(table, "SENSOR");
    table_cell(table, "NAME");
    table_cell(table, "STATE");
    table_cell(table, "ENDPOINTS");
    for (size_t i = 0; i < n; i++) {
        const char *state = vmibus_sensor_state_name(sensors[i].state);

        table_cell(table, "%u", sensors[i].source);
        table_cell(table, "%.*s", (int)sizeof(sensors[i].name), (const char *)sensors[i].name);
        table_cell(table, "%s", state ? state : "?");
        table_cell(table, "%" PRIu32, sensors[i].endpoints);
    }
    putchar('\n');
    table_print(table);
}

/* Where the memory authority has a process of its own, it counts for itself, and has limits of its own. */
static int ask_memory(const struct vmibusctl *ctl, enum vmibus_memory_query query, struct vmibus_message *memory) {
    struct vmibus_frame frame;

    if (vmibus_get_welcome(ctl->bus)->memory != VMIBUS_MEMORY_LOCATION_SOCKET)
        return 0;
    vmibus_command_init(&frame, VMIBUS_KIND_MEM_QUERY, NULL);
    frame.mem_query.query = (uint8_t)query;
    return vmibus_call(ctl->bus, &frame, NULL, 0, memory);
}

static void print(const struct vmibusctl *ctl, const struct vmibus_message *counters, const struct vmibus_message *memory,
                  const struct vmibus_message *sensors) {
    struct json_object *object;

    if (!ctl->json) {
        print_counters(counters);
        if (memory->tail) {
            puts("\nThe memory authority, in a process of its own:");
            print_counters(memory);
        }
        print_sensors(sensors);
        return;
    }
    object = json_object_new_object();
    json_object_object_add(object, "counters", counters_json(counters));
    if (memory->tail)
        json_object_object_add(object, "memory", counters_json(memory));
    json_object_object_add(
        object, "sensors",
        frame_json_records(vmibus_record_describe("sensor_info"), sensors->tail, sensors->frame.header.tail_length));
    frame_json_print(object);
}

static void add_limits(struct json_object *array, const struct vmibus_message *limits, const char *process) {
    struct json_object *records =
        frame_json_records(vmibus_record_describe("limit_use"), limits->tail, limits->frame.header.tail_length);

    for (size_t i = 0; i < json_object_array_length(records); i++) {
        struct json_object *record = json_object_array_get_idx(records, i);

        json_object_object_add(record, "process", json_object_new_string(process));
        json_object_array_add(array, json_object_get(record));
    }
    json_object_put(records);
}

static void print_limits(const struct vmibusctl *ctl, const struct vmibus_message *limits, const struct vmibus_message *memory) {
    struct json_object *array;

    if (!ctl->json) {
        limits_print(limits->tail, limits->frame.header.tail_length / sizeof(struct vmibus_limit_use));
        if (memory->tail) {
            puts("\nThe memory authority, in a process of its own:");
            limits_print(memory->tail, memory->frame.header.tail_length / sizeof(struct vmibus_limit_use));
        }
        return;
    }
    array = json_object_new_array();
    add_limits(array, limits, "bus");
    if (memory->tail)
        add_limits(array, memory, "memory");
    frame_json_print(array);
}

static int show_limits(struct vmibusctl *ctl) {
    struct vmibus_message limits = {}, memory = {};
    int r = vmibus_query(ctl->bus, NULL, VMIBUS_QUERY_LIMITS, &limits);

    if (r)
        r = report_refusal(ctl, r, &limits, "cannot ask for the limits");
    else if (ask_memory(ctl, VMIBUS_MEMORY_QUERY_LIMITS, &memory))
        fputs("vmibusctl: the memory authority does not tell its limits\n", stderr);
    if (!r)
        print_limits(ctl, &limits, &memory);
    vmibus_message_deinit(&limits);
    vmibus_message_deinit(&memory);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct vmibus_message counters = {}, memory = {}, sensors = {};
    int r = vmibusctl_connect(ctl);

    if (r)
        return r;
    if (arguments_get(arguments, "limits"))
        return show_limits(ctl);
    r = vmibus_query(ctl->bus, NULL, VMIBUS_QUERY_STATS, &counters);
    if (r) {
        r = report_refusal(ctl, r, &counters, "cannot ask for the counters");
    } else {
        r = vmibus_query(ctl->bus, NULL, VMIBUS_QUERY_SENSORS, &sensors);
        if (r)
            r = report_refusal(ctl, r, &sensors, "cannot ask for the sensors");
        else if (ask_memory(ctl, VMIBUS_MEMORY_QUERY_COUNTERS, &memory))
            fputs("vmibusctl: the memory authority does not tell its counters\n", stderr);
        if (!r)
            print(ctl, &counters, &memory, &sensors);
    }
    vmibus_message_deinit(&counters);
    vmibus_message_deinit(&memory);
    vmibus_message_deinit(&sensors);
    return r;
}

static const struct option_description options[] = {
    {"limits", NULL, "limits, and who uses how much of them"},
    {NULL, NULL, NULL},
};

const struct verb verb_stats = {
    .name = "stats",
    .synopsis = "[--limits]",
    .summary = "show the bus's counters and sensors, or its limits",
    .options = options,
    .run = run,
};
