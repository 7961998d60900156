/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file that appears under its name when it is whole, or not at all, whatever ends the program.  Only its owner can read it:
 * it holds what is in a guest.
 */
#ifndef VMIBUSCTL_NEW_FILE_H
#define VMIBUSCTL_NEW_FILE_H

#include <stdbool.h>

#include "vmibusctl.h"

struct new_file {
    const char *path;   /**< borrowed */
    int fd;             /**< to write to; -1: none */
    bool replace;       /**< what bears the name goes */
    char *temporary;    /**< name that it has meanwhile, where the file system cannot do without; NULL */
};

/**
 * Begins a file. What bears the name already is refused, unless it is to be replaced.
 * @return a status, after having said what was wrong; new_file_abandon() it whatever the outcome
 */
int new_file_begin(struct new_file *file, const char *path, bool replace);

/** Gives it its name. Returns a status, after having said what was wrong. */
int new_file_finish(struct new_file *file);

/** Closes it; what was not finished is gone. */
void new_file_abandon(struct new_file *file);

#endif
