/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A directory whose monitor sockets are VMs: each file that fits the patterns and may be trusted is followed, named as the
 * file is without its suffix.
 *
 * Rules.  Whoever can put a file there can make a VM, so neither the directory nor anything on the way to it may be written by
 * strangers, and a socket must be of root, of the sensor's own user, or of a user who is allowed: everything else is told, and
 * left alone.  Links are not followed.  Whatever happens in the directory, all of it is looked at again, soon: no event tells
 * what is there, so none can be missed.  A VM whose file is gone stays as long as its process does.
 */
#ifndef SENSORS_QEMU_DIRECTORY_H
#define SENSORS_QEMU_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <time.h>

#include "arrival.h"

struct qemu;
struct vm;

/** VMs of one sensor at most, unless the option directory-limit says otherwise. */
#define DIRECTORY_LIMIT_DEFAULT 1024u

/** Files looked at, for each VM there may be: a directory of more is refused the rest. */
#define DIRECTORY_FILES_PER_VM 16u

/** What a sensor's directories have in common. */
struct directory_rules {
    char *patterns;     /**< fnmatch(3), separated by spaces; NULL: "*.qmp *.sock" */
    uid_t *owners;      /**< who may own sockets and directories, besides root and the sensor's own user */
    size_t n_owners;
    size_t limit;       /**< VMs of the sensor; 0: DIRECTORY_LIMIT_DEFAULT */
};

/** A file that a command told to follow no more; until it is another one. */
struct dismissed {
    SLIST_ENTRY(dismissed) link;
    ino_t inode;
    struct timespec changed;
    char name[];
};

struct directory {
    TAILQ_ENTRY(directory) link;
    struct qemu *qemu;
    char *path;
    struct arrival *arrival;    /**< NULL if the host's limits forbid it: the message says so */
    struct vmibus_sensor_timer *timer;
    uint64_t looks;
    SLIST_HEAD(, dismissed) dismissed;
    char message[400];          /**< what is refused, and the remedy; empty: nothing */
    unsigned int n_refused;
};

TAILQ_HEAD(directory_list, directory);

/** Where a VM comes from; embedded in it. */
struct directory_file {
    struct directory *directory;    /**< NULL: it was named, by an option or a command */
    uint64_t seen;                  /**< the look that saw it last */
    ino_t inode;
    struct timespec changed;        /**< its status, when it was seen last */
    bool gone;                      /**< the VM goes with its process */
};

/** Sets the users who may own sockets: names or numbers, separated by spaces. 0, -ENOMEM, or -EINVAL: there is no such user. */
int directory_rules_set_owners(struct directory_rules *rules, const char *words);

/** Frees what the rules hold. */
void directory_rules_deinit(struct directory_rules *rules);

/** Begins to watch a directory, which need not exist. @param path absolute; copied. 0 or a negative errno. */
int directory_new(struct qemu *qemu, const char *path);

/** Ends it; its VMs stay. */
void directory_free(struct directory *directory);

/** Looks again soon. */
void directory_look(struct directory *directory);

/** The VM of a file, known by inode and change of status, is to be followed no more, until it is another one. 0 or -ENOMEM. */
int directory_dismiss(struct directory *directory, const char *name, ino_t inode, struct timespec changed);

/** Whether a VM may be called so: 1 to VMIBUS_NAME_BOUND octets, no control characters. */
static inline bool directory_name_is_valid(const char *name, size_t len) {
    if (!len || len > VMIBUS_NAME_BOUND)
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return false;
    return true;
}

#endif
