/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A configuration file being read: what it fills, the first mistake, and what the readers of all sections share.  Internal to
 * config.c and config_*.c.
 *
 * A setter returns 1, or 0 after it has complained: as the parser wants it (libinih).
 */
#ifndef DAEMON_CONFIG_READING_H
#define DAEMON_CONFIG_READING_H

#include <stdio.h>

#include "daemon/config.h"

struct reading {
    struct config *config;
    struct config_error *error;
    struct policy_rule *rule;   /**< the last one, to which more may follow */
    const char *path;
    FILE *file;
    int line;                   /**< last one read */
    bool failed;
};

/** Says what is wrong, of what is wrong first. Returns 0. */
int reading_complain(struct reading *reading, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Takes a number as strtoull(3) does. False: it is none, or above @a maximum. */
bool reading_parse_number(const char *text, uint64_t maximum, uint64_t *value);

/** Sets a text, which must not be empty. */
int reading_set_string(struct reading *reading, char **setting, const char *value);

/** Sets a number within bounds. @param name the key, for the complaint */
int reading_set_number(struct reading *reading, const char *name, uint32_t *setting, const char *value, uint32_t minimum,
                       uint32_t maximum);

/** Sets a list of users, names or numbers with blanks or commas between them; it replaces what was there. */
int reading_set_users(struct reading *reading, const char *name, struct user_list *list, const char *value);

/** Takes a key of [rule @a rule_name]. */
int reading_set_rule(struct reading *reading, const char *rule_name, const char *name, const char *value);

/** Takes a key of [daemon] that begins with "audit". */
int reading_set_audit(struct reading *reading, const char *name, const char *value);

/** Complains of rules that were begun and are not whole. 0 or -EINVAL. */
int reading_check_rules(struct reading *reading);

#endif
