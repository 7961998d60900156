/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vmibusd of a test's own, with stub VMs, in a temporary directory.  Starting waits until it serves,
 * stopping checks that the test did it no harm:
 *
 *   - a bystander that connected first is still served,
 *   - what is charged to anybody is what was charged at the start: no connection, lease, command,
 *     subscription, attachment, octet or descriptor is left,
 *   - it has as many descriptors open as at the start,
 *   - it exits with 0 on SIGTERM (with a sanitizer's report it would not) and removes its socket.
 *
 * Where $VMIBUS_TEST_APART is set it is several processes: beside it are a vmibus-memd with the same configuration, which
 * has to come to no harm either, and a vmibus-sensord for the stub and each other sensor that is given an option.  They come
 * and go with it.
 */
#ifndef TESTS_DAEMON_DAEMON_H
#define TESTS_DAEMON_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/memd.h"
#include "daemon/wire.h"

#define DAEMON_CHARGES 8
#define DAEMON_SENSORS 4
#define DAEMON_KEPT 300

struct daemon_options {
    const char *config;         /**< text of its configuration file; NULL: none */
    const char *sensor_config;  /**< apart: that of the sensors' processes; NULL: none */
    const char *arguments[16];   /**< further arguments; the stub sensor is loaded in any case */
    uint64_t descriptors;       /**< RLIMIT_NOFILE; 0: as it is */
    bool activated;             /**< a listening socket, blocking, is passed as a service manager does */
    const char *notify;         /**< $NOTIFY_SOCKET; NULL: none */
    int kept[DAEMON_KEPT];      /**< descriptors passed as a service manager's fd store does */
    const char *kept_names[DAEMON_KEPT];
    size_t n_kept;
    const char *vm;             /**< another VM whose memory has to be known before what is charged is noted; NULL: none */
    bool unready;               /**< do not wait for the memory contexts of stub-0 and stub-1: they will not be READY */
};

struct daemon {
    struct daemon_options options;
    char directory[64];
    char path[96];              /**< of its socket */
    pid_t pid;
    int log_fd;                 /**< what it writes to stderr */
    char log[16384];            /**< of that, what was read */
    size_t n_log;
    pid_t sensords[DAEMON_SENSORS]; /**< apart; 0: none */
    struct memd memd;           /**< apart; pid 0: none */
    int bystander;
    uint64_t charges[DAEMON_CHARGES];
    size_t n_fds;               /**< of all processes, without epoch pages */
    size_t n_pages;
};

/** Makes the directory and starts the daemon, without waiting. */
void daemon_spawn(struct daemon *daemon, const struct daemon_options *options);

/** Makes the directory, starts the daemon, waits until it serves and its VMs are up, and notes what is charged. */
void daemon_start(struct daemon *daemon, const struct daemon_options *options);

/** Notes what is charged and open: what daemon_await_idle() and daemon_stop() want to find again. */
void daemon_note(struct daemon *daemon);

/** Starts it anew in the same directory, after daemon_kill() or daemon_await_exit(), and waits until it serves. */
void daemon_restart(struct daemon *daemon);

/** The same without waiting: it may be meant to fail. */
void daemon_respawn(struct daemon *daemon);

/** Waits until all that is charged and open is as it was at the start. */
void daemon_await_idle(struct daemon *daemon);

/** The same without failing the test. False: it does not come to that, @a why says what is left. */
bool daemon_wait_idle(struct daemon *daemon, char *why, size_t size);

/** Checks that it came to no harm, ends it, and removes the directory. */
void daemon_stop(struct daemon *daemon);

/** Ends it by SIGKILL. Its directory stays. */
void daemon_kill(struct daemon *daemon);

/** Waits for its end. Returns the exit status, or 128 + signal. */
int daemon_await_exit(struct daemon *daemon);

/** Removes its directory, after daemon_kill() or daemon_await_exit(). */
void daemon_remove(struct daemon *daemon);

/** Waits until it has written this to its log since the last wait. Fails the test if it ends before. */
void daemon_await_log(struct daemon *daemon, const char *text);

/** Writes a file into its directory. */
void daemon_write_file(const struct daemon *daemon, const char *name, const char *text);

/** Replaces the configuration file and sends SIGHUP. Apart it has been read by the memory authority when this returns. */
void daemon_reload(struct daemon *daemon, const char *config);

/** How many descriptors it has open, in all its processes. */
size_t daemon_count_fds(const struct daemon *daemon);

/** The process that holds guests' memory. */
pid_t daemon_memory_pid(const struct daemon *daemon);

/** Whether it has nothing to do and does nothing: it uses less than a quarter of a CPU while watched. */
bool daemon_is_calm(const struct daemon *daemon);

#endif
