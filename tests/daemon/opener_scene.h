/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vmibus-opend(8) of a test's own, and processes in whose name it opens or does not. It takes root: else the test is skipped.
 */
#ifndef TESTS_DAEMON_OPENER_SCENE_H
#define TESTS_DAEMON_OPENER_SCENE_H

#include <stddef.h>
#include <sys/types.h>

#include "memory/opener.h"

/** Whom the configuration names, and somebody whom it does not. */
#define TARGET_UID 64251
#define OTHER_UID 64252

/** A target, and the files that it told of. */
struct target {
    pid_t pid;
    int input_fd;
    struct opener_process process;
    struct opener_file ram;         /**< memfd of mode 0777, mapped shared */
    struct opener_file private;     /**< memfd, mapped private */
    struct opener_file unmapped;    /**< memfd, open only */
    struct opener_file disk;        /**< on a disk, mapped shared */
    struct opener_file shm;         /**< has a name in /dev/shm, mapped shared */
    struct opener_file zero;        /**< the device */
    struct opener_file foreign;     /**< root's memfd, mapped shared */
};

struct scene {
    char directory[64];
    char socket[96];
    char config[96];
    char log[4096];                 /**< of what it wrote to stderr */
    size_t n_log;
    int log_fd;
    pid_t pid;
};

/** Makes the directory and the executable; starts nothing. */
void scene_init(struct scene *scene);

/** Writes the configuration: the scene's [opener], and more lines for it. */
void scene_configure(const struct scene *scene, const char *more);

/** Starts vmibus-opend without waiting. */
void scene_spawn(struct scene *scene);

/** Starts it and waits until it serves. */
void scene_start(struct scene *scene);

/** Ends it by a signal; the directory stays. Returns its exit status, or 128 + signal. */
int scene_end(struct scene *scene, int signal);

/** Waits for its end. */
int scene_await_end(struct scene *scene);

/** Waits until it wrote this. */
void scene_await_log(struct scene *scene, const char *text);

/** Checks that vmibus-opend serves as at the start, ends it and removes the directory. */
void scene_deinit(struct scene *scene);

/** How many descriptors it has open. */
size_t scene_count_fds(const struct scene *scene);

/** Starts a target by an executable of this path, as a user. */
void target_start(struct target *target, const struct scene *scene, const char *executable, uid_t uid);

/** Ends it. */
void target_stop(struct target *target);

/** Copies the target's program, as root's, of this mode. The path is in the scene's directory. */
void scene_copy_target(const struct scene *scene, const char *name, uid_t uid, mode_t mode);

/** A process by its number. */
struct opener_process process_of(pid_t pid);

#endif
