/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl audit: the audit files, which need no bus and outlive their writer.  The chain is audit_chain.c's; here is the intents
 * log, which is written while it is read: a record that is overwritten meanwhile is left out, and said so.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/audit.h>
#include <vmibus/names.h>

#include "audit_chain.h"
#include "audit_record.h"
#include "frame_json.h"
#include "report.h"
#include "table.h"
#include "units.h"

struct log {
    const struct vmibus_audit_header *header;
    size_t size;
    uint64_t capacity;      /* as checked against the size: the file is not trusted twice */
    bool has_rules;
};

/* Those of a writer that kept other rules than this program knows of are not looked at. */
static bool has_rules(const struct log *log) {
    return log->header->rules == VMIBUS_AUDIT_RULES &&
           (log->size - sizeof(struct vmibus_audit_header) - log->capacity * sizeof(struct vmibus_audit_record)) /
                   sizeof(struct vmibus_audit_rule) >= VMIBUS_AUDIT_RULES;
}

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
        log->capacity <= (log->size - sizeof(struct vmibus_audit_header)) / sizeof(struct vmibus_audit_record)) {
        log->has_rules = has_rules(log);
        return STATUS_OK;
    }
    munmap(memory, log->size);
    return report_failure("%s is no intents log: its header is not one", printable(path));
}

static void print_row(struct table *table, const struct log *log, const struct vmibus_audit_record *record,
                      const struct vmibus_audit_rule *rule) {
    const char *kind = vmibus_kind_name(record->kind);
    char by[AUDIT_RULE_SIZE], text[AUDIT_TEXT_SIZE], time[AUDIT_TIME_SIZE];

    table_cell(table, "%" PRIu64, record->sequence);
    table_cell(table, "%s", audit_time((int64_t)record->received + log->header->realtime_offset, time));
    table_cell(table, "%" PRIu32, record->uid);
    table_cell(table, "%" PRIu32, record->pid);
    table_cell(table, "%" PRIu32, record->slot);
    table_cell(table, "%s", kind ? kind : "?");
    table_cell(table, "%s", audit_describe(record, text));
    table_cell(table, "%s%s%s", audit_outcome(record), audit_reason(record, text), audit_rule(record, rule, by));
}

static void print_log(const struct vmibusctl *ctl, const struct log *log, uint64_t count, bool only_commands) {
    static const char *const headings[] = {"SEQUENCE", "RECEIVED", "UID", "PID", "SLOT", "COMMAND", "WHAT", "OUTCOME"};
    uint64_t last = __atomic_load_n(&log->header->written, __ATOMIC_ACQUIRE), lost = 0;
    uint64_t first = last > log->capacity ? last - log->capacity + 1 : 1;
    struct json_object *array = NULL;
    struct table *table = NULL;
    const struct vmibus_audit_rule *named;
    struct vmibus_audit_record record;
    struct vmibus_audit_rule rule;

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
        if (!vmibus_audit_read(log->header, sequence, &record)) {
            lost++;
            continue;
        }
        if (only_commands && !audit_is_command(record.kind))
            continue;
        named = log->has_rules && vmibus_audit_read_rule(log->header, record.rule, &rule) ? &rule : NULL;
        if (ctl->json)
            json_object_array_add(array, audit_json(&record, named));
        else
            print_row(table, log, &record, named);
    }
    if (ctl->json)
        frame_json_print(array);
    else
        table_print(table);
    if (lost)
        fprintf(stderr, "vmibusctl: %" PRIu64 " records were overwritten, or never finished being written.\n", lost);
}

/* --- which of them ------------------------------------------------------------------------------- */

#define DEFAULT_DIRECTORY VMIBUS_LOCALSTATEDIR "/lib/vmibus/audit"

static bool is_directory(const char *path) {
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int show_log(const struct vmibusctl *ctl, const char *path, uint64_t count, bool only_commands) {
    struct log log = {};
    int r = open_log(path, &log);

    if (r)
        return r;
    print_log(ctl, &log, count, only_commands);
    munmap((void *)log.header, log.size);
    return STATUS_OK;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *count_text = arguments_get(arguments, "count"), *head = arguments_get(arguments, "head");
    const char *what = arguments->words[0], *path = arguments->words[1];
    bool verify = strcmp(what, "verify") == 0, tail = strcmp(what, "tail") == 0;
    struct audit_chain_options chain = {
        .ctl = ctl,
        .writer = arguments_get(arguments, "writer"),
        .only_commands = arguments_get(arguments, "commands"),
        .head_text = head,
    };

    if (!verify && !tail && strcmp(what, "show") != 0) {
        if (path)
            return vmibusctl_usage("audit", what, "it is show, verify or tail");
        path = what;
    }
    if (count_text && (verify || !units_parse_number(count_text, UINT64_MAX, &chain.count) || !chain.count))
        return vmibusctl_usage("--count", count_text, "it is a number from 1, and not for verify");
    if (head && !verify)
        return vmibusctl_usage("--head", head, "it is for verify");
    chain.path = path ? path : DEFAULT_DIRECTORY;
    if (verify)
        return audit_chain_verify(&chain);
    if (tail)
        return audit_chain_tail(&chain);
    return is_directory(chain.path) ? audit_chain_show(&chain) : show_log(ctl, chain.path, chain.count, chain.only_commands);
}

static const struct option_description options[] = {
    {"count", "N", "only the last N records"},
    {"commands", NULL, "only leases and what is done under them: input, power, memory"},
    {"head", "HASH", "verify: this hash, kept elsewhere, must be in the chain"},
    {"writer", "NAME", "whose chain, of those in the directory (default: bus)"},
    {},
};

const struct verb verb_audit = {
    .name = "audit",
    .synopsis = "[show|verify|tail] [PATH]",
    .summary = "who commanded what, and how it ended: show it, verify it, follow it",
    .min_words = 1,
    .max_words = 2,
    .options = options,
    .run = run,
};
