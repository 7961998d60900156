/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "report.h"

char *audit_time(int64_t realtime, char *text) {
    time_t seconds = (time_t)(realtime / 1000000000);
    struct tm tm;
    size_t used = 0;

    if (localtime_r(&seconds, &tm))
        used = strftime(text, AUDIT_TIME_SIZE, "%F %T", &tm);
    snprintf(text + used, AUDIT_TIME_SIZE - used, ".%06" PRId64, realtime % 1000000000 / 1000);
    return text;
}

const char *audit_outcome(const struct vmibus_audit_record *record) {
    const char *name = vmibus_error_name(record->error);

    if (record->error == VMIBUS_AUDIT_PENDING)
        return "PENDING";
    return name ? name : "?";
}

static const char *known(const char *name) {
    return name ? name : "?";
}

char *audit_describe(const struct vmibus_audit_record *record, char *text) {
    const size_t size = AUDIT_TEXT_SIZE;

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
    return text;
}

const char *audit_reason(const struct vmibus_audit_record *record, char *text) {
    const char *name = record->reason ? vmibus_reason_name(record->reason) : NULL;

    *text = '\0';
    if (record->reason)
        snprintf(text, AUDIT_TEXT_SIZE, " %s", known(name));
    return text;
}

char *audit_rule(const struct vmibus_audit_record *record, const struct vmibus_audit_rule *rule, char *text) {
    *text = '\0';
    if (record->rule == VMIBUS_AUDIT_RULE_OWNER) {
        snprintf(text, AUDIT_RULE_SIZE, ", as owner");
    } else if (record->rule == VMIBUS_AUDIT_RULE_NONE) {
        snprintf(text, AUDIT_RULE_SIZE, ", no rule allows it");
    } else if (rule) {
        snprintf(text, AUDIT_RULE_SIZE, ", [rule %s] at %s:%" PRIu32, printable(rule->name), printable(rule->source), rule->line);
    } else if (record->rule != VMIBUS_AUDIT_RULE_UNTOLD) {
        snprintf(text, AUDIT_RULE_SIZE, ", a rule that is not known any more");
    }
    return text;
}

/* "rule" is there where one decided: the rest tells what did where none did. */
static void add_rule(struct json_object *object, const struct vmibus_audit_record *record, const struct vmibus_audit_rule *rule) {
    const char *decided = record->rule == VMIBUS_AUDIT_RULE_UNTOLD ? "untold" :
                          record->rule == VMIBUS_AUDIT_RULE_NONE   ? "none" :
                          record->rule == VMIBUS_AUDIT_RULE_OWNER  ? "owner" :
                                                                     "rule";

    json_object_object_add(object, "decided", json_object_new_string(decided));
    if (!rule)
        return;
    json_object_object_add(object, "rule", frame_json_text(rule->name, strlen(rule->name)));
    json_object_object_add(object, "rule_source", frame_json_text(rule->source, strlen(rule->source)));
    json_object_object_add(object, "rule_line", json_object_new_uint64(rule->line));
}

struct json_object *audit_json(const struct vmibus_audit_record *record, const struct vmibus_audit_rule *rule) {
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
        {"session", record->session},   {"incarnation", record->incarnation}, {"value", record->value},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        json_object_object_add(object, numbers[i].name, json_object_new_uint64(numbers[i].value));
    json_object_object_add(object, "kind", json_object_new_string(kind ? kind : "?"));
    json_object_object_add(object, "error", json_object_new_string(audit_outcome(record)));
    json_object_object_add(object, "reason", json_object_new_string(reason ? reason : "?"));
    json_object_object_add(object, "name", frame_json_text(record->name, strnlen(record->name, sizeof(record->name))));
    add_rule(object, record, rule);
    json_object_object_add(object, "waited", json_object_new_boolean(record->flags & VMIBUS_AUDIT_WAITED));
    json_object_object_add(object, "durable_first", json_object_new_boolean(!(record->flags & VMIBUS_AUDIT_NOT_DURABLE)));
    json_object_object_add(object, "digest_too_long", json_object_new_boolean(record->flags & VMIBUS_AUDIT_NO_DIGEST));
    if (record->flags & VMIBUS_AUDIT_DIGESTED) {
        json_object_object_add(object, "digest_old", frame_json_hex(record->digest_old, sizeof(record->digest_old)));
        json_object_object_add(object, "digest_new", frame_json_hex(record->digest_new, sizeof(record->digest_new)));
    }
    return object;
}

bool audit_is_command(uint16_t kind) {
    return kind == VMIBUS_KIND_CMD_LEASE || kind == VMIBUS_KIND_CMD_INPUT || kind == VMIBUS_KIND_CMD_POWER ||
           kind == VMIBUS_KIND_CMD_VM || kind == VMIBUS_KIND_CMD_MEMWRITE;
}
