/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The keys of [daemon] that say how commands are recorded. */
#include <string.h>

#include "audit/journal.h"
#include "daemon/config_reading.h"

static int set_mode(struct reading *reading, struct config_audit *audit, const char *value) {
    if (strcmp(value, "off") != 0 && strcmp(value, "normal") != 0 && strcmp(value, "strict") != 0)
        return reading_complain(reading, "audit = %s: 'off', 'normal' or 'strict' is wanted", value);
    audit->off = strcmp(value, "off") == 0;
    audit->strict = strcmp(value, "strict") == 0;
    return 1;
}

static int set_full(struct reading *reading, enum chain_full *full, const char *value) {
    static const char *const names[] = {
        [CHAIN_REFUSE] = "refuse",
        [CHAIN_DROP_OLDEST] = "drop-oldest",
        [CHAIN_CONTINUE] = "continue",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(value, names[i]) == 0) {
            *full = (enum chain_full)i;
            return 1;
        }
    return reading_complain(reading, "audit-full = %s: 'refuse', 'drop-oldest' or 'continue' is wanted", value);
}

static int set_way(struct reading *reading, bool *thread, const char *value) {
    if (strcmp(value, "any") != 0 && strcmp(value, "thread") != 0)
        return reading_complain(reading, "audit-writer = %s: 'any' or 'thread' is wanted", value);
    *thread = strcmp(value, "thread") == 0;
    return 1;
}

static int set_journal(struct reading *reading, char **journal, const char *value) {
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0 && *value != '/')
        return reading_complain(reading, "audit-journal = %s: 'yes', 'no' or the path of a socket is wanted", value);
    return reading_set_string(reading, journal, *value == '/' ? value : *value == 'y' ? JOURNAL_SOCKET : "no");
}

int reading_set_audit(struct reading *reading, const char *name, const char *value) {
    struct config_audit *audit = &reading->config->audit;
    const struct {
        const char *name;
        uint32_t *setting;
        uint32_t minimum, maximum;
    } numbers[] = {
        {"audit-digest-bytes", &audit->digest_bytes, 0, 1u << 20},
        {"audit-segment-bytes", &audit->segment_bytes, 65536, 1u << 30},
        {"audit-segments", &audit->segments, 0, 1u << 20},
        {"audit-idle-rate", &audit->idle_rate, 0, 1u << 20},
        {"audit-commit-ms", &audit->commit_ms, 1, 60000},
        {"audit-wait-ms", &audit->wait_ms, 100, 600000},
    };

    if (strcmp(name, "audit") == 0)
        return set_mode(reading, audit, value);
    if (strcmp(name, "audit-full") == 0)
        return set_full(reading, &audit->full, value);
    if (strcmp(name, "audit-writer") == 0)
        return set_way(reading, &audit->thread, value);
    if (strcmp(name, "audit-journal") == 0)
        return set_journal(reading, &audit->journal, value);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (strcmp(name, numbers[i].name) == 0)
            return reading_set_number(reading, name, numbers[i].setting, value, numbers[i].minimum, numbers[i].maximum);
    return reading_complain(reading, "unknown key '%s' in [daemon]; vmibusd.conf(5) lists the keys", name);
}
