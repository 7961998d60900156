/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/policy.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/protocol.h>

#define MIB (UINT64_C(1) << 20)

#define LEASE_CAPABILITIES (VMIBUS_CAP_INPUT | VMIBUS_CAP_POWER | VMIBUS_CAP_PAUSE | VMIBUS_CAP_MEM_WRITE)

static const uint64_t default_limits[N_RESOURCES] = {
    [RESOURCE_CONNECTIONS] = 128,
    [RESOURCE_COMMANDS] = 1024,
    [RESOURCE_EVENTS] = 65536,
    [RESOURCE_BYTES] = 16 * MIB,
    [RESOURCE_FDS] = 256,
    [RESOURCE_LEASES] = 256,
    [RESOURCE_WAITERS] = 64,
    [RESOURCE_SUBSCRIPTIONS] = 256,
    [RESOURCE_TAILS] = 4,
    [RESOURCE_ATTACHMENTS] = 256,
    [RESOURCE_ENDPOINTS] = 256,
};

static const uint64_t default_limits_total[N_RESOURCES] = {
    [RESOURCE_CONNECTIONS] = 512,
    [RESOURCE_COMMANDS] = 8192,
    [RESOURCE_EVENTS] = 262144,
    [RESOURCE_BYTES] = 64 * MIB,
    [RESOURCE_FDS] = 1024,
    [RESOURCE_LEASES] = 768,
    [RESOURCE_WAITERS] = 512,
    [RESOURCE_SUBSCRIPTIONS] = 4096,
    [RESOURCE_TAILS] = 16,
    [RESOURCE_ATTACHMENTS] = 2048,
    [RESOURCE_ENDPOINTS] = 256,
};

int policy_new(struct policy **policyp) {
    struct policy *policy = calloc(1, sizeof(*policy));

    if (!policy)
        return -ENOMEM;
    list_init(&policy->rules);
    memcpy(policy->limits, default_limits, sizeof(policy->limits));
    memcpy(policy->limits_total, default_limits_total, sizeof(policy->limits_total));
    *policyp = policy;
    return 0;
}

struct policy *policy_free(struct policy *policy) {
    struct policy_rule *rule, *following;

    if (!policy)
        return NULL;
    list_for_each_safe(rule, following, &policy->rules, link) {
        free(rule->name);
        free(rule->endpoints);
        free(rule);
    }
    free(policy);
    return NULL;
}

int policy_add_rule(struct policy *policy, const char *name, struct policy_rule **rulep) {
    struct policy_rule *rule = calloc(1, sizeof(*rule));

    if (!rule)
        return -ENOMEM;
    rule->name = strdup(name);
    rule->endpoints = strdup("*");
    if (!rule->name || !rule->endpoints) {
        free(rule->name);
        free(rule->endpoints);
        free(rule);
        return -ENOMEM;
    }
    rule->subject = POLICY_USER;
    rule->id = UINT32_MAX; /* (uid_t)-1 is nobody */
    list_append(&policy->rules, &rule->link);
    *rulep = rule;
    return 0;
}

/* Parses 32 hex digits, hyphens anywhere between octets. */
static bool uuid_parse(const char *text, uint8_t *uuid) {
    size_t digits = 0;

    for (; *text; text++) {
        unsigned digit;

        if (*text == '-' && digits % 2 == 0)
            continue;
        if (!isxdigit((unsigned char)*text) || digits == 32)
            return false;
        digit = isdigit((unsigned char)*text) ? (unsigned)(*text - '0') : (unsigned)(tolower((unsigned char)*text) - 'a' + 10);
        uuid[digits / 2] = (uint8_t)(digits % 2 ? uuid[digits / 2] << 4 | digit : digit);
        digits++;
    }
    return digits == 32;
}

bool policy_pattern_matches(const char *pattern, const char *name, const uint8_t *uuid) {
    static const uint8_t unset[16];
    uint8_t wanted[16];

    if (strncmp(pattern, "uuid:", 5) == 0)
        return uuid_parse(pattern + 5, wanted) && memcmp(wanted, unset, sizeof(unset)) != 0 &&
               memcmp(wanted, uuid, sizeof(wanted)) == 0;
    return fnmatch(pattern, name, 0) == 0;
}

static bool rule_names(const struct policy_rule *rule, const struct principal *principal) {
    switch (rule->subject) {
    case POLICY_USER:
        return rule->id == principal->uid;
    case POLICY_GROUP:
        return principal_in_group(principal, rule->id);
    case POLICY_EVERYBODY:
        return true;
    }
    return false;
}

static void grant_add(struct grant *grant, const struct policy_rule *rule) {
    bool first = !(grant->capabilities & LEASE_CAPABILITIES);

    grant->capabilities |= rule->capabilities;
    if (rule->rank > grant->rank)
        grant->rank = rule->rank;
    /* Rules only add, so the longest of the bounds holds, and no bound is the longest; one that allows no lease bounds none. */
    if (!(rule->capabilities & LEASE_CAPABILITIES))
        return;
    if (first || rule->lease_ttl_ms == 0)
        grant->lease_ttl_ms = rule->lease_ttl_ms;
    else if (grant->lease_ttl_ms != 0 && rule->lease_ttl_ms > grant->lease_ttl_ms)
        grant->lease_ttl_ms = rule->lease_ttl_ms;
}

static bool is_owner(const struct policy *policy, const struct principal *principal) {
    return principal->is_self || (list_is_empty(&policy->rules) && (principal->uid == 0 || principal->uid == geteuid()));
}

struct grant policy_evaluate(const struct policy *policy, const struct principal *principal, const char *name,
                             const uint8_t *uuid) {
    const struct policy_rule *rule;
    struct grant grant = {};

    if (is_owner(policy, principal))
        return (struct grant){.capabilities = CAPABILITIES_ALL};
    list_for_each(rule, &policy->rules, link)
        if (rule_names(rule, principal) && policy_pattern_matches(rule->endpoints, name, uuid))
            grant_add(&grant, rule);
    return grant;
}

struct grant policy_evaluate_any(const struct policy *policy, const struct principal *principal) {
    const struct policy_rule *rule;
    struct grant grant = {};

    if (is_owner(policy, principal))
        return (struct grant){.capabilities = CAPABILITIES_ALL};
    list_for_each(rule, &policy->rules, link)
        if (rule_names(rule, principal))
            grant_add(&grant, rule);
    return grant;
}
