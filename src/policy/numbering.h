/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The numbers by which audit records name the rules of a policy; apart from policy.h, as who records nothing needs none. */
#ifndef POLICY_NUMBERING_H
#define POLICY_NUMBERING_H

struct audit;
struct policy;

/** Gives each rule its number in an intents log, as audit_number_rule(). Before the policy is used. */
void policy_number_rules(struct policy *policy, struct audit *audit);

#endif
