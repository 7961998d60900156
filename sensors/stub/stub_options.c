/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options: one table names each key, its place, its bounds or its words. */
#include "stub_options.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stub_map.h"

#define WORDS_MAXIMUM 4

struct option_word {
    const char *word;
    uint32_t value;
};

struct option_rule {
    const char *key;
    size_t offset; /* of a uint32_t, or of the uint64_t where is_size */
    bool is_size;
    uint64_t minimum;
    uint64_t maximum;
    struct option_word words[WORDS_MAXIMUM]; /* if any: the values allowed */
};

#define PLACE(name) .key = #name, .offset = offsetof(struct stub_options, name)
#define NUMBER(name, low, high) {PLACE(name), .minimum = (low), .maximum = (high)}
#define CHOICE(name, ...) {PLACE(name), .words = {__VA_ARGS__}}

static const struct option_rule rules[] = {
    NUMBER(vms, 0, STUB_VMS_MAXIMUM),
    {PLACE(ram), .is_size = true, .minimum = STUB_RAM_MINIMUM, .maximum = STUB_RAM_MAXIMUM},
    CHOICE(state, {"running", VMIBUS_VM_STATE_RUNNING}, {"paused", VMIBUS_VM_STATE_PAUSED},
           {"suspended", VMIBUS_VM_STATE_SUSPENDED}),
    CHOICE(bootstrap, {"ok", STUB_BOOTSTRAP_OK}, {"slow", STUB_BOOTSTRAP_SLOW},
           {"fail", STUB_BOOTSTRAP_FAIL}, {"flaky", STUB_BOOTSTRAP_FLAKY}),
    NUMBER(boot_ms, 0, STUB_MS_MAXIMUM),
    CHOICE(root, {"proven", STUB_ROOT_PROVEN}, {"none", STUB_ROOT_NONE},
           {"wrong", STUB_ROOT_WRONG}),
    CHOICE(layout, {"ok", STUB_LAYOUT_OK}, {"overlap", STUB_LAYOUT_OVERLAP},
           {"beyond", STUB_LAYOUT_BEYOND}),
    CHOICE(execute, {"ok", STUB_EXECUTE_OK}, {"slow", STUB_EXECUTE_SLOW},
           {"hang", STUB_EXECUTE_HANG}, {"fail", STUB_EXECUTE_FAIL}),
    CHOICE(release, {"ok", STUB_EXECUTE_OK}, {"slow", STUB_EXECUTE_SLOW},
           {"hang", STUB_EXECUTE_HANG}, {"fail", STUB_EXECUTE_FAIL}),
    NUMBER(execute_ms, 1, STUB_MS_MAXIMUM),
    NUMBER(shutdown_ms, 0, STUB_MS_MAXIMUM),
    NUMBER(respawn_ms, 0, STUB_MS_MAXIMUM),
    NUMBER(heartbeat_ms, 0, STUB_MS_MAXIMUM),
};

static const struct option_rule *find_rule(const char *key) {
    size_t i;

    for (i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (strcmp(rules[i].key, key) == 0)
            return &rules[i];
    return NULL;
}

static int parse_word(const struct option_rule *rule, const char *text, uint64_t *value) {
    size_t i;

    for (i = 0; i < WORDS_MAXIMUM && rule->words[i].word; i++)
        if (strcmp(rule->words[i].word, text) == 0) {
            *value = rule->words[i].value;
            return 0;
        }
    return -EINVAL;
}

/* Digits, and for a size K, M or G after them. */
static int parse_number(const struct option_rule *rule, const char *text, uint64_t *value) {
    unsigned shift = 0;
    char *end;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    if (errno != 0)
        return -EINVAL;
    if (rule->is_size && *end) {
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
        if (shift == 0)
            return -EINVAL;
        end++;
    }
    if (*end || *value > UINT64_MAX >> shift)
        return -EINVAL;
    *value <<= shift;
    if (rule->is_size && *value % (2 * STUB_LARGE_PAGE) != 0)
        return -EINVAL;
    return *value < rule->minimum || *value > rule->maximum ? -EINVAL : 0;
}

static void explain(const struct option_rule *rule, const char *text,
                    char message[STUB_MESSAGE_BOUND]) {
    int used =
        snprintf(message, STUB_MESSAGE_BOUND, "option %s: \"%.40s\" is not ", rule->key, text);
    size_t i;

    if (!rule->words[0].word) {
        snprintf(message + used, (size_t)(STUB_MESSAGE_BOUND - used), "a %s from %llu to %llu",
                 rule->is_size ? "multiple of 4 MiB (suffixes K, M, G)" : "number",
                 (unsigned long long)rule->minimum, (unsigned long long)rule->maximum);
        return;
    }
    for (i = 0; i < WORDS_MAXIMUM && rule->words[i].word && used < STUB_MESSAGE_BOUND; i++)
        used += snprintf(message + used, (size_t)(STUB_MESSAGE_BOUND - used), "%s%s",
                         i ? ", " : "one of ", rule->words[i].word);
}

static void set_defaults(struct stub_options *options) {
    *options = (struct stub_options){
        .vms = 2,
        .ram = STUB_RAM_DEFAULT,
        .state = VMIBUS_VM_STATE_RUNNING,
        .execute_ms = 100,
    };
}

int stub_options_parse(struct stub_options *options, const struct vmibus_sensor_option *given,
                       size_t n_given, char message[STUB_MESSAGE_BOUND]) {
    const struct option_rule *rule;
    uint64_t value;
    bool has_boot_ms = false;
    size_t i;
    int r;

    set_defaults(options);
    for (i = 0; i < n_given; i++) {
        rule = find_rule(given[i].key);
        if (!rule) {
            snprintf(message, STUB_MESSAGE_BOUND,
                     "option %.40s is not known; vmibus-sensor-stub(7) lists them", given[i].key);
            return -EINVAL;
        }
        r = rule->words[0].word ? parse_word(rule, given[i].value, &value)
                                : parse_number(rule, given[i].value, &value);
        if (r < 0) {
            explain(rule, given[i].value, message);
            return r;
        }
        if (rule->is_size)
            memcpy((char *)options + rule->offset, &value, sizeof(value));
        else
            memcpy((char *)options + rule->offset, &(uint32_t){(uint32_t)value}, sizeof(uint32_t));
        has_boot_ms = has_boot_ms || strcmp(rule->key, "boot_ms") == 0;
    }
    if (!has_boot_ms && options->bootstrap != STUB_BOOTSTRAP_OK)
        options->boot_ms = options->bootstrap == STUB_BOOTSTRAP_SLOW ? 1000 : 100;
    return 0;
}
