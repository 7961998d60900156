/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sensor's options: uri, pid-directory, state-directory, monitor, monitor.PATTERN.
 */
#ifndef SENSORS_LIBVIRT_OPTIONS_H
#define SENSORS_LIBVIRT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/sensor.h>

/** Patterns taken. */
#define OPTIONS_RULES_BOUND 256

/** Whether the monitors of domains may be used. */
struct monitor_rule {
    char *pattern;
    bool allowed;
};

struct options {
    char *uri;
    char *pid_directory;   /**< NULL: not known */
    char *state_directory; /**< NULL: none */
    bool monitor;
    struct monitor_rule rules[OPTIONS_RULES_BOUND]; /* in the order given */
    size_t n_rules;
    char message[512]; /**< why they cannot be used, for people */
};

/** Takes them. 0, -EINVAL with a message, or -ENOMEM; to be ended in all cases. */
int options_take(struct options *options, const struct vmibus_sensor_option *given, size_t n_given);

/** Frees them. */
void options_deinit(struct options *options);

/** Whether QEMU's monitor of a domain may be used: the first pattern that its name matches says so, else the option monitor. */
bool options_allow_monitor(const struct options *options, const char *name);

#endif
