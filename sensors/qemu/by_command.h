/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What commands changed of what the sensor follows, and its way over a restart: VMs that were added; VMs of an option that were
 * removed; files of a directory that are to be followed no more.
 *
 * Rules.  What was saved is as little believed as a command: each item is taken by the same way as one, and one that is refused
 * takes no other with it.  The configuration has the last word: a name that it gives by now is that VM, and a removal holds as
 * long as it gives the same name the same path.
 *
 * Octets, after those of the machines (machine/saved.h): a magic number, then items of a kind, a length and that many octets.
 * Kinds are never reused, and one that is not known is passed over.
 */
#ifndef SENSORS_QEMU_BY_COMMAND_H
#define SENSORS_QEMU_BY_COMMAND_H

#include <stddef.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

struct qemu;

/** Items that are saved, and read, at most. */
#define BY_COMMAND_ITEMS (2u * 65536u)

/** A VM of an option that a command removed. */
struct removed {
    SLIST_ENTRY(removed) link;
    char text[]; /**< NAME=PATH */
};

SLIST_HEAD(removed_list, removed);

/** Executes CMD_MONITOR, and completes it. 0. */
int by_command_execute(struct qemu *qemu, const struct vmibus_sensor_command *command);

/**
 * Whether the VM of an option stays removed, by what the instance before said; it is remembered then.
 * @return 1: it does; 0: it is to be followed; -ENOMEM
 */
int by_command_is_removed(struct qemu *qemu, const char *name, const char *path);

/** Takes the other two of what the instance before said, from within start(), once the options were taken. */
void by_command_restore(struct qemu *qemu);

/**
 * What the next instance is to know, for saved_begin().
 * @param[out] octetsp to be freed with free(); NULL: nothing
 * @return 0 or -ENOMEM
 */
int by_command_save(const struct qemu *qemu, void **octetsp, size_t *np);

/** Frees what is remembered. */
void by_command_deinit(struct qemu *qemu);

#endif
