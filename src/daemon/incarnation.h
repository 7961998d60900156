/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The incarnation: a number that rises with every start that takes nothing over, and is on disk before anything is numbered by
 * it.  It is the upper half of every token, generation and epoch, so none of them returns after a
 * crash.
 */
#ifndef DAEMON_INCARNATION_H
#define DAEMON_INCARNATION_H

#include <stdint.h>

/**
 * Raises the number kept in a directory and syncs it to disk.
 * @param directory a descriptor of it
 * @return 0; -EBADMSG: the file holds something else; -EOVERFLOW; or another negative errno
 */
int incarnation_raise(int directory, uint32_t *incarnation);

/** The same; what does not work is said. @param path of the directory, for the message */
int incarnation_raise_or_tell(int directory, const char *path, uint32_t *incarnation);

/**
 * Raises it above a number that is used although it is not the one that is kept.
 * @return as incarnation_raise(); -EOVERFLOW also if nothing is above it
 */
int incarnation_raise_above(int directory, uint32_t used, uint32_t *incarnation);

/**
 * Goes on with the number of the daemon before, which handed over.
 * @return 0; -ESTALE: another one has been used since; or as incarnation_raise()
 */
int incarnation_keep(int directory, uint32_t incarnation);

#endif
