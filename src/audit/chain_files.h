/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files of a chain that there are when its writer begins: where the chain goes on, what is cut off, what is left alone.  Only
 * chain.c uses it; how files are called is in chain.h, for who reads them too.
 */
#ifndef AUDIT_CHAIN_FILES_H
#define AUDIT_CHAIN_FILES_H

#include <stdint.h>

#include "audit/chain.h"

/** Finds the oldest and the newest file. 0 or a negative errno. */
int chain_find_files(struct chain *chain);

/** Opens a file (open(2) flags; those that are made are the owner's). A descriptor or a negative number, and errno. */
int chain_open_file(const struct chain *chain, uint64_t segment, int flags);

/**
 * Reads the newest file, and those before it as far as they are needed; each record is told by options.seen().  The chain goes on
 * in the newest one, or in the next one.
 * @return 0, or a negative errno: what is in them is not known, so nothing may follow
 */
int chain_take_files(struct chain *chain);

#endif
