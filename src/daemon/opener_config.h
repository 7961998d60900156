/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What vmibus-opend(8) permits: the section [opener] of the configuration, read once at its start, and only from a file that
 * nobody but root can change.
 */
#ifndef DAEMON_OPENER_CONFIG_H
#define DAEMON_OPENER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/sandbox.h"

#define OPENER_NAMES_MAX 32u

/** Users by number. */
struct opener_users {
    uid_t uids[OPENER_NAMES_MAX];
    size_t n;               /**< 0: nobody */
};

struct opener_config {
    char *socket;                           /**< owned */
    struct opener_users users;              /**< whose processes are opened */
    struct opener_users memory_users;       /**< who may ask */
    char *executables[OPENER_NAMES_MAX];    /**< patterns of absolute paths; owned */
    size_t n_executables;
    uint32_t timeout_ms;                    /**< after which what blocks is given up */
    enum sandbox_wish sandbox;
    bool process_memory;                    /**< whether /proc/PID/mem is opened */
};

/** A mistake, as a person reads it. */
struct opener_config_error {
    char path[512];         /**< the file, or the folder */
    int line;               /**< 0: not in a line */
    char text[512];
};

bool opener_users_contain(const struct opener_users *users, uid_t uid);

/** Nothing is set. 0 or -ENOMEM. */
int opener_config_init(struct opener_config *config);

/** Frees what it holds. */
void opener_config_deinit(struct opener_config *config);

/** Sets one key of [opener]. 0, -EINVAL with the text of @a error filled, or -ENOMEM. */
int opener_config_set(struct opener_config *config, const char *key, const char *value, struct opener_config_error *error);

/**
 * Reads the section from a file, and from those of its folder as config_read() does; other sections are passed over.
 * @return 0, -EINVAL (a mistake) or -EPERM (not to be believed) with @a error filled, -ENOENT, or another negative errno
 */
int opener_config_read(struct opener_config *config, const char *path, struct opener_config_error *error);

/** Fills in what was not set; users stays empty where its default is no user here, and nobody is permitted. 0 or -ENOMEM. */
int opener_config_complete(struct opener_config *config, struct opener_config_error *error);

#endif
