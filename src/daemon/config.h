/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The configuration file, vmibusd.conf(5): what the daemon is to be, the policy, and the options of
 * sensors.  A file is taken whole or not at all, and every mistake is told with its line.
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/sensor.h>

#include "policy/policy.h"
#include "util/fault.h"
#include "util/list.h"

/** A sensor to load, and its options. */
struct config_sensor {
    struct list link;
    char *name;
    struct vmibus_sensor_option *options;   /**< keys and values are owned */
    size_t n_options;
};

struct config {
    char *socket;
    mode_t socket_mode;
    char *state_directory;
    char *sensor_directory;
    uint32_t n_endpoints;
    uint32_t n_connections;
    uint32_t queue_depth;
    uint32_t commands;
    uint32_t tail_bound;
    uint64_t memory_cap;        /**< octets; 0: as much as the other settings ask for */
    uint32_t n_large_tails;
    uint32_t hello_ms;
    uint32_t half_frame_ms;
    uint32_t drain_ms;
    uint32_t retire_ms;
    bool small_writes_on_worker;
    uint32_t hold_ms;
    uint64_t audit_records;
    struct list sensors;
#ifdef HAVE_FAULT_INJECTION
    struct fault_rules faults;
#endif
    struct policy *policy;      /**< owned; config_take_policy() */
};

/** Where a mistake is, and what it is. */
struct config_error {
    int line;                   /**< 0: not in a line */
    char text[512];
};

/** The defaults. 0 or -ENOMEM. */
int config_init(struct config *config);

/** Frees what it holds. */
void config_deinit(struct config *config);

/**
 * Reads a file over what is there.
 * @return 0, -EINVAL with @a error filled, -ENOENT, or another negative errno
 */
int config_read(struct config *config, const char *path, struct config_error *error);

/** Gives the policy up to the caller. */
struct policy *config_take_policy(struct config *config);

/** The sensor of this name, added if it is not there yet. NULL: out of memory. */
struct config_sensor *config_sensor(struct config *config, const char *name);

/** Sets an option of a sensor; a key is set once, the last value holds. 0 or -ENOMEM. */
int config_sensor_set(struct config_sensor *sensor, const char *key, const char *value);

/** Replaces a string setting. 0 or -ENOMEM. */
int config_set_string(char **setting, const char *value);

#endif
