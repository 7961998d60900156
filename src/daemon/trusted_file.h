/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that say what a privileged process may do: they are believed only if nobody but root can change them, or put another
 * in their place.
 */
#ifndef DAEMON_TRUSTED_FILE_H
#define DAEMON_TRUSTED_FILE_H

#include <stddef.h>
#include <stdbool.h>
#include <sys/stat.h>

/** Whether only root can change what has these attributes. */
bool trusted_is_roots(const struct stat *st);

/**
 * Opens a file for reading, if it and every folder on the way to it are root's and nobody else can write to them (or only in the
 * way of /tmp, where nobody can replace what is another's), and no symbolic link is on that way.
 * @param why  filled if the file is not to be believed: what is wrong with which path, and the remedy
 * @return a descriptor, -EPERM (see @a why) or another negative errno
 */
int trusted_open(const char *path, char *why, size_t size);

#endif
