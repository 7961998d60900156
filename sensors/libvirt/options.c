/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity.h"

#define DEFAULT_URI "qemu:///system"
#define RULE_PREFIX "monitor."

static int __attribute__((format(printf, 2, 3)))
refuse(struct options *options, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(options->message, sizeof(options->message), format, arguments);
    va_end(arguments);

    return -EINVAL;
}

static int take_text(char **textp, const char *value) {
    free(*textp);
    *textp = strdup(value);

    return *textp ? 0 : -ENOMEM;
}

static int take_path(struct options *options, char **pathp, const struct vmibus_sensor_option *option) {
    if (*option->value != '/')
        return refuse(options, "%s=%s: the path must be absolute", option->key, option->value);

    return take_text(pathp, option->value);
}

static int take_yes(struct options *options, bool *yesp, const struct vmibus_sensor_option *option) {
    *yesp = strcmp(option->value, "yes") == 0;
    if (!*yesp && strcmp(option->value, "no") != 0)
        return refuse(options, "%s=%s: yes or no is wanted", option->key, option->value);

    return 0;
}

static int take_rule(struct options *options, const struct vmibus_sensor_option *option) {
    const char *pattern = option->key + strlen(RULE_PREFIX);
    struct monitor_rule *rule;
    int r;

    if (!*pattern)
        return refuse(options, "%s: a pattern of names is wanted after the dot", option->key);
    if (options->n_rules == OPTIONS_RULES_BOUND)
        return refuse(options, "%s: there are more than %d patterns; write some as one", option->key, OPTIONS_RULES_BOUND);
    rule = &options->rules[options->n_rules];
    r = take_yes(options, &rule->allowed, option);
    if (r < 0)
        return r;
    rule->pattern = strdup(pattern);
    if (!rule->pattern)
        return -ENOMEM;
    options->n_rules++;

    return 0;
}

/* Another host's processes are not here, and a driver that is not QEMU's has no such monitors. */
static int take_uri(struct options *options, const struct vmibus_sensor_option *option) {
    if (strncmp(option->value, "qemu:///", 8) != 0 && strncmp(option->value, "qemu+unix:///", 13) != 0)
        return refuse(options, "uri=%s: qemu:///system, qemu:///session, or such with ?socket=PATH is wanted", option->value);

    return take_text(&options->uri, option->value);
}

static int take(struct options *options, const struct vmibus_sensor_option *option) {
    if (strcmp(option->key, "uri") == 0)
        return take_uri(options, option);
    if (strcmp(option->key, "pid-directory") == 0)
        return take_path(options, &options->pid_directory, option);
    if (strcmp(option->key, "state-directory") == 0)
        return take_path(options, &options->state_directory, option);
    if (strcmp(option->key, "monitor") == 0)
        return take_yes(options, &options->monitor, option);
    if (strncmp(option->key, RULE_PREFIX, strlen(RULE_PREFIX)) == 0)
        return take_rule(options, option);

    return refuse(options, "unknown option %s; known are uri, monitor, monitor.PATTERN, pid-directory and state-directory",
                  option->key);
}

int options_take(struct options *options, const struct vmibus_sensor_option *given, size_t n_given) {
    int r;

    *options = (struct options){.monitor = true};
    r = take_text(&options->uri, DEFAULT_URI);
    for (size_t i = 0; i < n_given && r >= 0; i++)
        r = take(options, &given[i]);
    if (r >= 0 && !options->pid_directory)
        options->pid_directory = identity_directory(options->uri);

    return r;
}

void options_deinit(struct options *options) {
    free(options->uri);
    free(options->pid_directory);
    free(options->state_directory);
    while (options->n_rules)
        free(options->rules[--options->n_rules].pattern);
    *options = (struct options){0};
}

bool options_allow_monitor(const struct options *options, const char *name) {
    for (size_t i = 0; i < options->n_rules; i++)
        if (fnmatch(options->rules[i].pattern, name, 0) == 0)
            return options->rules[i].allowed;

    return options->monitor;
}
