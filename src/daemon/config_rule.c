/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* [rule NAME] of the configuration: whom a rule of the policy names, and what it allows. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

#include "daemon/config_reading.h"

VMIBUS_SYSCALLS("connect getdents64 openat recvmsg sendto socket")

static bool names_nobody(const struct policy_rule *rule) {
    return rule->subject == POLICY_USER && rule->id == UINT32_MAX;
}

/* Of two subjects one would be forgotten, and of two rules under one name the second would get what the first allows. */
static int set_subject(struct reading *reading, struct policy_rule *rule, enum policy_subject subject, uint32_t id) {
    if (!names_nobody(rule))
        return reading_complain(reading,
                        "[rule %s] names somebody already: a rule names one user, one group or everybody; write another rule",
                        rule->name);
    rule->subject = subject;
    rule->id = id;
    return 1;
}

static int set_user(struct reading *reading, struct policy_rule *rule, const char *value) {
    const struct passwd *user = getpwnam(value);
    uint64_t number;

    if (!user && !reading_parse_number(value, UINT32_MAX - 1, &number))
        return reading_complain(reading, "user = %s: there is no such user", value);
    return set_subject(reading, rule, POLICY_USER, user ? user->pw_uid : (uint32_t)number);
}

static int set_group(struct reading *reading, struct policy_rule *rule, const char *value) {
    const struct group *group = getgrnam(value);
    uint64_t number;

    if (!group && !reading_parse_number(value, UINT32_MAX - 1, &number))
        return reading_complain(reading, "group = %s: there is no such group", value);
    return set_subject(reading, rule, POLICY_GROUP, group ? group->gr_gid : (uint32_t)number);
}

static int set_capabilities(struct reading *reading, struct policy_rule *rule, const char *value) {
    char copy[512];
    char *rest = copy, *word;

    if (strlen(value) >= sizeof(copy))
        return reading_complain(reading, "capabilities: the list is longer than %zu octets", sizeof(copy) - 1);
    strcpy(copy, value);
    while ((word = strsep(&rest, " ,\t"))) {
        int capability;

        if (!*word)
            continue;
        if (strcmp(word, "all") == 0) {
            rule->capabilities |= CAPABILITIES_ALL;
            continue;
        }
        capability = vmibus_capability_from_name(word);
        if (capability < 0)
            return reading_complain(reading, "capabilities: there is no capability '%s'; vmibusd.conf(5) lists them", word);
        rule->capabilities |= (uint32_t)capability;
    }
    return 1;
}

static int set_write_ranges(struct reading *reading, const char *name, struct write_ranges *ranges, const char *value) {
    if (write_ranges_parse(ranges, value) < 0)
        return reading_complain(reading, "%s = %s: one to %u ranges FIRST-LAST of addresses are wanted", name, value, WRITE_RANGES);
    return 1;
}

static int set_write_bound(struct reading *reading, struct write_bounds *bounds, const char *name, const char *value) {
    uint32_t number = 0;

    if (strcmp(name, "write-gva") == 0)
        return set_write_ranges(reading, name, &bounds->place.gva, value);
    if (strcmp(name, "write-gpa") == 0)
        return set_write_ranges(reading, name, &bounds->place.gpa, value);
    if (strcmp(name, "write-protect") == 0)
        return write_protection_parse(&bounds->place.protect, value) == 0 ? 1 :
               reading_complain(reading, "write-protect = %s: known are kernel-text and page-tables", value);
    if (!reading_set_number(reading, name, &number, value, 1, UINT32_MAX))
        return 0;
    *(strcmp(name, "write-size") == 0 ? &bounds->size : &bounds->rate) = number;
    return 1;
}

static bool is_write_bound(const char *name) {
    static const char *const names[] = {"write-gva", "write-gpa", "write-protect", "write-size", "write-rate"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Two rules under one name would be told apart by nobody. */
static struct policy_rule *begin_rule(struct reading *reading, const char *name) {
    struct policy_rule *rule;

    list_for_each(rule, &reading->config->policy->rules, link)
        if (strcmp(rule->name, name) == 0) {
            reading_complain(reading, "there is a [rule %s] at %s:%u already: each rule has a name of its own", name,
                             rule->source, rule->line);
            return NULL;
        }
    if (policy_add_rule(reading->config->policy, name, &rule) < 0 ||
        config_set_string(&rule->source, reading->path) < 0) {
        reading_complain(reading, "out of memory");
        return NULL;
    }
    rule->line = (uint32_t)reading->line;
    reading->rule = rule;
    return rule;
}

int reading_set_rule(struct reading *reading, const char *rule_name, const char *name, const char *value) {
    struct policy_rule *rule = reading->rule;

    if (!rule || strcmp(rule->name, rule_name) != 0) {
        rule = begin_rule(reading, rule_name);
        if (!rule)
            return 0;
    }
    if (strcmp(name, "user") == 0)
        return set_user(reading, rule, value);
    if (strcmp(name, "group") == 0)
        return set_group(reading, rule, value);
    if (strcmp(name, "everybody") == 0) {
        if (strcmp(value, "yes") != 0)
            return reading_complain(reading, "everybody = %s: only 'yes' can be said", value);
        return set_subject(reading, rule, POLICY_EVERYBODY, 0);
    }
    if (strcmp(name, "endpoints") == 0)
        return reading_set_string(reading, &rule->endpoints, value);
    if (strcmp(name, "capabilities") == 0)
        return set_capabilities(reading, rule, value);
    if (strcmp(name, "rank") == 0)
        return reading_set_number(reading, name, &rule->rank, value, 0, UINT32_MAX);
    if (strcmp(name, "lease-ttl-ms") == 0)
        return reading_set_number(reading, name, &rule->lease_ttl_ms, value, 1, UINT32_MAX);
    if (is_write_bound(name))
        return set_write_bound(reading, &rule->write, name, value);
    return reading_complain(reading, "unknown key '%s' in [rule %s]; vmibusd.conf(5) lists the keys", name, rule_name);
}

/* As policy_rule_capabilities() has it; that `all` does not include it there is no mistake. */
static bool asks_for_admin(const struct policy_rule *rule) {
    return rule->capabilities & VMIBUS_CAP_ADMIN && rule->capabilities != CAPABILITIES_ALL && strcmp(rule->endpoints, "*") != 0;
}

/* A rule that names nobody is a mistake that would be found only by its absence. */
int reading_check_rules(struct reading *reading) {
    const struct policy_rule *rule;

    list_for_each(rule, &reading->config->policy->rules, link) {
        if (names_nobody(rule))
            reading_complain(reading, "[rule %s] names nobody: it needs user =, group = or everybody = yes", rule->name);
        else if (rule->capabilities == 0)
            reading_complain(reading, "[rule %s] grants nothing: it needs capabilities =", rule->name);
        else if (asks_for_admin(rule))
            reading_complain(reading, "[rule %s] cannot give admin, which concerns no VM yet, on some only: leave out endpoints =",
                             rule->name);
    }
    return reading->failed ? -EINVAL : 0;
}
