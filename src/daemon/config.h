/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The configuration, vmibusd.conf(5): what the daemon is to be, the policy, and the options of sensors.  It is a file and
 * those of the folder beside it, taken whole or not at all; every mistake is told with its file and line.
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/sensor.h>

#include "audit/chain.h"
#include "daemon/sandbox.h"
#include "policy/policy.h"
#include "util/fault.h"
#include "util/list.h"

/** A sensor to load, and its options. */
struct config_sensor {
    struct list link;
    char *name;
    struct vmibus_sensor_option *options;   /**< keys and values are owned */
    size_t n_options;
    bool apart;                             /**< it has a process of its own, vmibus-sensord(8) */
};

/** How commands are recorded. */
struct config_audit {
    bool off, strict;
    enum chain_full full;
    uint32_t digest_bytes;
    uint32_t segment_bytes;
    uint32_t segments;          /**< 0: all are kept */
    uint32_t idle_rate;         /**< records a second of a user's commands that changed nothing; 0: all */
    uint32_t commit_ms;
    uint32_t wait_ms;
    bool thread;                /**< never by io_uring */
    char *journal;              /**< path of its socket; empty: it is not told */
};

struct config {
    char *socket;
    mode_t socket_mode;
    char *state_directory;
    enum sandbox_wish sandbox;
    char *memory_socket;        /**< of vmibus-memd(8); NULL: the memory authority is in vmibusd */
    char *memory_state_directory; /**< of vmibus-memd(8) */
    char *opener_socket;        /**< of vmibus-opend(8); NULL: the process opens by itself */
    char *sensor_directory;
    uint32_t n_endpoints;
    uint32_t n_connections;
    uint32_t queue_depth;
    uint32_t commands;
    uint32_t tail_bound;
    uint64_t memory_cap;        /**< octets; 0: as much as the other settings ask for */
    uint32_t n_large_tails;
    uint32_t hello_ms;
    uint32_t handover_ms;
    uint32_t half_frame_ms;
    uint32_t drain_ms;
    uint32_t retire_ms;
    uint32_t sensor_endpoints;  /**< VMs that a sensor apart may offer; 0: half of n_endpoints */
    uint32_t sensor_answer_ms;  /**< how long it may take to answer a command */
    bool small_writes_on_worker;
    uint32_t hold_ms;
    uint64_t audit_records;
    struct config_audit audit;
    struct list sensors;
#ifdef HAVE_FAULT_INJECTION
    struct fault_rules faults;
#endif
    struct policy *policy;      /**< owned; config_take_policy() */
};

/** Where a mistake is, and what it is. */
struct config_error {
    char path[4096];            /**< the file, or the folder */
    int line;                   /**< 0: not in a line */
    char text[512];
};

/** The defaults. 0 or -ENOMEM. */
int config_init(struct config *config);

/** Frees what it holds. */
void config_deinit(struct config *config);

/**
 * Reads a file over what is there, and then those of the folder that has its name and ".d", whose own names end with ".conf",
 * in the order of their octets.
 * @param error filled whatever is wrong; line and text are empty where only the errno is to be told of path
 * @return 0, -EINVAL, -ENOENT (the folder was read all the same), or another negative errno
 */
int config_read(struct config *config, const char *path, struct config_error *error);

/**
 * Makes a configuration from a file; what does not work is said.
 * @param given the file has to be there
 * @return 0, or a negative errno: then there is none to be freed
 */
int config_read_or_tell(struct config *config, const char *path, bool given);

/** Before a reload: room for what all hold together was set aside at the start. What differs is said. */
void config_keep_total_limits(struct config *config, const struct policy *in_force);

/** Gives the policy up to the caller. */
struct policy *config_take_policy(struct config *config);

/** The sensor of this name, added if it is not there yet. NULL: out of memory. */
struct config_sensor *config_sensor(struct config *config, const char *name);

/** Sets an option of a sensor; a key is set once, the last value holds. 0 or -ENOMEM. */
int config_sensor_set(struct config_sensor *sensor, const char *key, const char *value);

/** Replaces a string setting. 0 or -ENOMEM. */
int config_set_string(char **setting, const char *value);

#endif
