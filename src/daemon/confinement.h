/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon keeps of its rights once it is set up; sandbox.h says by what means.
 *
 *   Capabilities  none, unless it opens the memory of processes by itself, or sensors in it may need what it was given.
 *   Files         the configuration, /etc (users are looked up there) and /proc for reading; the state directory for writing; all
 *                 files for reading where sensors are in the process, which alone know what they look at.  One that opens the
 *                 memory of processes by itself keeps everything within reach: Landlock would keep it from that memory.
 *   System calls  what the daemon's parts and its sensors declare.
 */
#ifndef DAEMON_CONFINEMENT_H
#define DAEMON_CONFINEMENT_H

#include <stdbool.h>

#include "daemon/config.h"

struct confinement {
    const struct config *config;
    const char *config_path;    /**< of the file that may be read again; NULL: none */
    const char *socket;         /**< that it removes in the end; NULL: none */
    bool opens;                 /**< the memory of other processes, by itself */
    bool sensors;               /**< are in this process */
};

/** Gives up capabilities and files: before sensors and other threads are started. 0 or a negative errno, which was told. */
int confinement_limit_files(const struct confinement *confinement);

/** Gives up system calls: when the sensors are loaded. 0 or a negative errno, which was told. */
int confinement_limit_syscalls(const struct confinement *confinement);

#endif
