/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The policy: which principal may do what on which endpoints, and how much of everything it may hold.
 *
 * Rules only ever add: a grant is the union of the rules that name the principal and the endpoint;
 * none means nothing.  A policy without rules lets root and the process's own uid do everything,
 * and nobody else anything; the process itself needs no rule in any policy.  A policy is built once and
 * not changed while it is in use: a reload
 * replaces it whole.
 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#include "policy/principal.h"
#include "policy/users.h"
#include "policy/write_bounds.h"
#include "util/ledger.h"
#include "util/list.h"

/** Every capability there is (bits of VMIBUS_CAP_…). */
#define CAPABILITIES_ALL ((uint32_t)VMIBUS_CAP_ALL)

#define POLICY_LEASE_CLASSES 3

/** Bits of CAPABILITIES_ALL. */
#define POLICY_CAPABILITIES 20

/** Whom a rule names. */
enum policy_subject {
    POLICY_USER,
    POLICY_GROUP,
    POLICY_EVERYBODY,
};

struct policy_rule {
    struct list link;
    char *name;                     /**< how messages call it */
    char *source;                   /**< the file that it stands in */
    uint32_t line;                  /**< ... the line of its first key */
    uint16_t number;                /**< by which audit records name it: policy/numbering.h */
    enum policy_subject subject;
    uint32_t id;                    /**< uid or gid */
    char *endpoints;                /**< fnmatch(3) pattern on names, or "uuid:…" */
    uint32_t capabilities;          /**< VMIBUS_CAP_ bits */
    uint32_t rank;
    uint32_t lease_ttl_ms;          /**< longest lease; 0: no bound */
    struct write_bounds write;      /**< bounds of writing */
};

struct policy {
    struct list rules;
    uint64_t limits[N_RESOURCES];       /**< of one uid */
    uint64_t limits_total[N_RESOURCES]; /**< of all together */
    struct user_list bus_users;         /**< who may be the bus of a memory authority apart */
    struct user_list sensor_users;      /**< who may be a sensor */
};

/** What a principal may do on an endpoint. All zeros: nothing. */
struct grant {
    uint32_t capabilities;
    uint32_t rank;
    uint32_t lease_ttl_ms[POLICY_LEASE_CLASSES]; /**< longest lease of each class (enum vmibus_lease_class, from 1); 0: no bound */
    uint16_t rules[POLICY_CAPABILITIES]; /**< of each capability that it has: as grant_rule() */
};

/**
 * Which rule decides about capabilities (VMIBUS_CAP_ bits) of which one is needed, as an audit record tells it.
 * @return the number of the first rule that gives one, VMIBUS_AUDIT_RULE_NONE or _OWNER; _UNTOLD if none is needed
 */
uint16_t grant_rule(const struct grant *grant, uint32_t needed);

/** The capabilities (VMIBUS_CAP_ bits) of which one is needed to hold a lease of a class. */
uint32_t policy_lease_capabilities(enum vmibus_lease_class lease_class);

/** Makes a policy with no rules and default limits. 0 or -ENOMEM. */
int policy_new(struct policy **policyp);

/** Frees it. Takes and returns NULL. */
struct policy *policy_free(struct policy *policy);

/** Adds a rule that names nobody yet and grants nothing. 0 or -ENOMEM. */
int policy_add_rule(struct policy *policy, const char *name, struct policy_rule **rulep);

/**
 * What a rule gives.  ADMIN only if it is for all endpoints: whoever has it chooses the names of those that come, and could give
 * himself, by the name, what the rule gives on some.
 */
uint32_t policy_rule_capabilities(const struct policy_rule *rule);

/** What @a principal may do on the endpoint of this name and UUID (16 octets). */
struct grant policy_evaluate(const struct policy *policy, const struct principal *principal, const char *name, const uint8_t *uuid);

/** What @a principal may do on any endpoint at all, and on the bus itself. */
struct grant policy_evaluate_any(const struct policy *policy, const struct principal *principal);

/**
 * How what @a principal may write on an endpoint is bounded; what it may write at all, policy_evaluate() tells.
 * @param allowancep receives one reference; NULL if nothing is bounded
 * @return 0 or -ENOMEM
 */
int policy_write_allowance(const struct policy *policy, const struct principal *principal, const char *name,
                           const uint8_t *uuid, struct write_allowance **allowancep);

/**
 * What one rule has to do with a principal and an endpoint.
 * @param rule NULL: none is needed, all is allowed
 */
typedef void (*policy_rule_fn)(void *context, const struct policy_rule *rule, bool names_principal, bool names_endpoint);

/** Goes through what policy_evaluate() looks at: every rule, in their order; or the leave of owners. */
void policy_explain(const struct policy *policy, const struct principal *principal, const char *name, const uint8_t *uuid,
                    policy_rule_fn visit, void *context);

/** Whether a pattern names an endpoint: fnmatch(3) on the name, or uuid: and 32 hex digits with or without hyphens. */
bool policy_pattern_matches(const char *pattern, const char *name, const uint8_t *uuid);

#endif
