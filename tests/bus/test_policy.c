/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The policy: patterns, UUIDs, and that rules only ever add. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/audit.h>
#include <vmibus/protocol.h>

#include "policy/policy.h"
#include "util/fds.h"

static const uint8_t no_uuid[16];
static const uint8_t some_uuid[16] = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8};
static struct policy *policy;

static void open_policy(void) {
    ck_assert_int_eq(policy_new(&policy), 0);
}

static void close_policy(void) {
    policy = policy_free(policy);
}

static struct policy_rule *rule_add(enum policy_subject subject, uint32_t id, const char *endpoints, uint32_t capabilities) {
    struct policy_rule *rule;

    ck_assert_int_eq(policy_add_rule(policy, "rule", &rule), 0);
    rule->subject = subject;
    rule->id = id;
    free(rule->endpoints);
    rule->endpoints = strdup(endpoints);
    rule->capabilities = capabilities;
    return rule;
}

static struct grant grant_of(uid_t uid, const char *name) {
    const struct principal principal = {.uid = uid, .gid = uid};

    return policy_evaluate(policy, &principal, name, no_uuid);
}

/* Which rule decides is known with the grant: the first one that gives it. */
TEST(test_grant_knows_the_rule_of_each_capability, .setup = open_policy, .teardown = close_policy) {
    struct grant grant;

    ck_assert_uint_eq(grant_rule(&(struct grant){}, VMIBUS_CAP_POWER), VMIBUS_AUDIT_RULE_NONE);
    ck_assert_uint_eq(grant_rule(&(struct grant){}, 0), VMIBUS_AUDIT_RULE_UNTOLD);
    grant = grant_of(geteuid(), "web");
    ck_assert_uint_eq(grant_rule(&grant, VMIBUS_CAP_ADMIN), VMIBUS_AUDIT_RULE_OWNER);
    rule_add(POLICY_USER, 1000, "web", VMIBUS_CAP_POWER | VMIBUS_CAP_INPUT | VMIBUS_CAP_ADMIN)->number = 7;
    rule_add(POLICY_EVERYBODY, 0, "*", VMIBUS_CAP_POWER | VMIBUS_CAP_OBSERVE)->number = 9;
    grant = grant_of(1000, "web");
    ck_assert_uint_eq(grant_rule(&grant, VMIBUS_CAP_POWER), 7);
    ck_assert_uint_eq(grant_rule(&grant, VMIBUS_CAP_OBSERVE), 9);
    ck_assert_uint_eq(grant_rule(&grant, VMIBUS_CAP_PAUSE | VMIBUS_CAP_POWER), 7);
    ck_assert_uint_eq(grant_rule(&grant, VMIBUS_CAP_ADMIN), VMIBUS_AUDIT_RULE_NONE); /* not for all endpoints */
    grant = grant_of(1000, "other");
    ck_assert_uint_eq(grant_rule(&grant, VMIBUS_CAP_POWER), 9);
    ck_assert_uint_eq(grant_rule(&grant, VMIBUS_CAP_INPUT), VMIBUS_AUDIT_RULE_NONE);
}

TEST(test_patterns_name_endpoints) {
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"*", "anything", true},
        {"*", "", true},
        {"web", "web", true},
        {"web", "web1", false},
        {"web", "WEB", false},
        {"web*", "web1", true},
        {"*-test", "web-test", true},
        {"*-test", "web-test2", false},
        {"vm?", "vm1", true},
        {"vm?", "vm10", false},
        {"vm[0-3]", "vm2", true},
        {"vm[0-3]", "vm4", false},
        {"vm[!0-3]", "vm4", true},
        {"\\*", "*", true},
        {"\\*", "a", false},
        {"*", "a/b", true},
        {"*", ".hidden", true},
        {"uuid", "uuid", true},
        {"uuid:web", "uuid:web", false},
        {"", "", true},
        {"", "a", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_msg(policy_pattern_matches(cases[i].pattern, cases[i].name, no_uuid) == cases[i].matches, "%s on %s",
                      cases[i].pattern, cases[i].name);
}

TEST(test_patterns_name_uuids) {
    static const struct {
        const char *pattern;
        bool matches;
    } cases[] = {
        {"uuid:12345678-9abc-def0-0102-030405060708", true},
        {"uuid:123456789abcdef00102030405060708", true},
        {"uuid:12345678-9ABC-DEF0-0102-030405060708", true},
        {"uuid:12345678-9abc-def0-0102-030405060709", false},
        {"uuid:12345678-9abc-def0-0102-0304050607", false},
        {"uuid:12345678-9abc-def0-0102-03040506070800", false},
        {"uuid:1-23456789abcdef00102030405060708", false},
        {"uuid:g23456789abcdef00102030405060708", false},
        {"uuid:*", false},
        {"uuid:", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_msg(policy_pattern_matches(cases[i].pattern, "any", some_uuid) == cases[i].matches, "%s", cases[i].pattern);
    /* Many VMs have no UUID: the unset one names none of them. */
    ck_assert(!policy_pattern_matches("uuid:00000000-0000-0000-0000-000000000000", "any", no_uuid));
}

/* Patterns come from controls: none may take the bus long.  It would here, were stars tried against each other. */
TEST(test_p09_patterns_cost_little) {
    char pattern[256] = "", name[256] = "";

    for (int i = 0; i < 120; i++) {
        strcat(pattern, "*a");
        strcat(name, "aa");
    }
    strcat(pattern, "b");
    for (int i = 0; i < 100; i++)
        ck_assert(!policy_pattern_matches(pattern, name, no_uuid));
}

TEST(test_p01_without_rules_the_owner_and_root_may_everything, .setup = open_policy, .teardown = close_policy) {
    struct principal principal = {.uid = geteuid()};

    ck_assert_uint_eq(grant_of(geteuid(), "vm").capabilities, CAPABILITIES_ALL);
    ck_assert_uint_eq(grant_of(0, "vm").capabilities, CAPABILITIES_ALL);
    ck_assert_uint_eq(grant_of(geteuid() + 1, "vm").capabilities, 0);
    ck_assert_uint_eq(policy_evaluate_any(policy, &principal).capabilities, CAPABILITIES_ALL);
    principal.uid = geteuid() + 1;
    ck_assert_uint_eq(policy_evaluate_any(policy, &principal).capabilities, 0);
    /* With a rule, who is not named has nothing, whoever it is. */
    rule_add(POLICY_USER, 1000, "*", VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(grant_of(geteuid(), "vm").capabilities, geteuid() == 1000 ? VMIBUS_CAP_OBSERVE : 0);
}

TEST(test_p01_new_rule_names_nobody, .setup = open_policy, .teardown = close_policy) {
    struct policy_rule *rule;
    const struct principal nobody = {.uid = (uid_t)-2, .gid = (gid_t)-2};

    ck_assert_int_eq(policy_add_rule(policy, "rule", &rule), 0);
    rule->capabilities = CAPABILITIES_ALL;
    ck_assert_uint_eq(grant_of(0, "vm").capabilities, 0);
    ck_assert_uint_eq(policy_evaluate(policy, &nobody, "vm", no_uuid).capabilities, 0);
}

TEST(test_p01_grant_is_the_union_of_rules, .setup = open_policy, .teardown = close_policy) {
    const struct principal principal = {.uid = 1000, .gid = 1000};

    rule_add(POLICY_EVERYBODY, 0, "*", VMIBUS_CAP_OBSERVE);
    rule_add(POLICY_USER, 1000, "web*", VMIBUS_CAP_INPUT)->rank = 3;
    rule_add(POLICY_USER, 1000, "web1", VMIBUS_CAP_POWER)->rank = 2;
    rule_add(POLICY_USER, 1001, "*", VMIBUS_CAP_MEM_WRITE)->rank = 9;
    ck_assert_uint_eq(grant_of(1000, "web1").capabilities, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_INPUT | VMIBUS_CAP_POWER);
    ck_assert_uint_eq(grant_of(1000, "web1").rank, 3);
    ck_assert_uint_eq(grant_of(1000, "web2").capabilities, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_INPUT);
    ck_assert_uint_eq(grant_of(1000, "db").capabilities, VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(grant_of(1000, "db").rank, 0);
    ck_assert_uint_eq(grant_of(1002, "web1").capabilities, VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(policy_evaluate_any(policy, &principal).capabilities,
                      VMIBUS_CAP_OBSERVE | VMIBUS_CAP_INPUT | VMIBUS_CAP_POWER);
}

/* Who may add VMs names them, and could so give himself, of any, what a rule gives of some. */
TEST(test_p01_admin_is_not_given_by_a_rule_for_some, .setup = open_policy, .teardown = close_policy) {
    const struct principal principal = {.uid = 1000, .gid = 1000};
    const struct policy_rule *rule = rule_add(POLICY_USER, 1000, "test*", CAPABILITIES_ALL);
    uint32_t all_but_admin = CAPABILITIES_ALL & ~(uint32_t)VMIBUS_CAP_ADMIN;

    ck_assert_uint_eq(policy_rule_capabilities(rule), all_but_admin);
    ck_assert_uint_eq(policy_evaluate_any(policy, &principal).capabilities, all_but_admin);
    ck_assert_uint_eq(grant_of(1000, "test1").capabilities, all_but_admin);
    rule_add(POLICY_USER, 1000, "*", VMIBUS_CAP_ADMIN);
    ck_assert_uint_eq(policy_evaluate_any(policy, &principal).capabilities, CAPABILITIES_ALL);
}

TEST(test_p01_rules_by_uuid, .setup = open_policy, .teardown = close_policy) {
    const struct principal principal = {.uid = 1000};

    rule_add(POLICY_USER, 1000, "uuid:12345678-9abc-def0-0102-030405060708", VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(policy_evaluate(policy, &principal, "vm", some_uuid).capabilities, VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(policy_evaluate(policy, &principal, "vm", no_uuid).capabilities, 0);
}

TEST(test_p01_rules_by_group, .setup = open_policy, .teardown = close_policy) {
    struct principal principal = {.uid = 1000, .gid = 50, .n_groups = 2, .groups = {60, 70}};

    rule_add(POLICY_GROUP, 50, "primary", VMIBUS_CAP_OBSERVE);
    rule_add(POLICY_GROUP, 70, "other", VMIBUS_CAP_OBSERVE);
    rule_add(POLICY_GROUP, 1000, "uid", VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(policy_evaluate(policy, &principal, "primary", no_uuid).capabilities, VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(policy_evaluate(policy, &principal, "other", no_uuid).capabilities, VMIBUS_CAP_OBSERVE);
    ck_assert_uint_eq(policy_evaluate(policy, &principal, "uid", no_uuid).capabilities, 0);
    principal.n_groups = 1;
    ck_assert_uint_eq(policy_evaluate(policy, &principal, "other", no_uuid).capabilities, 0);
}

static uint32_t ttl_of(const char *name, enum vmibus_lease_class lease_class) {
    return grant_of(1000, name).lease_ttl_ms[lease_class - 1];
}

TEST(test_longest_lease_of_the_rules_that_allow_one, .setup = open_policy, .teardown = close_policy) {
    rule_add(POLICY_EVERYBODY, 0, "*", VMIBUS_CAP_OBSERVE); /* no bound, but no lease either */
    rule_add(POLICY_USER, 1000, "a*", VMIBUS_CAP_INPUT)->lease_ttl_ms = 5000;
    rule_add(POLICY_USER, 1000, "ab*", VMIBUS_CAP_POWER)->lease_ttl_ms = 9000;
    rule_add(POLICY_USER, 1000, "abc*", VMIBUS_CAP_POWER)->lease_ttl_ms = 1000;
    rule_add(POLICY_USER, 1000, "abcd", VMIBUS_CAP_MEM_WRITE);
    ck_assert_uint_eq(ttl_of("a", VMIBUS_LEASE_CLASS_INPUT), 5000);
    ck_assert_uint_eq(ttl_of("ab", VMIBUS_LEASE_CLASS_INPUT), 5000);
    ck_assert_uint_eq(ttl_of("ab", VMIBUS_LEASE_CLASS_POWER), 9000);
    ck_assert_uint_eq(ttl_of("abc", VMIBUS_LEASE_CLASS_POWER), 9000);
    ck_assert_uint_eq(ttl_of("abcd", VMIBUS_LEASE_CLASS_MEMWRITE), 0);
    /* What bounds one class bounds no other, and what does not bound one does not unbind another. */
    ck_assert_uint_eq(ttl_of("abcd", VMIBUS_LEASE_CLASS_INPUT), 5000);
    ck_assert_uint_eq(ttl_of("abcd", VMIBUS_LEASE_CLASS_POWER), 9000);
}

TEST(test_principal_is_what_the_kernel_says) {
    struct principal self, peer;
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    ck_assert_int_eq(principal_from_socket(&peer, fds[0]), 0);
    ck_assert_int_eq(principal_from_self(&self), 0);
    ck_assert_uint_eq(peer.uid, geteuid());
    ck_assert_uint_eq(peer.gid, getegid());
    ck_assert_int_eq(peer.pid, getpid());
    ck_assert_int_eq(self.pid, 0);
    ck_assert_uint_eq(self.uid, peer.uid);
    ck_assert_uint_eq(self.n_groups, peer.n_groups);
    ck_assert(principal_in_group(&self, getegid()));
    fds_close(fds, 2);
    ck_assert_int_lt(principal_from_socket(&peer, fds[0]), 0);
}

HARNESS_SUITE("policy", HARNESS_QUICK)
