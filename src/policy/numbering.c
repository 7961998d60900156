/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/numbering.h"

#include "policy/policy.h"
#include "util/audit.h"

void policy_number_rules(struct policy *policy, struct audit *audit) {
    struct policy_rule *rule;

    list_for_each(rule, &policy->rules, link)
        rule->number = audit_number_rule(audit, rule->name, rule->source, rule->line);
}
