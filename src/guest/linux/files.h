/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open files: the table of a process, and what each file is. Its name is that of path.h.
 *
 * A descriptor that is being opened or closed is there or not; a file that is taken down meanwhile is left out, or
 * shown as it was.
 */
#ifndef GUEST_LINUX_FILES_H
#define GUEST_LINUX_FILES_H

#include "kernel.h"

/** Takes a descriptor of a process and the struct file behind it. Returns 0, or else what ends the visit. */
typedef int (*files_fn)(void *context, uint32_t fd, uint64_t file, bool closed_on_exec);

/**
 * Visits the descriptors of a process, without looking at the files.
 * @param budget places in tables that may be looked at; less by those of this one
 * @return as vmibus_linux_visit_files(); where the budget ends, the picture says BOUNDED
 */
int files_visit(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, uint64_t *budget, files_fn visit, void *context,
                struct vmibus_linux_picture *picture);

/** The struct socket behind a struct file; 0: it is none, or cannot be read. 0 or a negative errno. */
int files_find_socket(struct vmibus_linux *kernel, uint64_t file, uint64_t *socket);

#endif
