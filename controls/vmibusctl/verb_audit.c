/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl audit: an intents log, which needs no bus and outlives its writer.
 *
 * The log is written while it is read: a record that is overwritten meanwhile is left out, and said so.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/audit.h>
#include <vmibus/names.h>

#include "frame_json.h"
#include "report.h"
#include "table.h"
#include "units.h"

struct log {
    const struct vmibus_audit_header *header;
    size_t size;
    uint64_t capacity;      /* as checked against the size: the file is not trusted twice */
};

static int open_log(const char *path, struct log *log) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *memory = MAP_FAILED;

    if (fd < 0)
        return report_failure("cannot open %s: %s", printable(path), strerror(errno));
    if (fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(struct vmibus_audit_header))
        memory = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED)
        return report_failure("%s is no intents log: it is too short", printable(path));
    *log = (struct log){.header = memory, .size = (size_t)st.st_size};
    log->capacity = log->header->capacity;
    if (log->header->magic == VMIBUS_AUDIT_MAGIC && log->capacity > 0 &&
        log->capacity <= (log->size - sizeof(struct vmibus_audit_header)) / sizeof(struct vmibus_audit_record))
        return STATUS_OK;
    munmap(memory, log->size);
    return report_failure("%s is no intents log: its header is not one", printable(path));
}

static void format_time(const struct log *log, uint64_t monotonic, char *text, size_t size) {
    int64_t realtime = (int64_t)monotonic + log->header->realtime_offset;
    time_t seconds = (time_t)(realtime / 1000000000);
    struct tm tm;
    size_t used = 0;

    if (localtime_r(&seconds, &tm))
        used = strftime(text, size, "%F %T", &tm);
    snprintf(text + used, size - used, ".%06" PRId64, realtime % 1000000000 / 1000);
}

static const char *outcome(const struct vmibus_audit_record *record) {
    const char *name = vmibus_error_name(record->error);

    if (record->error == VMIBUS_AUDIT_PENDING)
        return "PENDING";
    return name ? name : "?";
}

static const char *known(const char *name) {
    return name ? name : "?";
}

/* What the command was to do, in a few words. */
static void describe(const struct vmibus_audit_record *record, char *text, size_t size) {
    *text = '\0';
    switch (record->kind) {
    case VMIBUS_KIND_CMD_MEMWRITE:
        snprintf(text, size, "%" PRIu32 " octets at 0x%" PRIx64, record->len, record->address);
        break;
    case VMIBUS_KIND_CMD_LEASE:
        snprintf(text, size, "%s %s", known(vmibus_lease_operation_name(record->operation)),
                 known(vmibus_lease_class_name(record->detail)));
        break;
    case VMIBUS_KIND_CMD_POWER:
        snprintf(text, size, "%s", known(vmibus_power_operation_name(record->detail)));
        break;
    case VMIBUS_KIND_CMD_VM:
        snprintf(text, size, "%s", known(vmibus_vm_operation_name(record->detail)));
        break;
    case VMIBUS_KIND_WATCH:
        snprintf(text, size, "%s", known(vmibus_watch_operation_name(record->detail)));
        if (record->detail == VMIBUS_WATCH_OPERATION_ADD)
            snprintf(text, size, "ADD %" PRIu32 " octets at 0x%" PRIx64, record->len, record->address);
        break;
    case VMIBUS_KIND_CMD_INPUT:
        snprintf(text, size, "%" PRIu32 " events", record->len);
        break;
    default:
        break;
    }
}

static void print_row(struct table *table, const struct log *log, const struct vmibus_audit_record *record) {
    const char *kind = vmibus_kind_name(record->kind), *reason = record->reason ? vmibus_reason_name(record->reason) : NULL;
    char text[64];

    format_time(log, record->received, text, sizeof(text));
    table_cell(table, "%" PRIu64, record->sequence);
    table_cell(table, "%s", text);
    table_cell(table, "%" PRIu32, record->uid);
    table_cell(table, "%" PRIu32, record->pid);
    table_cell(table, "%" PRIu32, record->slot);
    table_cell(table, "%s", kind ? kind : "?");
    describe(record, text, sizeof(text));
    table_cell(table, "%s", text);
    table_cell(table, "%s%s%s", outcome(record), reason ? " " : "", reason ? reason : "");
}

static struct json_object *record_json(const struct vmibus_audit_record *record) {
    struct json_object *object = json_object_new_object();
    const char *kind = vmibus_kind_name(record->kind), *reason = vmibus_reason_name(record->reason);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"sequence", record->sequence}, {"received", record->received},     {"finished", record->finished},
        {"slot", record->slot},         {"generation", record->generation}, {"uid", record->uid},
        {"pid", record->pid},           {"detail", record->detail},         {"operation", record->operation},
        {"len", record->len},           {"token", record->token},           {"epoch", record->epoch},
        {"cr3", record->cr3},           {"gva", record->address},           {"count", record->count},
        {"correlation", record->correlation},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        json_object_object_add(object, numbers[i].name, json_object_new_uint64(numbers[i].value));
    json_object_object_add(object, "kind", json_object_new_string(kind ? kind : "?"));
    json_object_object_add(object, "error", json_object_new_string(outcome(record)));
    json_object_object_add(object, "reason", json_object_new_string(reason ? reason : "?"));
    return object;
}

static bool is_command(uint16_t kind) {
    return kind == VMIBUS_KIND_CMD_LEASE || kind == VMIBUS_KIND_CMD_INPUT || kind == VMIBUS_KIND_CMD_POWER ||
           kind == VMIBUS_KIND_CMD_VM || kind == VMIBUS_KIND_CMD_MEMWRITE;
}

static void print_log(const struct vmibusctl *ctl, const struct log *log, uint64_t count, bool only_commands) {
    static const char *const headings[] = {"SEQUENCE", "RECEIVED", "UID", "PID", "SLOT", "COMMAND", "WHAT", "OUTCOME"};
    uint64_t last = __atomic_load_n(&log->header->written, __ATOMIC_ACQUIRE), lost = 0;
    uint64_t first = last > log->capacity ? last - log->capacity + 1 : 1;
    struct json_object *array = NULL;
    struct table *table = NULL;
    struct vmibus_audit_record record;

    if (count && last - first >= count && last >= count)
        first = last - count + 1;
    if (ctl->json) {
        array = json_object_new_array();
    } else {
        table = table_new(8);
        for (size_t i = 0; i < 8; i++)
            table_cell(table, "%s", headings[i]);
    }
    for (uint64_t sequence = first; sequence <= last && sequence; sequence++) {
        if (!vmibus_audit_read(log->header, sequence, &record))
            lost++;
        else if (only_commands && !is_command(record.kind))
            continue;
        else if (ctl->json)
            json_object_array_add(array, record_json(&record));
        else
            print_row(table, log, &record);
    }
    if (ctl->json)
        frame_json_print(array);
    else
        table_print(table);
    if (lost)
        fprintf(stderr, "vmibusctl: %" PRIu64 " records were overwritten, or never finished being written.\n", lost);
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *count_text = arguments_get(arguments, "count");
    uint64_t count = 0;
    struct log log = {};
    int r;

    if (count_text && (!units_parse_number(count_text, UINT64_MAX, &count) || !count))
        return vmibusctl_usage("--count", count_text, "it is a number from 1");
    r = open_log(arguments->words[0], &log);
    if (r)
        return r;
    print_log(ctl, &log, count, arguments_get(arguments, "commands"));
    munmap((void *)log.header, log.size);
    return STATUS_OK;
}

static const struct option_description options[] = {
    {"count", "N", "only the last N records"},
    {"commands", NULL, "only leases and what is done under them: input, power, memory"},
    {},
};

const struct verb verb_audit = {
    .name = "audit",
    .synopsis = "FILE",
    .summary = "show an intents log: who commanded what, and how it ended",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run,
};
