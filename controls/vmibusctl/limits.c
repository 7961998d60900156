/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "limits.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "table.h"

#define USER_SIZE 64

/* The key of vmibusd.conf(5) that sets a limit; NULL: it is not one of [limits]. */
static const char *limit_key(unsigned reason) {
    switch (reason) {
    case VMIBUS_REASON_LIMIT_CONNECTIONS:
        return "connections";
    case VMIBUS_REASON_LIMIT_COMMANDS:
        return "commands";
    case VMIBUS_REASON_LIMIT_QUEUE:
        return "events";
    case VMIBUS_REASON_LIMIT_BYTES:
        return "bytes";
    case VMIBUS_REASON_LIMIT_FDS:
        return "descriptors";
    case VMIBUS_REASON_LIMIT_LEASES:
        return "leases";
    case VMIBUS_REASON_LIMIT_WAITERS:
        return "waiters";
    case VMIBUS_REASON_LIMIT_SUBSCRIPTIONS:
        return "subscriptions";
    case VMIBUS_REASON_LIMIT_BUFFERS:
        return "buffers";
    case VMIBUS_REASON_LIMIT_TAILS:
        return "tails";
    case VMIBUS_REASON_LIMIT_ENDPOINTS:
        return "endpoints";
    case VMIBUS_REASON_LIMIT_ATTACHMENTS:
        return "attachments";
    case VMIBUS_REASON_LIMIT_HOLDS:
        return "holds";
    case VMIBUS_REASON_LIMIT_ANSWERS:
        return "answers";
    case VMIBUS_REASON_LIMIT_WATCHES:
        return "watches";
    default:
        return NULL;
    }
}

static const char *user_name(uint64_t uid, char text[USER_SIZE]) {
    const struct passwd *user = getpwuid((uid_t)uid);

    if (user)
        snprintf(text, USER_SIZE, "%s (uid %" PRIu64 ")", user->pw_name, uid);
    else
        snprintf(text, USER_SIZE, "uid %" PRIu64, uid);
    return text;
}

static void explain_quota(const char *key, uint64_t uid, uint64_t used, uint64_t bound) {
    char user[USER_SIZE];

    fprintf(stderr, " %s holds %" PRIu64 " of %" PRIu64 "; '%s' in [limits] of vmibusd.conf(5) sets the bound.",
            user_name(uid, user), used, bound, key);
}

/* Whoever uses most: NULL if that is not known. */
static void explain_pressure(const char *key, const char *greatest, uint64_t used, uint64_t bound) {
    fprintf(stderr, " All users together hold %" PRIu64 " of %" PRIu64, used, bound);
    if (greatest)
        fprintf(stderr, ", %s the most", greatest);
    fputc('.', stderr);
    if (used < bound)
        fputs(" What is left is kept so that everybody else has a share.", stderr);
    fprintf(stderr, " '%s' in [limits-total] of vmibusd.conf(5) sets the bound.", key);
}

/* What connections hold has one cap for all, beside [limits]. */
static void explain_memory(uint64_t used, uint64_t bound) {
    fprintf(stderr, " All connections together hold %" PRIu64 " of %" PRIu64 " octets;", used, bound);
    fputs(" 'memory-cap' in [daemon] of vmibusd.conf(5) sets the bound.", stderr);
}

void limits_explain(const struct vmibus_ack *ack) {
    const char *key = limit_key(ack->reason);
    char user[USER_SIZE];

    if (ack->reason == VMIBUS_REASON_LIMIT_MEMORY && ack->error == VMIBUS_ERROR_PRESSURE && ack->value)
        explain_memory(ack->count, ack->value);
    if (!key || !ack->value)
        return;
    if (ack->error == VMIBUS_ERROR_QUOTA)
        explain_quota(key, ack->token, ack->count, ack->value);
    else
        explain_pressure(key, user_name(ack->token, user), ack->count, ack->value);
}

void limits_explain_connection(const struct vmibus_error_body *refusal) {
    const char *key = limit_key(refusal->reason);

    if (refusal->reason == VMIBUS_REASON_LIMIT_MEMORY && refusal->error == VMIBUS_ERROR_PRESSURE && refusal->bound)
        explain_memory(refusal->value, refusal->bound);
    if (!key || !refusal->bound)
        return;
    if (refusal->error == VMIBUS_ERROR_QUOTA)
        explain_quota(key, geteuid(), refusal->value, refusal->bound);
    else if (refusal->error == VMIBUS_ERROR_PRESSURE)
        explain_pressure(key, NULL, refusal->value, refusal->bound);
}

static void print_row(struct table *table, const struct vmibus_limit_use *use) {
    const char *key = limit_key(use->limit), *name = vmibus_reason_name(use->limit);
    char user[USER_SIZE];

    table_cell(table, "%s", key ? key : name ? name : "?");
    table_cell(table, "%s", use->total ? "all" : user_name(use->uid, user));
    table_cell(table, "%" PRIu64, use->used);
    table_cell(table, "%" PRIu64, use->bound);
}

void limits_print(const struct vmibus_limit_use *uses, size_t n) {
    struct table *table = table_new(4);

    table_cell(table, "LIMIT");
    table_cell(table, "WHOSE");
    table_cell(table, "USED");
    table_cell(table, "BOUND");
    for (size_t i = 0; i < n; i++)
        /* Of others, what they do not use says nothing. */
        if (uses[i].total || uses[i].used > 0)
            print_row(table, &uses[i]);
    table_print(table);
}
