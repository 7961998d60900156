/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A record of the audit files (<vmibus/audit.h>), for people and for programs. */
#ifndef VMIBUSCTL_AUDIT_RECORD_H
#define VMIBUSCTL_AUDIT_RECORD_H

#include <json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/audit.h>

#define AUDIT_TIME_SIZE 64
#define AUDIT_TEXT_SIZE 64
#define AUDIT_RULE_SIZE 512

/** A CLOCK_REALTIME time in nanoseconds, as local time. Returns text, which has room for AUDIT_TIME_SIZE. */
char *audit_time(int64_t realtime, char *text);

/** How a command ended. */
const char *audit_outcome(const struct vmibus_audit_record *record);

/** Which check refused it, with a blank before it; "" if none did. */
const char *audit_reason(const struct vmibus_audit_record *record, char *text);

/**
 * Which rule of the policy decided, with a comma before it; "" if that is not told. Returns text, which has room for
 * AUDIT_RULE_SIZE.
 * @param rule what the record's number means; NULL: that is not known
 */
char *audit_rule(const struct vmibus_audit_record *record, const struct vmibus_audit_rule *rule, char *text);

/** What a command was to do, in a few words. Returns text, which has room for AUDIT_TEXT_SIZE. */
char *audit_describe(const struct vmibus_audit_record *record, char *text);

/** Whether a kind takes or changes something: leases, and what is done under them. */
bool audit_is_command(uint16_t kind);

/** All of it. The object is the caller's. @param rule as audit_rule() */
struct json_object *audit_json(const struct vmibus_audit_record *record, const struct vmibus_audit_rule *rule);

#endif
