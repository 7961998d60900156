/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/explain.h"

#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/control.h"

/* The question, and the answer as it comes together. */
struct explanation {
    struct principal principal;
    char name[VMIBUS_NAME_BOUND + 1];
    bool is_all;                /* also rules that name others */
    struct vmibus_rule_info *rules;
    size_t n;
};

static void refuse(struct query_answer *answer, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    answer->error = error;
    answer->reason = reason;
    answer->value = value;
}

/* Somebody who may not be connected: what its process could make of itself plays no part in the policy. */
static void take_principal(struct explanation *explanation, const struct vmibus_explain *question, const void *groups) {
    struct principal *principal = &explanation->principal;

    *principal = (struct principal){.uid = question->uid, .gid = (gid_t)-1, .n_groups = question->group_count};
    memcpy(principal->groups, groups, question->group_count * sizeof(principal->groups[0]));
}

static bool take_question(struct explanation *explanation, const struct control *control, const struct vmibus_frame *frame,
                          const uint8_t *tail, struct query_answer *answer) {
    const struct vmibus_explain *question = &frame->explain;
    size_t groups = question->group_count * sizeof(uint32_t), length = frame->header.tail_length;
    bool is_own = question->uid == UINT32_MAX;

    if (question->group_count > PRINCIPAL_GROUPS || length <= groups || length - groups > VMIBUS_NAME_BOUND ||
        memchr(tail + groups, '\0', length - groups) || (is_own && groups)) {
        refuse(answer, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, question->group_count);
        return false;
    }
    if (!is_own && !explanation->is_all) {
        refuse(answer, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, VMIBUS_CAP_STATS);
        return false;
    }
    memcpy(explanation->name, tail + groups, length - groups);
    if (is_own)
        explanation->principal = control->principal;
    else
        take_principal(explanation, question, tail);
    return true;
}

static enum vmibus_rule_subject subject_of(const struct policy_rule *rule) {
    switch (rule->subject) {
    case POLICY_USER:
        return VMIBUS_RULE_SUBJECT_USER;
    case POLICY_GROUP:
        return VMIBUS_RULE_SUBJECT_GROUP;
    case POLICY_EVERYBODY:
        break;
    }
    return VMIBUS_RULE_SUBJECT_EVERYBODY;
}

static void copy_beginning(uint8_t *field, size_t size, const char *text) {
    size_t length = strlen(text);

    memcpy(field, text, length < size ? length : size - 1);
}

static void copy_end(uint8_t *field, size_t size, const char *text) {
    size_t length = strlen(text);

    copy_beginning(field, size, length < size ? text : text + length - (size - 1));
}

static void describe(struct vmibus_rule_info *info, const struct policy_rule *rule) {
    const struct write_place *place = &rule->write.place;

    info->capabilities = policy_rule_capabilities(rule);
    info->rank = rule->rank;
    info->lease_ttl_ms = rule->lease_ttl_ms;
    info->id = rule->id;
    info->write_size = rule->write.size;
    info->write_rate = rule->write.rate;
    info->line = rule->line;
    info->subject = (uint8_t)subject_of(rule);
    if (place->gva.n || place->gpa.n || place->protect)
        info->match |= VMIBUS_RULE_BOUNDS_PLACE;
    copy_beginning(info->name, sizeof(info->name), rule->name);
    copy_beginning(info->endpoints, sizeof(info->endpoints), rule->endpoints);
    copy_end(info->source, sizeof(info->source), rule->source);
}

static void count_rule(void *context, const struct policy_rule *rule, bool names_principal, bool names_endpoint) {
    struct explanation *explanation = context;

    (void)rule;
    (void)names_endpoint;
    explanation->n += explanation->is_all || names_principal;
}

static void add_rule(void *context, const struct policy_rule *rule, bool names_principal, bool names_endpoint) {
    struct explanation *explanation = context;
    struct vmibus_rule_info *info = &explanation->rules[explanation->n];

    if (!explanation->is_all && !names_principal)
        return;
    *info = (struct vmibus_rule_info){.match = (uint8_t)((names_principal ? VMIBUS_RULE_NAMES_PRINCIPAL : 0) |
                                                         (names_endpoint ? VMIBUS_RULE_NAMES_VM : 0))};
    if (rule) {
        describe(info, rule);
    } else {
        info->capabilities = CAPABILITIES_ALL;
        info->subject = VMIBUS_RULE_SUBJECT_OWNER;
    }
    explanation->n++;
}

void explain_execute(const struct control *control, const struct vmibus_frame *frame, const void *tail,
                     struct query_answer *answer) {
    struct explanation explanation = {.is_all = control->grant.capabilities & VMIBUS_CAP_STATS};
    const struct policy *policy = control->bus->policy;
    const uint8_t *uuid = frame->explain.uuid;
    struct grant grant;

    if (!take_question(&explanation, control, frame, tail, answer))
        return;
    policy_explain(policy, &explanation.principal, explanation.name, uuid, count_rule, &explanation);
    explanation.rules = calloc(explanation.n ? explanation.n : 1, sizeof(*explanation.rules));
    if (!explanation.rules) {
        refuse(answer, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, 0);
        return;
    }
    explanation.n = 0;
    policy_explain(policy, &explanation.principal, explanation.name, uuid, add_rule, &explanation);
    grant = policy_evaluate(policy, &explanation.principal, explanation.name, uuid);
    answer->count = grant.capabilities;
    answer->value = grant.rank;
    answer->tail = explanation.rules;
    answer->tail_length = explanation.n * sizeof(*explanation.rules);
}
