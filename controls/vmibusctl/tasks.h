/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processes of a guest, collected while it may be held still, and looked at afterwards. */
#ifndef VMIBUSCTL_TASKS_H
#define VMIBUSCTL_TASKS_H

#include "linux_guest.h"

struct tasks {
    struct vmibus_linux_task *tasks;    /**< by rising pid */
    size_t n, room;
    bool out_of_memory, bounded;
    struct vmibus_linux_picture picture;
};

/**
 * Collects processes, and threads if wanted, LINUX_GUEST_ENTRIES_MAX at most: if there are more, the picture is BOUNDED.
 * @return a status, after having said what was wrong
 */
int tasks_collect(const struct linux_guest *guest, bool threads, struct tasks *tasks);

/** The task of a pid, NULL if there is none. */
const struct vmibus_linux_task *tasks_find(const struct tasks *tasks, uint32_t pid);

/** Frees what it holds. */
void tasks_deinit(struct tasks *tasks);

/** Finds the process that a word names by its pid. Returns a status, after having said what was wrong. */
int tasks_lookup(const struct linux_guest *guest, const char *word, struct vmibus_linux_task *task);

#endif
