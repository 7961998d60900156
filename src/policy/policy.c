/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/policy.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/audit.h>
#include <vmibus/protocol.h>

_Static_assert(VMIBUS_CAP_ALL >> POLICY_CAPABILITIES == 0, "a grant has room for the rule of each capability");

#define MIB (UINT64_C(1) << 20)

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
    [RESOURCE_BUFFERS] = 64,
    [RESOURCE_ENDPOINTS] = 256,
    [RESOURCE_HOLDS] = 64,
    [RESOURCE_ANSWERS] = 16 * MIB,
    [RESOURCE_WATCHES] = 64,
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
    [RESOURCE_BUFFERS] = 512,
    [RESOURCE_ENDPOINTS] = 256,
    [RESOURCE_HOLDS] = 256,
    [RESOURCE_ANSWERS] = 64 * MIB,
    [RESOURCE_WATCHES] = 1024,
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
        free(rule->source);
        free(rule->endpoints);
        free(rule);
    }
    user_list_deinit(&policy->bus_users);
    user_list_deinit(&policy->sensor_users);
    free(policy);
    return NULL;
}

int policy_add_rule(struct policy *policy, const char *name, struct policy_rule **rulep) {
    struct policy_rule *rule = calloc(1, sizeof(*rule));

    if (!rule)
        return -ENOMEM;
    rule->name = strdup(name);
    rule->source = strdup("");
    rule->endpoints = strdup("*");
    if (!rule->name || !rule->source || !rule->endpoints) {
        free(rule->name);
        free(rule->source);
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

uint32_t policy_lease_capabilities(enum vmibus_lease_class lease_class) {
    switch (lease_class) {
    case VMIBUS_LEASE_CLASS_INPUT:
        return VMIBUS_CAP_INPUT;
    case VMIBUS_LEASE_CLASS_POWER:
        return VMIBUS_CAP_POWER | VMIBUS_CAP_PAUSE;
    case VMIBUS_LEASE_CLASS_MEMWRITE:
        return VMIBUS_CAP_MEM_WRITE;
    }
    return 0;
}

/*
 * Rules only add, so of the rules that allow a lease of a class the longest bound holds, and no bound is the longest.  A rule
 * that does not allow the class bounds nothing of it.
 */
static void grant_add_ttl(struct grant *grant, const struct policy_rule *rule, enum vmibus_lease_class lease_class) {
    uint32_t needed = policy_lease_capabilities(lease_class), *bound = &grant->lease_ttl_ms[lease_class - 1];

    if (!(rule->capabilities & needed))
        return;
    if (!(grant->capabilities & needed) || rule->lease_ttl_ms == 0)
        *bound = rule->lease_ttl_ms;
    else if (*bound != 0 && rule->lease_ttl_ms > *bound)
        *bound = rule->lease_ttl_ms;
}

uint32_t policy_rule_capabilities(const struct policy_rule *rule) {
    return strcmp(rule->endpoints, "*") == 0 ? rule->capabilities : rule->capabilities & ~(uint32_t)VMIBUS_CAP_ADMIN;
}

uint16_t grant_rule(const struct grant *grant, uint32_t needed) {
    uint32_t given = grant->capabilities & needed;

    if (!needed)
        return VMIBUS_AUDIT_RULE_UNTOLD;
    return given ? grant->rules[__builtin_ctz(given)] : VMIBUS_AUDIT_RULE_NONE;
}

static void grant_add(struct grant *grant, const struct policy_rule *rule) {
    uint32_t given = policy_rule_capabilities(rule) & CAPABILITIES_ALL;

    grant_add_ttl(grant, rule, VMIBUS_LEASE_CLASS_INPUT);
    grant_add_ttl(grant, rule, VMIBUS_LEASE_CLASS_POWER);
    grant_add_ttl(grant, rule, VMIBUS_LEASE_CLASS_MEMWRITE);
    for (uint32_t first = given & ~grant->capabilities; first; first &= first - 1)
        grant->rules[__builtin_ctz(first)] = rule->number;
    grant->capabilities |= given;
    if (rule->rank > grant->rank)
        grant->rank = rule->rank;
}

static bool is_owner(const struct policy *policy, const struct principal *principal) {
    return principal->is_self || (list_is_empty(&policy->rules) && (principal->uid == 0 || principal->uid == geteuid()));
}

static struct grant grant_of_owner(void) {
    struct grant grant = {.capabilities = CAPABILITIES_ALL};

    for (size_t i = 0; i < POLICY_CAPABILITIES; i++)
        grant.rules[i] = VMIBUS_AUDIT_RULE_OWNER;
    return grant;
}

struct grant policy_evaluate(const struct policy *policy, const struct principal *principal, const char *name,
                             const uint8_t *uuid) {
    const struct policy_rule *rule;
    struct grant grant = {};

    if (is_owner(policy, principal))
        return grant_of_owner();
    list_for_each(rule, &policy->rules, link)
        if (rule_names(rule, principal) && policy_pattern_matches(rule->endpoints, name, uuid))
            grant_add(&grant, rule);
    return grant;
}

void policy_explain(const struct policy *policy, const struct principal *principal, const char *name, const uint8_t *uuid,
                    policy_rule_fn visit, void *context) {
    const struct policy_rule *rule;

    if (is_owner(policy, principal)) {
        visit(context, NULL, true, true);
        return;
    }
    list_for_each(rule, &policy->rules, link)
        visit(context, rule, rule_names(rule, principal), policy_pattern_matches(rule->endpoints, name, uuid));
}

static bool rule_lets_write(const struct policy_rule *rule, const struct principal *principal, const char *name,
                            const uint8_t *uuid) {
    return rule->capabilities & VMIBUS_CAP_MEM_WRITE && rule_names(rule, principal) &&
           policy_pattern_matches(rule->endpoints, name, uuid);
}

int policy_write_allowance(const struct policy *policy, const struct principal *principal, const char *name,
                           const uint8_t *uuid, struct write_allowance **allowancep) {
    const struct write_bounds **bounds;
    const struct policy_rule *rule;
    size_t n = 0;
    int r;

    *allowancep = NULL;
    if (is_owner(policy, principal))
        return 0;
    list_for_each(rule, &policy->rules, link)
        n += rule_lets_write(rule, principal, name, uuid);
    if (n == 0)
        return 0;
    bounds = calloc(n, sizeof(*bounds));
    if (!bounds)
        return -ENOMEM;
    n = 0;
    list_for_each(rule, &policy->rules, link)
        if (rule_lets_write(rule, principal, name, uuid))
            bounds[n++] = &rule->write;
    r = write_allowance_new(allowancep, bounds, n);
    free(bounds);
    return r;
}

struct grant policy_evaluate_any(const struct policy *policy, const struct principal *principal) {
    const struct policy_rule *rule;
    struct grant grant = {};

    if (is_owner(policy, principal))
        return grant_of_owner();
    list_for_each(rule, &policy->rules, link)
        if (rule_names(rule, principal))
            grant_add(&grant, rule);
    return grant;
}
